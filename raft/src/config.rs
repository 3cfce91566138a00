//! Settings of the process. Each is one field of [`Settings`], with its default and range; see [`state_machine::startup`] for where values
//! come from.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Parser, ValueEnum};
use serde::Serialize;

use member::wire::Endpoint as MemberEndpoint;
use state_machine::startup::{Common, Layered, Preset, SettingError, Sources, within};

use crate::keeper::Schedule;
use crate::rpc::wire::Endpoint;

/// Offset of the HTTP port from the base.
const HTTP_PORT_OFFSET: u16 = 3;
/// Offset of the raft port from the base.
const RAFT_PORT_OFFSET: u16 = 4;
/// Leader speaks at least this often, in milliseconds, unless the election timeout is short.
const HEARTBEAT_MS: u32 = 50;
/// Longest election timeout, in milliseconds, unless the shortest is long.
const ELECTION_TIMEOUT_MAX_MS: u32 = 600;

/// The timings of the program that this one is modelled on: slow, for links that are slow.
const ORIGINAL: Preset = Preset {
    name: "original",
    values: &[
        ("heartbeat_ms", "375"),
        ("election_timeout_min_ms", "750"),
        ("election_timeout_max_ms", "1500"),
    ],
};

/// Whether this node may make a new cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bootstrap {
    /// Only after the discovery window showed no member of an existing cluster.
    Window,
    /// At once: for a launcher that has just made all the directories itself.
    Now,
}

/// Several timings by one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Timings {
    /// The defaults of the settings.
    #[default]
    Default,
    /// heartbeat 375 ms, election timeout 750–1500 ms
    Original,
}

/// What can be said by flag, variable or file.
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "raft", version, about = "Consensus sidecar: agrees with its peers on the order of commands", after_help = EXIT_CODES)]
// The tools have arguments of their own, and take none of these settings: `offline` carries them out before settings are read.
#[command(subcommands = crate::offline::commands(), args_conflicts_with_subcommands = true, subcommand_help_heading = "Tools for files that no process needs to be running for")]
pub struct Settings {
    /// TOML file with these settings, its keys written with underscores (`port_base = 6000`)
    #[arg(long, env = "OUTRIGGER_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Timings by one name; what is said of one setting itself wins
    #[arg(long, env = "OUTRIGGER_PRESET", value_name = "NAME", value_enum, default_value_t)]
    pub preset: Timings,
    /// What every daemon can be told.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
    /// The node's directory; raft uses `raft/` in it
    #[arg(long, env = "OUTRIGGER_DATA_DIR", value_name = "DIR", default_value = "data")]
    pub data_dir: PathBuf,
    /// Name for people [default: host name]
    #[arg(long, env = "OUTRIGGER_NAME")]
    pub name: Option<String>,
    /// IP address to listen on
    #[arg(long, env = "OUTRIGGER_BIND", value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub bind: IpAddr,
    /// Host that other nodes reach this one by [default: --bind, or the host name when that is 0.0.0.0]
    #[arg(long, env = "OUTRIGGER_ADVERTISE", value_name = "HOST")]
    pub advertise: Option<String>,
    /// First of the node's ports; raft listens on base + 3 and base + 4; 0 = any free ports
    #[arg(long, env = "OUTRIGGER_PORT_BASE", value_name = "PORT", default_value_t = 6000)]
    pub port_base: u16,
    /// Port for peers and clients [default: base + 4]
    #[arg(long, env = "OUTRIGGER_RAFT_PORT", value_name = "PORT")]
    pub raft_port: Option<u16>,
    /// Port for HTTP [default: base + 3]
    #[arg(long, env = "OUTRIGGER_HTTP_PORT", value_name = "PORT")]
    pub http_port: Option<u16>,
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
    /// Unit of the timers, 1–100 ms
    #[arg(long, env = "OUTRIGGER_TICK_MS", value_name = "MS", default_value_t = 10, value_parser = within::<u32>(1..=100))]
    pub tick_ms: u32,
    /// A leader speaks at least this often, one tick to half of the shortest election timeout [default: 50, or less]
    #[arg(long, env = "OUTRIGGER_HEARTBEAT_MS", value_name = "MS")]
    pub heartbeat_ms: Option<u32>,
    /// Shortest election timeout, 50–60000 ms
    #[arg(long, env = "OUTRIGGER_ELECTION_TIMEOUT_MIN_MS", value_name = "MS", default_value_t = 300, value_parser = within::<u32>(50..=60_000))]
    pub election_timeout_min_ms: u32,
    /// Longest election timeout, above the shortest, up to 120000 ms [default: 600, or more]
    #[arg(long, env = "OUTRIGGER_ELECTION_TIMEOUT_MAX_MS", value_name = "MS")]
    pub election_timeout_max_ms: Option<u32>,
    /// How long --bootstrap looks for an existing cluster first, 0–60000 ms
    #[arg(long, env = "OUTRIGGER_DISCOVERY_WINDOW_MS", value_name = "MS", default_value_t = 3000, value_parser = within::<u32>(0..=60_000))]
    pub discovery_window_ms: u32,
    /// A learner becomes a voter after being caught up and alive for this long, 0–3600000 ms
    #[arg(long, env = "OUTRIGGER_PROMOTE_AFTER_MS", value_name = "MS", default_value_t = 2000, value_parser = within::<u32>(0..=3_600_000))]
    pub promote_after_ms: u32,
    /// Voters to aim at, 1–9; an odd number is kept
    #[arg(long, env = "OUTRIGGER_TARGET_VOTERS", value_name = "N", default_value_t = 5, value_parser = within::<usize>(1..=9))]
    pub target_voters: usize,
    /// Learners to admit, 0–100
    #[arg(long, env = "OUTRIGGER_MAX_LEARNERS", value_name = "N", default_value_t = 20, value_parser = within::<usize>(0..=100))]
    pub max_learners: usize,
    /// When nodes leave or die, keep so many voters at least, 1–9; an even number counts as one more
    #[arg(long, env = "OUTRIGGER_MIN_VOTERS", value_name = "N", default_value_t = 3, value_parser = within::<usize>(1..=9))]
    pub min_voters: usize,
    /// A voter that nobody hears for this long is replaced by a learner, or given up; a learner goes, 1000–86400000 ms
    #[arg(long, env = "OUTRIGGER_DEAD_AFTER_MS", value_name = "MS", default_value_t = 30_000, value_parser = within::<u32>(1_000..=86_400_000))]
    pub dead_after_ms: u32,
    /// Leave the cluster on SIGTERM; a second signal, or having to stay, ends the process as a member
    #[arg(long, env = "OUTRIGGER_LEAVE_ON_TERMINATE", default_value_t = false, value_parser = BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub leave_on_terminate: bool,
    /// How long to try to leave, 100–600000 ms
    #[arg(long, env = "OUTRIGGER_LEAVE_TIMEOUT_MS", value_name = "MS", default_value_t = 15_000, value_parser = within::<u32>(100..=600_000))]
    pub leave_timeout_ms: u32,
    /// Memory for the newest entries, 8–4096 MiB
    #[arg(long, env = "OUTRIGGER_LOG_CACHE_MIB", value_name = "MIB", default_value_t = 64, value_parser = within::<usize>(8..=4096))]
    pub log_cache_mib: usize,
    /// Size of one file of the log, 16–1024 MiB
    #[arg(long, env = "OUTRIGGER_SEGMENT_MIB", value_name = "MIB", default_value_t = 64, value_parser = within::<u64>(16..=1024))]
    pub segment_mib: u64,
    /// Take a snapshot when the log has grown by this much since the last, and by --snapshot-ratio-percent of it, 1–65536 MiB
    #[arg(long, env = "OUTRIGGER_SNAPSHOT_FLOOR_MIB", value_name = "MIB", default_value_t = 64, value_parser = within::<u64>(1..=65_536))]
    pub snapshot_floor_mib: u64,
    /// Log since the last snapshot that calls for another, in hundredths of that snapshot's size, 0–10000
    #[arg(long, env = "OUTRIGGER_SNAPSHOT_RATIO_PERCENT", value_name = "PERCENT", default_value_t = 100, value_parser = within::<u64>(0..=10_000))]
    pub snapshot_ratio_percent: u64,
    /// Snapshots to keep, 1–16
    #[arg(long, env = "OUTRIGGER_KEEP_SNAPSHOTS", value_name = "N", default_value_t = 2, value_parser = within::<usize>(1..=16))]
    pub keep_snapshots: usize,
    /// Log that stays behind a snapshot, for nodes that are a little behind, 0–65536 MiB
    #[arg(long, env = "OUTRIGGER_KEEP_TRAILING_MIB", value_name = "MIB", default_value_t = 16, value_parser = within::<u64>(0..=65_536))]
    pub keep_trailing_mib: u64,
    /// Most MiB per second at which a snapshot is taken, and sent to one node; 0 = no limit, up to 65536
    #[arg(long, env = "OUTRIGGER_SNAPSHOT_RATE_MIB", value_name = "MIB", default_value_t = 64, value_parser = within::<u64>(0..=65_536))]
    pub snapshot_rate_mib: u64,
    /// Longest wait of a command at this node, 100–3600000 ms
    #[arg(long, env = "OUTRIGGER_REQUEST_TIMEOUT_MS", value_name = "MS", default_value_t = 10_000, value_parser = within::<u32>(100..=3_600_000))]
    pub request_timeout_ms: u32,
    /// Do not wait for the disk: an acknowledged write may be lost when a machine dies. Every status shows it
    #[arg(long, env = "OUTRIGGER_UNSAFE_NO_FSYNC", default_value_t = false, value_parser = BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true", require_equals = true)]
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
    /// Port to listen on for peers and clients; zero = any free one.
    pub raft_port: u16,
    /// Port to listen on for HTTP; zero = any free one.
    pub http_port: u16,
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
    /// How long a bootstrapping node looks for an existing cluster first.
    pub discovery_window: Duration,
    /// How long a learner must have been caught up and alive to be promoted.
    pub promote_after: Duration,
    /// Voters that the autopilot aims at.
    pub target_voters: usize,
    /// Learners that the autopilot admits.
    pub max_learners: usize,
    /// Voters that are left at least when nodes leave or die.
    pub min_voters: usize,
    /// A voter that nobody hears gives its seat away after this long.
    pub dead_after: Duration,
    /// Whether SIGTERM means to leave the cluster.
    pub leave_on_terminate: bool,
    /// How long a node tries to leave.
    pub leave_timeout: Duration,
    /// Bytes of payloads kept in memory.
    pub log_cache_bytes: usize,
    /// Bytes of one log segment.
    pub segment_bytes: u64,
    /// When a snapshot is due.
    pub snapshot_schedule: Schedule,
    /// Snapshots that are kept.
    pub keep_snapshots: usize,
    /// Bytes of entries that stay in the log behind a snapshot.
    pub keep_trailing_bytes: u64,
    /// Most bytes per second of a snapshot that is taken, and of one that is sent; none = no limit.
    pub snapshot_bytes_per_s: Option<u64>,
    /// Longest wait of a request at this node.
    pub request_timeout: Duration,
    /// Whether the log is synced; false is unsafe.
    pub fsync: bool,
}

impl Layered for Settings {
    type Config = Config;
    const PRESETS: &'static [Preset] = &[ORIGINAL];

    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&mut self, sources: &Sources) -> Result<Config, SettingError> {
        let (tick_ms, min_ms) = (self.tick_ms, self.election_timeout_min_ms);
        let longest_ms = ELECTION_TIMEOUT_MAX_MS.max(min_ms.saturating_mul(2));
        let max_ms = *self.election_timeout_max_ms.get_or_insert(longest_ms);
        sources.within("election_timeout_max_ms", max_ms, (min_ms + tick_ms, 120_000))?;
        let beat_ms = HEARTBEAT_MS.min(min_ms / 3).max(tick_ms);
        let heartbeat_ms = *self.heartbeat_ms.get_or_insert(beat_ms);
        sources.within("heartbeat_ms", heartbeat_ms, (tick_ms, min_ms / 2))?;
        let host_name = host_name();
        let bind = self.bind;
        let host = || if bind.is_unspecified() { host_name.clone() } else { bind.to_string() };
        let advertise = self.advertise.get_or_insert_with(host);
        check_host(advertise, sources)?;
        Ok(Config {
            name: self.name.get_or_insert(host_name).clone(),
            advertise: advertise.clone(),
            bind,
            raft_port: port(
                "raft_port",
                &mut self.raft_port,
                (self.port_base, RAFT_PORT_OFFSET),
                sources,
            )?,
            http_port: port(
                "http_port",
                &mut self.http_port,
                (self.port_base, HTTP_PORT_OFFSET),
                sources,
            )?,
            member: endpoint(
                "member",
                &mut self.member,
                &self.data_dir.join("member.sock"),
                sources,
            )?,
            state_machine: endpoint(
                "state_machine",
                &mut self.state_machine,
                &self.data_dir.join("machine.sock"),
                sources,
            )?,
            bootstrap: self.bootstrap,
            ready_file: self.ready_file.clone(),
            tick: millis(tick_ms),
            heartbeat_ticks: heartbeat_ms / tick_ms,
            election_ticks_min: min_ms.div_ceil(tick_ms),
            election_ticks_max: max_ms.div_ceil(tick_ms),
            discovery_window: millis(self.discovery_window_ms),
            promote_after: millis(self.promote_after_ms),
            target_voters: self.target_voters,
            max_learners: self.max_learners,
            min_voters: self.min_voters,
            dead_after: millis(self.dead_after_ms),
            leave_on_terminate: self.leave_on_terminate,
            leave_timeout: millis(self.leave_timeout_ms),
            log_cache_bytes: self.log_cache_mib << 20,
            segment_bytes: self.segment_mib << 20,
            snapshot_schedule: Schedule {
                floor_bytes: self.snapshot_floor_mib << 20,
                ratio_percent: self.snapshot_ratio_percent,
            },
            keep_snapshots: self.keep_snapshots,
            keep_trailing_bytes: self.keep_trailing_mib << 20,
            snapshot_bytes_per_s: Some(self.snapshot_rate_mib << 20).filter(|rate| *rate > 0),
            request_timeout: millis(self.request_timeout_ms),
            fsync: !self.unsafe_no_fsync,
            data_dir: self.data_dir.clone(),
        })
    }
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

/// The port that is given, or the one at its place in the node's block, which is filled in.
fn port(
    key: &str,
    port: &mut Option<u16>,
    (base, offset): (u16, u16),
    sources: &Sources,
) -> Result<u16, SettingError> {
    let in_block = if base == 0 { Some(0) } else { base.checked_add(offset) };
    match port.or(in_block) {
        Some(found) => Ok(*port.insert(found)),
        None => Err(sources.wrong(
            "port_base",
            base,
            format_args!("{key} would be {base} + {offset}; ports end at 65535"),
        )),
    }
}

fn endpoint<E>(
    key: &str,
    text: &mut Option<String>,
    socket: &Path,
    sources: &Sources,
) -> Result<E, SettingError>
where
    E: FromStr<Err: Display>,
{
    let text = text.get_or_insert_with(|| format!("unix:{}", socket.display()));
    text.parse().map_err(|error: E::Err| sources.wrong(key, format_args!("{text:?}"), error))
}

/// An address of this node that others could never connect to is refused here, not noticed there.
fn check_host(host: &str, sources: &Sources) -> Result<(), SettingError> {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_right = match host.parse::<IpAddr>() {
        Ok(ip) => !ip.is_unspecified(),
        Err(_no_ip) => !host.is_empty() && host.chars().all(is_letter),
    };
    if is_right {
        return Ok(());
    }
    let wanted = "must be a host name or IP address of this node, without a port";
    Err(sources.wrong("advertise", format_args!("{host:?}"), wanted))
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use state_machine::startup::{Loaded, load};

    use super::*;

    fn with_file(flags: &[&str], file: &str) -> Result<Loaded<Settings>, SettingError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("raft.toml");
        fs::write(&path, file).unwrap();
        load([&["raft", "--config", path.to_str().unwrap()], flags].concat())
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = "port_base = 8000\nname = \"file\"";
        let config = with_file(&["--port-base", "7000"], file).unwrap().config;
        assert_eq!((config.raft_port, config.name.as_str()), (7004, "file"));
        assert_eq!(config.http_port, 7003);
        assert_eq!(
            (config.heartbeat_ticks, config.election_ticks_min, config.election_ticks_max),
            (5, 30, 60)
        );
        assert!(config.fsync);
        assert_eq!(config.bootstrap, None);
    }

    #[test]
    fn a_preset_sets_several_timings_and_gives_way_to_each() {
        let ticks = |flags: &[&str], file| {
            let config = with_file(flags, file).unwrap().config;
            (config.heartbeat_ticks, config.election_ticks_min, config.election_ticks_max)
        };
        assert_eq!(ticks(&["--preset=original"], ""), (37, 75, 150));
        assert_eq!(ticks(&["--preset=original"], "heartbeat_ms = 100"), (10, 75, 150));
        assert_eq!(ticks(&[], "preset = \"original\""), (37, 75, 150));
        assert_eq!(ticks(&["--preset=default"], "preset = \"original\""), (5, 30, 60));
    }

    #[test]
    fn defaults_that_follow_from_others_are_printed() {
        let text = with_file(&["--port-base=7000", "--data-dir=d"], "").unwrap().print().unwrap();
        for shown in [
            "raft_port = 7004",
            "member = \"unix:d/member.sock\"",
            "heartbeat_ms = 50",
            "# bootstrap is not set",
        ] {
            assert!(text.contains(shown), "{shown}: {text}");
        }
        assert_eq!(with_file(&[], &text).unwrap().config.raft_port, 7004);
    }

    #[test]
    fn flags_may_stand_alone_or_have_a_value() {
        let load = |flag| with_file(&[flag], "unsafe_no_fsync = true").unwrap().config;
        assert_eq!(load("--bootstrap").bootstrap, Some(Bootstrap::Window));
        assert_eq!(load("--bootstrap=now").bootstrap, Some(Bootstrap::Now));
        assert!(!load("--unsafe-no-fsync").fsync);
        assert!(load("--unsafe-no-fsync=false").fsync);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (file, named) in [
            ("prot_base = 1", "prot_base"),
            ("port_base = 65535", "raft_port would be 65535 + 4"),
            ("heartbeat_ms = 200", "heartbeat_ms = 200: must be 10 to 150"),
            ("election_timeout_min_ms = 10", "50 to 60000"),
            ("election_timeout_max_ms = 300", "310 to 120000"),
            ("member = \"nowhere\"", "member"),
            ("tick_ms = \"ten\"", "tick_ms"),
            ("advertise = \"host:6004\"", "without a port"),
            ("advertise = \"\"", "advertise"),
            ("advertise = \"0.0.0.0\"", "advertise = \"0.0.0.0\": must be a host name"),
        ] {
            let error = with_file(&[], file).unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("line 1"), "{file}: {error}");
        }
    }

    #[test]
    fn hosts_are_advertised_as_they_are_written() {
        for host in ["node-1.example", "10.0.0.1", "fd00::1"] {
            let config = with_file(&["--advertise", host], "").unwrap().config;
            assert_eq!(config.advertise, host);
        }
    }

    #[test]
    fn any_free_port_stays_any() {
        let config = with_file(&["--http-port", "80"], "port_base = 0").unwrap().config;
        assert_eq!((config.raft_port, config.http_port), (0, 80));
        assert_eq!(with_file(&[], "port_base = 0").unwrap().config.http_port, 0);
    }
}
