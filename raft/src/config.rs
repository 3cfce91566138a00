//! Settings: flags, then environment (`OUTRIGGER_…`), then a TOML file, then the defaults below; checked as a whole.

use std::fmt::Display;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Deserialize;

use member::wire::Endpoint as MemberEndpoint;

use crate::rpc::wire::Endpoint;

/// The defaults, in one place.
pub mod defaults {
    use std::net::{IpAddr, Ipv4Addr};

    /// First of the node's ports.
    pub const PORT_BASE: u16 = 6000;
    /// Offset of the raft port from the base.
    pub const RAFT_PORT_OFFSET: u16 = 4;
    /// Offset of the member's RPC port from the base.
    pub const MEMBER_PORT_OFFSET: u16 = 2;
    /// Offset of the state machine's port from the base.
    pub const STATE_MACHINE_PORT_OFFSET: u16 = 5;
    /// Listen on loopback only.
    pub const BIND: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    /// Unit of the core's time, in milliseconds.
    pub const TICK_MS: u32 = 10;
    /// Leader speaks at least this often, in milliseconds.
    pub const HEARTBEAT_MS: u32 = 50;
    /// Shortest election timeout, in milliseconds. Not lower: real networks stall.
    pub const ELECTION_TIMEOUT_MIN_MS: u32 = 300;
    /// Longest election timeout, in milliseconds.
    pub const ELECTION_TIMEOUT_MAX_MS: u32 = 600;
    /// How long a bootstrapping node looks for an existing cluster first, in milliseconds.
    pub const DISCOVERY_WINDOW_MS: u32 = 3000;
    /// A learner is promoted after being caught up and alive for this long, in milliseconds.
    pub const PROMOTE_AFTER_MS: u32 = 2000;
    /// Voters that the autopilot aims at.
    pub const TARGET_VOTERS: u32 = 5;
    /// Learners that the autopilot admits.
    pub const MAX_LEARNERS: u32 = 20;
    /// Voters that are left at least when nodes leave or die.
    pub const MIN_VOTERS: u32 = 3;
    /// A voter that nobody hears gives its seat away after this long, in milliseconds.
    pub const DEAD_AFTER_MS: u32 = 30_000;
    /// How long a node tries to leave, in milliseconds.
    pub const LEAVE_TIMEOUT_MS: u32 = 15_000;
    /// Payloads of the newest entries kept in memory, in MiB.
    pub const LOG_CACHE_MIB: u32 = 64;
    /// Size of a log segment, in MiB.
    pub const SEGMENT_MIB: u32 = 64;
    /// Longest wait of a client's command at this node, in milliseconds.
    pub const REQUEST_TIMEOUT_MS: u32 = 10_000;
}

/// Whether this node may make a new cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bootstrap {
    /// Only after the discovery window showed no member of an existing cluster.
    Window,
    /// At once: for a launcher that has just made all the directories itself.
    Now,
}

/// Command line, environment and file share these names; `None` = not given there.
#[derive(Clone, Debug, Default, Parser, Deserialize)]
#[command(name = "raft", version, about = "Consensus sidecar: agrees with its peers on the order of commands", after_help = EXIT_CODES)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// TOML file with these settings, its keys written with underscores (`port_base = 6000`)
    #[arg(long, env = "OUTRIGGER_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// The node's directory; raft uses `raft/` in it [default: data]
    #[arg(long, env = "OUTRIGGER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Name for people [default: host name]
    #[arg(long, env = "OUTRIGGER_NAME")]
    pub name: Option<String>,
    /// IP address to listen on [default: 127.0.0.1]
    #[arg(long, env = "OUTRIGGER_BIND", value_name = "IP")]
    pub bind: Option<IpAddr>,
    /// Host that other nodes reach this one by [default: --bind, or the host name when that is 0.0.0.0]
    #[arg(long, env = "OUTRIGGER_ADVERTISE", value_name = "HOST")]
    pub advertise: Option<String>,
    /// First of the node's ports; raft listens on base + 4; 0 = any free port [default: 6000]
    #[arg(long, env = "OUTRIGGER_PORT_BASE", value_name = "PORT")]
    pub port_base: Option<u16>,
    /// Port for peers and clients [default: base + 4]
    #[arg(long, env = "OUTRIGGER_RAFT_PORT", value_name = "PORT")]
    pub raft_port: Option<u16>,
    /// Where the member daemon answers [default: the socket member.sock in the data directory]
    #[arg(long, env = "OUTRIGGER_MEMBER", value_name = "ENDPOINT")]
    pub member: Option<String>,
    /// Where the state machine answers [default: the socket machine.sock in the data directory]
    #[arg(long, env = "OUTRIGGER_STATE_MACHINE", value_name = "ENDPOINT")]
    pub state_machine: Option<String>,
    /// Make a new cluster if there is none: exactly one node of a new cluster has this
    #[arg(long, env = "OUTRIGGER_BOOTSTRAP", value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "window")]
    pub bootstrap: Option<Bootstrap>,
    /// Write addresses and process id to this file (JSON) when serving
    #[arg(long, env = "OUTRIGGER_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Unit of the timers, 1–100 ms [default: 10]
    #[arg(long, env = "OUTRIGGER_TICK_MS", value_name = "MS")]
    pub tick_ms: Option<u32>,
    /// A leader speaks at least this often, one tick to a third of the election timeout [default: 50]
    #[arg(long, env = "OUTRIGGER_HEARTBEAT_MS", value_name = "MS")]
    pub heartbeat_ms: Option<u32>,
    /// Shortest election timeout, 50–60000 ms [default: 300]
    #[arg(long, env = "OUTRIGGER_ELECTION_TIMEOUT_MIN_MS", value_name = "MS")]
    pub election_timeout_min_ms: Option<u32>,
    /// Longest election timeout, above the shortest, up to 120000 ms [default: 600]
    #[arg(long, env = "OUTRIGGER_ELECTION_TIMEOUT_MAX_MS", value_name = "MS")]
    pub election_timeout_max_ms: Option<u32>,
    /// How long --bootstrap looks for an existing cluster first, 0–60000 ms [default: 3000]
    #[arg(long, env = "OUTRIGGER_DISCOVERY_WINDOW_MS", value_name = "MS")]
    pub discovery_window_ms: Option<u32>,
    /// A learner becomes a voter after being caught up and alive for this long, 0–3600000 ms [default: 2000]
    #[arg(long, env = "OUTRIGGER_PROMOTE_AFTER_MS", value_name = "MS")]
    pub promote_after_ms: Option<u32>,
    /// Voters to aim at, 1–9; an odd number is kept [default: 5]
    #[arg(long, env = "OUTRIGGER_TARGET_VOTERS", value_name = "N")]
    pub target_voters: Option<u32>,
    /// Learners to admit, 0–100 [default: 20]
    #[arg(long, env = "OUTRIGGER_MAX_LEARNERS", value_name = "N")]
    pub max_learners: Option<u32>,
    /// When nodes leave or die, keep so many voters at least, 1–9 [default: 3]
    #[arg(long, env = "OUTRIGGER_MIN_VOTERS", value_name = "N")]
    pub min_voters: Option<u32>,
    /// A voter that nobody hears for this long is replaced by a learner, or given up, 1000–86400000 ms [default: 30000]
    #[arg(long, env = "OUTRIGGER_DEAD_AFTER_MS", value_name = "MS")]
    pub dead_after_ms: Option<u32>,
    /// Leave the cluster on SIGTERM; a second signal, or having to stay, ends the process as a member
    #[arg(long, env = "OUTRIGGER_LEAVE_ON_TERMINATE")]
    #[serde(default)]
    pub leave_on_terminate: bool,
    /// How long to try to leave, 100–600000 ms [default: 15000]
    #[arg(long, env = "OUTRIGGER_LEAVE_TIMEOUT_MS", value_name = "MS")]
    pub leave_timeout_ms: Option<u32>,
    /// Memory for the newest entries, 8–4096 MiB [default: 64]
    #[arg(long, env = "OUTRIGGER_LOG_CACHE_MIB", value_name = "MIB")]
    pub log_cache_mib: Option<u32>,
    /// Size of one file of the log, 16–1024 MiB [default: 64]
    #[arg(long, env = "OUTRIGGER_SEGMENT_MIB", value_name = "MIB")]
    pub segment_mib: Option<u32>,
    /// Longest wait of a command at this node, 100–3600000 ms [default: 10000]
    #[arg(long, env = "OUTRIGGER_REQUEST_TIMEOUT_MS", value_name = "MS")]
    pub request_timeout_ms: Option<u32>,
    /// Do not wait for the disk: an acknowledged write may be lost when a machine dies. Every status shows it
    #[arg(long, env = "OUTRIGGER_UNSAFE_NO_FSYNC")]
    #[serde(default)]
    pub unsafe_no_fsync: bool,
}

const EXIT_CODES: &str = "\
Exit codes:
   0  stopped by a signal, everything synced
   1  unexpected failure
   2  bad flag or configuration
   3  cannot listen (address in use?)
   4  data directory not writable, or used by another process
  11  damaged log or identity
  12  data directory of another cluster or node
  13  a write or sync of the log failed
A supervisor should not restart on 2, 11, 12 and 13.";

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the node.
    pub data_dir: PathBuf,
    /// Name for people.
    pub name: String,
    /// Where to listen.
    pub bind: IpAddr,
    /// Host by which others reach this node.
    pub advertise: String,
    /// Port to listen on; zero = any free one.
    pub raft_port: u16,
    /// The member daemon.
    pub member: MemberEndpoint,
    /// The state machine.
    pub state_machine: Endpoint,
    /// Whether and when to make a new cluster.
    pub bootstrap: Option<Bootstrap>,
    /// File to announce readiness in.
    pub ready_file: Option<PathBuf>,
    /// Unit of the core's time.
    pub tick: Duration,
    /// In ticks.
    pub heartbeat_ticks: u32,
    /// Shortest election timeout, in ticks.
    pub election_ticks_min: u32,
    /// Longest election timeout, in ticks.
    pub election_ticks_max: u32,
    /// See [`defaults::DISCOVERY_WINDOW_MS`].
    pub discovery_window: Duration,
    /// See [`defaults::PROMOTE_AFTER_MS`].
    pub promote_after: Duration,
    /// See [`defaults::TARGET_VOTERS`].
    pub target_voters: usize,
    /// See [`defaults::MAX_LEARNERS`].
    pub max_learners: usize,
    /// See [`defaults::MIN_VOTERS`].
    pub min_voters: usize,
    /// See [`defaults::DEAD_AFTER_MS`].
    pub dead_after: Duration,
    /// Whether SIGTERM means to leave the cluster.
    pub leave_on_terminate: bool,
    /// See [`defaults::LEAVE_TIMEOUT_MS`].
    pub leave_timeout: Duration,
    /// Bytes of payloads kept in memory.
    pub log_cache_bytes: usize,
    /// Bytes of one log segment.
    pub segment_bytes: u64,
    /// Longest wait of a request at this node.
    pub request_timeout: Duration,
    /// Whether the log is synced; false is unsafe.
    pub fsync: bool,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("configuration file {path}: {source}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Names line and key.
        source: toml::de::Error,
    },
    /// A value does not fit.
    #[error("{name} = {value} is out of range: {allowed}")]
    OutOfRange {
        /// Which setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// An endpoint is none.
    #[error("{name}: {reason}")]
    Endpoint {
        /// Which setting.
        name: &'static str,
        /// Why.
        reason: String,
    },
}

impl Settings {
    /// Fills what is not given here from the file named by `config`, then from the defaults, and checks everything.
    ///
    /// # Errors
    /// Names the setting, its value and what is allowed.
    pub fn check(self) -> Result<Config, ConfigError> {
        let file = self.config.as_deref().map_or_else(|| Ok(Self::default()), Self::read)?;
        self.or(file).resolve()
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Malformed { path: path.to_owned(), source })
    }

    fn or(self, file: Self) -> Self {
        Self {
            config: self.config,
            data_dir: self.data_dir.or(file.data_dir),
            name: self.name.or(file.name),
            bind: self.bind.or(file.bind),
            advertise: self.advertise.or(file.advertise),
            port_base: self.port_base.or(file.port_base),
            raft_port: self.raft_port.or(file.raft_port),
            member: self.member.or(file.member),
            state_machine: self.state_machine.or(file.state_machine),
            bootstrap: self.bootstrap.or(file.bootstrap),
            ready_file: self.ready_file.or(file.ready_file),
            tick_ms: self.tick_ms.or(file.tick_ms),
            heartbeat_ms: self.heartbeat_ms.or(file.heartbeat_ms),
            election_timeout_min_ms: self.election_timeout_min_ms.or(file.election_timeout_min_ms),
            election_timeout_max_ms: self.election_timeout_max_ms.or(file.election_timeout_max_ms),
            discovery_window_ms: self.discovery_window_ms.or(file.discovery_window_ms),
            promote_after_ms: self.promote_after_ms.or(file.promote_after_ms),
            target_voters: self.target_voters.or(file.target_voters),
            max_learners: self.max_learners.or(file.max_learners),
            min_voters: self.min_voters.or(file.min_voters),
            dead_after_ms: self.dead_after_ms.or(file.dead_after_ms),
            leave_on_terminate: self.leave_on_terminate || file.leave_on_terminate,
            leave_timeout_ms: self.leave_timeout_ms.or(file.leave_timeout_ms),
            log_cache_mib: self.log_cache_mib.or(file.log_cache_mib),
            segment_mib: self.segment_mib.or(file.segment_mib),
            request_timeout_ms: self.request_timeout_ms.or(file.request_timeout_ms),
            unsafe_no_fsync: self.unsafe_no_fsync || file.unsafe_no_fsync,
        }
    }

    fn resolve(self) -> Result<Config, ConfigError> {
        let data_dir = self.data_dir.unwrap_or_else(|| PathBuf::from("data"));
        let port_base = self.port_base.unwrap_or(defaults::PORT_BASE);
        let bind = self.bind.unwrap_or(defaults::BIND);
        let host_name = host_name();
        let tick_ms = ranged("tick_ms", self.tick_ms, defaults::TICK_MS, 1, 100)?;
        let min_ms = ranged(
            "election_timeout_min_ms",
            self.election_timeout_min_ms,
            defaults::ELECTION_TIMEOUT_MIN_MS,
            50,
            60_000,
        )?;
        let max_ms = ranged(
            "election_timeout_max_ms",
            self.election_timeout_max_ms,
            defaults::ELECTION_TIMEOUT_MAX_MS.max(min_ms.saturating_mul(2)),
            min_ms + tick_ms,
            120_000,
        )?;
        let heartbeat_ms = ranged(
            "heartbeat_ms",
            self.heartbeat_ms,
            defaults::HEARTBEAT_MS.min(min_ms / 3).max(tick_ms),
            tick_ms,
            min_ms / 3,
        )?;
        let advertise = self.advertise.unwrap_or_else(|| {
            if bind.is_unspecified() { host_name.clone() } else { bind.to_string() }
        });
        check_host(&advertise)?;
        Ok(Config {
            name: self.name.unwrap_or(host_name),
            advertise,
            bind,
            raft_port: port("raft_port", self.raft_port, port_base, defaults::RAFT_PORT_OFFSET)?,
            member: endpoint("member", self.member, &data_dir.join("member.sock"))?,
            state_machine: endpoint(
                "state_machine",
                self.state_machine,
                &data_dir.join("machine.sock"),
            )?,
            bootstrap: self.bootstrap,
            ready_file: self.ready_file,
            tick: millis(tick_ms),
            heartbeat_ticks: heartbeat_ms / tick_ms,
            election_ticks_min: min_ms.div_ceil(tick_ms),
            election_ticks_max: max_ms.div_ceil(tick_ms),
            discovery_window: millis(ranged(
                "discovery_window_ms",
                self.discovery_window_ms,
                defaults::DISCOVERY_WINDOW_MS,
                0,
                60_000,
            )?),
            promote_after: millis(ranged(
                "promote_after_ms",
                self.promote_after_ms,
                defaults::PROMOTE_AFTER_MS,
                0,
                3_600_000,
            )?),
            target_voters: count(
                "target_voters",
                self.target_voters,
                defaults::TARGET_VOTERS,
                1,
                9,
            )?,
            max_learners: count("max_learners", self.max_learners, defaults::MAX_LEARNERS, 0, 100)?,
            min_voters: count("min_voters", self.min_voters, defaults::MIN_VOTERS, 1, 9)?,
            dead_after: millis(ranged(
                "dead_after_ms",
                self.dead_after_ms,
                defaults::DEAD_AFTER_MS,
                1_000,
                86_400_000,
            )?),
            leave_on_terminate: self.leave_on_terminate,
            leave_timeout: millis(ranged(
                "leave_timeout_ms",
                self.leave_timeout_ms,
                defaults::LEAVE_TIMEOUT_MS,
                100,
                600_000,
            )?),
            log_cache_bytes: count(
                "log_cache_mib",
                self.log_cache_mib,
                defaults::LOG_CACHE_MIB,
                8,
                4096,
            )? << 20,
            segment_bytes: u64::from(ranged(
                "segment_mib",
                self.segment_mib,
                defaults::SEGMENT_MIB,
                16,
                1024,
            )?) << 20,
            request_timeout: millis(ranged(
                "request_timeout_ms",
                self.request_timeout_ms,
                defaults::REQUEST_TIMEOUT_MS,
                100,
                3_600_000,
            )?),
            fsync: !self.unsafe_no_fsync,
            data_dir,
        })
    }
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

fn ranged(
    name: &'static str,
    value: Option<u32>,
    default: u32,
    min: u32,
    max: u32,
) -> Result<u32, ConfigError> {
    let value = value.unwrap_or(default);
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::OutOfRange {
        name,
        value: value.to_string(),
        allowed: format!("{min} to {max}"),
    })
}

fn count(
    name: &'static str,
    value: Option<u32>,
    default: u32,
    min: u32,
    max: u32,
) -> Result<usize, ConfigError> {
    ranged(name, value, default, min, max).map(|value| value as usize)
}

fn port(name: &'static str, port: Option<u16>, base: u16, offset: u16) -> Result<u16, ConfigError> {
    match (port, base) {
        (Some(port), _) => Ok(port),
        (None, 0) => Ok(0),
        (None, base) => base.checked_add(offset).ok_or_else(|| ConfigError::OutOfRange {
            name,
            value: format!("port_base {base} + {offset}"),
            allowed: "ports end at 65535".to_owned(),
        }),
    }
}

fn endpoint<E>(name: &'static str, text: Option<String>, socket: &Path) -> Result<E, ConfigError>
where
    E: FromStr<Err: Display>,
{
    let text = text.unwrap_or_else(|| format!("unix:{}", socket.display()));
    text.parse().map_err(|error: E::Err| ConfigError::Endpoint { name, reason: error.to_string() })
}

/// An address of this node that others could never connect to is refused here, not noticed there.
fn check_host(host: &str) -> Result<(), ConfigError> {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_right = match host.parse::<IpAddr>() {
        Ok(ip) => !ip.is_unspecified(),
        Err(_no_ip) => !host.is_empty() && host.chars().all(is_letter),
    };
    if is_right {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        name: "advertise",
        value: format!("\"{host}\""),
        allowed: "a host name or IP address of this node, without a port".to_owned(),
    })
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(flags: &[&str], file: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("raft.toml");
        fs::write(&path, file).unwrap();
        let mut arguments = vec!["raft", "--config", path.to_str().unwrap()];
        arguments.extend_from_slice(flags);
        Settings::try_parse_from(arguments).unwrap().check()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let config =
            with_file(&["--port-base", "7000"], "port_base = 8000\nname = \"file\"").unwrap();
        assert_eq!((config.raft_port, config.name.as_str()), (7004, "file"));
        assert_eq!(
            (config.heartbeat_ticks, config.election_ticks_min, config.election_ticks_max),
            (5, 30, 60)
        );
        assert!(config.fsync);
        assert_eq!(config.bootstrap, None);
    }

    #[test]
    fn bootstrap_may_stand_alone_or_say_when() {
        let parse = |flag| Settings::try_parse_from(["raft", flag]).unwrap().bootstrap;
        assert_eq!(parse("--bootstrap"), Some(Bootstrap::Window));
        assert_eq!(parse("--bootstrap=now"), Some(Bootstrap::Now));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (file, named) in [
            ("prot_base = 1", "prot_base"),
            ("port_base = 65535", "raft_port"),
            ("heartbeat_ms = 200", "heartbeat_ms = 200 is out of range: 10 to 100"),
            ("election_timeout_min_ms = 10", "50 to 60000"),
            ("election_timeout_max_ms = 300", "310 to 120000"),
            ("member = \"nowhere\"", "member"),
            ("tick_ms = \"ten\"", "tick_ms"),
            ("advertise = \"host:6004\"", "without a port"),
            ("advertise = \"\"", "advertise"),
            ("advertise = \"0.0.0.0\"", "advertise = \"0.0.0.0\" is out of range"),
        ] {
            let error = with_file(&[], file).unwrap_err().to_string();
            assert!(error.contains(named), "{file}: {error}");
        }
    }

    #[test]
    fn hosts_are_advertised_as_they_are_written() {
        for host in ["node-1.example", "10.0.0.1", "fd00::1"] {
            let config = with_file(&["--advertise", host], "").unwrap();
            assert_eq!(config.advertise, host);
        }
    }

    #[test]
    fn any_free_port_stays_any() {
        assert_eq!(with_file(&[], "port_base = 0").unwrap().raft_port, 0);
    }
}
