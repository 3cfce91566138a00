//! Settings of the process: flags before environment before file, checked once.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Deserialize;
use thiserror::Error;

use crate::worker::SyncPolicy;

/// This service's place in a node's block of ports.
const PORT_OFFSET: u16 = 5;
const DEFAULT_DATA_DIR: &str = "data";
const DEFAULT_PORT_BASE: u16 = 6000;
const DEFAULT_SYNC_INTERVAL_MS: u64 = 250;
const MAX_SYNC_INTERVAL_MS: u64 = 60_000;
const DEFAULT_SYNC_ENTRIES: u64 = 65_536;

/// Serves a replicated state machine to the raft process of its node.
///
/// Each flag can be given by the environment variable named beside it, or by its name in the TOML file of --config; a flag wins over the
/// environment, and the environment over the file.
#[derive(Debug, Default, Parser, Deserialize)]
#[command(name = "state-machine", version)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Flags {
    /// The node's directory; this process uses "machine" and "machine.sock" in it [default: data]
    #[arg(long, value_name = "DIR", env = "OUTRIGGER_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// IP address to listen on; there is no authentication, so leave it on this host [default: 127.0.0.1]
    #[arg(long, value_name = "IP", env = "OUTRIGGER_BIND")]
    bind: Option<IpAddr>,

    /// First port of the node; this process takes the sixth. 0 = any free port [default: 6000]
    #[arg(long, value_name = "PORT", env = "OUTRIGGER_PORT_BASE")]
    port_base: Option<u16>,

    /// The very port, instead of --port-base. 0 = any free port
    #[arg(long, value_name = "PORT", env = "OUTRIGGER_MACHINE_PORT")]
    port: Option<u16>,

    /// Which machine to run [default: kv]
    #[arg(long, value_enum, env = "OUTRIGGER_MACHINE")]
    machine: Option<MachineKind>,

    /// Milliseconds from applying an entry to making it durable, 1 to 60000 [default: 250]
    #[arg(long, value_name = "MS", env = "OUTRIGGER_MACHINE_SYNC_INTERVAL_MS")]
    sync_interval_ms: Option<u64>,

    /// Entries after which to make them durable without waiting for the interval, at least 1 [default: 65536]
    #[arg(long, value_name = "N", env = "OUTRIGGER_MACHINE_SYNC_ENTRIES")]
    sync_entries: Option<u64>,

    /// Where to write process id and addresses as JSON once it serves
    #[arg(long, value_name = "FILE", env = "OUTRIGGER_MACHINE_READY_FILE")]
    ready_file: Option<PathBuf>,

    /// TOML file with settings
    #[arg(long, value_name = "FILE", env = "OUTRIGGER_MACHINE_CONFIG")]
    #[serde(skip)]
    config: Option<PathBuf>,
}

/// The machines of this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
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

/// A setting cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not as it should be: no TOML, an unknown name, a value of the wrong kind.
    #[error("in the configuration file {path}: {source}")]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: Box<toml::de::Error>,
    },
    /// A number is out of its range.
    #[error("{name} is {value}; it must be {range}")]
    OutOfRange {
        /// Name of the setting.
        name: &'static str,
        /// As given.
        value: u64,
        /// What is possible.
        range: &'static str,
    },
}

impl Flags {
    /// Fills what was not given from the file and the defaults, and checks the ranges.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting or the file.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let file = self.config.as_deref().map_or(Ok(Flags::default()), read_file)?;
        let port_base = self.port_base.or(file.port_base).unwrap_or(DEFAULT_PORT_BASE);
        let port = self.port.or(file.port).map_or_else(|| port_of_block(port_base), Ok)?;
        let interval_ms = in_range(
            "sync-interval-ms",
            self.sync_interval_ms.or(file.sync_interval_ms).unwrap_or(DEFAULT_SYNC_INTERVAL_MS),
            (1, MAX_SYNC_INTERVAL_MS),
            "1 to 60000",
        )?;
        let entries = in_range(
            "sync-entries",
            self.sync_entries.or(file.sync_entries).unwrap_or(DEFAULT_SYNC_ENTRIES),
            (1, u64::MAX),
            "at least 1",
        )?;
        Ok(Config {
            data_dir: self.data_dir.or(file.data_dir).unwrap_or_else(|| DEFAULT_DATA_DIR.into()),
            bind: self.bind.or(file.bind).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port,
            machine: self.machine.or(file.machine).unwrap_or(MachineKind::Kv),
            sync: SyncPolicy { interval: Duration::from_millis(interval_ms), entries },
            ready_file: self.ready_file.or(file.ready_file),
        })
    }
}

fn read_file(path: &Path) -> Result<Flags, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|source| ConfigError::BadFile { path: path.to_owned(), source: Box::new(source) })
}

fn port_of_block(port_base: u16) -> Result<u16, ConfigError> {
    if port_base == 0 {
        return Ok(0);
    }
    port_base.checked_add(PORT_OFFSET).ok_or(ConfigError::OutOfRange {
        name: "port-base",
        value: port_base.into(),
        range: "0, or 1 to 65530",
    })
}

fn in_range(
    name: &'static str,
    value: u64,
    (lowest, highest): (u64, u64),
    range: &'static str,
) -> Result<u64, ConfigError> {
    if (lowest..=highest).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::OutOfRange { name, value, range })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(arguments: &[&str]) -> Result<Config, ConfigError> {
        let arguments = ["state-machine"].iter().chain(arguments);
        Flags::try_parse_from(arguments).unwrap().resolve()
    }

    fn with_file(text: &str, arguments: &[&str]) -> Result<Config, ConfigError> {
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
        let text = "machine = \"memory-kv\"\nport-base = 7000\nsync-interval-ms = 10";
        let config = with_file(text, &["--machine", "register"]).unwrap();
        assert_eq!(config.machine, MachineKind::Register);
        assert_eq!(config.port, 7005);
        assert_eq!(config.sync.interval, Duration::from_millis(10));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let cases = [
            (resolve(&["--port-base", "65531"]), "port-base is 65531; it must be 0, or 1 to 65530"),
            (resolve(&["--sync-interval-ms", "0"]), "sync-interval-ms is 0; it must be 1 to 60000"),
            (resolve(&["--sync-entries", "0"]), "sync-entries is 0; it must be at least 1"),
            (resolve(&["--config", "/no/such"]), "cannot read the configuration file /no/such"),
            (with_file("prot = 1", &[]), "unknown field `prot`"),
            (with_file("config = \"x\"", &[]), "unknown field `config`"),
            (with_file("machine = \"zk\"", &[]), "unknown variant `zk`"),
        ];
        for (outcome, message) in cases {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
