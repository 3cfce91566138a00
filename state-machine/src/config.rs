//! Settings of the process. Each is one field of [`Flags`], with its default and range; see [`startup`](crate::startup) for where values come
//! from.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::startup::{Common, Layered, SettingError, Sources, within};
use crate::worker::SyncPolicy;

/// This service's place in a node's block of ports.
const PORT_OFFSET: u16 = 5;

/// Serves a replicated state machine to the raft process of its node.
///
/// Each flag can be given by the environment variable named beside it, or by its name, with underscores, in the TOML file of
/// --config; a flag wins over the environment, and the environment over the file.
#[derive(Debug, Parser, Serialize)]
#[command(name = "state-machine", version)]
pub struct Flags {
    /// TOML file with settings
    #[arg(long, value_name = "FILE", env = "OUTRIGGER_MACHINE_CONFIG")]
    #[serde(skip)]
    config: Option<PathBuf>,

    #[command(flatten)]
    #[serde(flatten)]
    common: Common,

    /// The node's directory; this process uses "machine" and "machine.sock" in it
    #[arg(long, value_name = "DIR", env = "OUTRIGGER_DATA_DIR", default_value = "data")]
    data_dir: PathBuf,

    /// IP address to listen on; there is no authentication, so leave it on this host
    #[arg(long, value_name = "IP", env = "OUTRIGGER_BIND", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,

    /// First port of the node; this process takes the sixth. 0 = any free port
    #[arg(long, value_name = "PORT", env = "OUTRIGGER_PORT_BASE", default_value_t = 6000, value_parser = within::<u16>(0..=u16::MAX - PORT_OFFSET))]
    port_base: u16,

    /// The very port, instead of --port-base. 0 = any free port [default: port base + 5]
    #[arg(long, value_name = "PORT", env = "OUTRIGGER_MACHINE_PORT")]
    port: Option<u16>,

    /// Which machine to run
    #[arg(long, value_enum, env = "OUTRIGGER_MACHINE", default_value_t = MachineKind::Kv)]
    machine: MachineKind,

    /// Milliseconds from applying an entry to making it durable, 1 to 60000
    #[arg(long, value_name = "MS", env = "OUTRIGGER_MACHINE_SYNC_INTERVAL_MS", default_value_t = 250, value_parser = within::<u64>(1..=60_000))]
    sync_interval_ms: u64,

    /// Entries after which to make them durable without waiting for the interval, 1 to 1000000000
    #[arg(long, value_name = "N", env = "OUTRIGGER_MACHINE_SYNC_ENTRIES", default_value_t = 65_536, value_parser = within::<u64>(1..=1_000_000_000))]
    sync_entries: u64,

    /// Where to write process id and addresses as JSON once it serves
    #[arg(long, value_name = "FILE", env = "OUTRIGGER_MACHINE_READY_FILE")]
    ready_file: Option<PathBuf>,
}

/// The machines of this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineKind {
    /// Keys and values on disk.
    Kv,
    /// Keys and values in memory; rebuilt from raft's snapshot and log after each start.
    MemoryKv,
    /// One value in memory.
    Register,
}

/// Settings that were checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's directory.
    pub data_dir: PathBuf,
    /// Address to listen on.
    pub bind: IpAddr,
    /// Port to listen on; 0 = any.
    pub port: u16,
    /// Which machine to run.
    pub machine: MachineKind,
    /// When to sync.
    pub sync: SyncPolicy,
    /// Where to say that it serves.
    pub ready_file: Option<PathBuf>,
}

impl Layered for Flags {
    type Config = Config;

    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&mut self, _sources: &Sources) -> Result<Config, SettingError> {
        let in_block = if self.port_base == 0 { 0 } else { self.port_base + PORT_OFFSET };
        Ok(Config {
            data_dir: self.data_dir.clone(),
            bind: self.bind,
            port: *self.port.get_or_insert(in_block),
            machine: self.machine,
            sync: SyncPolicy {
                interval: Duration::from_millis(self.sync_interval_ms),
                entries: self.sync_entries,
            },
            ready_file: self.ready_file.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::startup;

    fn resolve(arguments: &[&str]) -> Result<Config, SettingError> {
        let loaded = startup::load::<Flags>([&["state-machine"], arguments].concat());
        loaded.map(|loaded| loaded.config)
    }

    fn with_file(text: &str, arguments: &[&str]) -> Result<Config, SettingError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("machine.toml");
        fs::write(&path, text).unwrap();
        resolve(&[&["--config", path.to_str().unwrap()], arguments].concat())
    }

    #[test]
    fn ports_follow_from_the_block_unless_one_is_named() {
        let cases: &[(&[&str], u16)] = &[
            (&[], 6005),
            (&["--port-base", "6010"], 6015),
            (&["--port-base", "0"], 0),
            (&["--port-base", "65530"], 65535),
            (&["--port-base", "6010", "--port", "7"], 7),
        ];
        for (arguments, port) in cases {
            assert_eq!(resolve(arguments).unwrap().port, *port, "{arguments:?}");
        }
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let text = "machine = \"memory-kv\"\nport_base = 7000\nsync_interval_ms = 10";
        let config = with_file(text, &["--machine", "register"]).unwrap();
        assert_eq!(config.machine, MachineKind::Register);
        assert_eq!(config.port, 7005);
        assert_eq!(config.sync.interval, Duration::from_millis(10));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let cases = [
            (resolve(&["--port-base", "65531"]), "port_base = 65531: must be 0 to 65530"),
            (resolve(&["--sync-interval-ms", "0"]), "sync_interval_ms = 0: must be 1 to 60000"),
            (resolve(&["--sync-entries", "0"]), "sync_entries = 0: must be 1 to 1000000000"),
            (with_file("machine = \"zk\"", &[]), "machine = \"zk\": must be kv or memory-kv or"),
        ];
        for (outcome, message) in cases {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
