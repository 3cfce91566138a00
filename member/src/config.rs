//! Settings of the process. Each is one field of [`Flags`], with its default and range; see [`startup`](crate::startup) for where values come
//! from.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use serde::Serialize;

use crate::key::{Key, KeyError, KeyRing, MAX_KEYS};
use crate::rpc::MAX_SEEDS;
use crate::seeds::Seed;
use crate::startup::{Common, Layered, SettingError, Sources, within};
use crate::swim::Settings;
use crate::swim::member::{MAX_ADDRESS_BYTES, MAX_NAME_BYTES, check_text};

/// Of the node's ports, counted from the base.
const LAST_OFFSET: u16 = 5;

/// What can be said by flag, variable or file.
#[derive(Debug, clap::Parser, Serialize)]
#[command(name = "member", version, about = "Gossip membership daemon of Outrigger")]
pub struct Flags {
    /// TOML file with these settings, its keys written with underscores (`port_base = 6000`).
    #[arg(long, env = "OUTRIGGER_MEMBER_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    common: Common,
    /// Directory of the node; this process uses member/ and member.sock in it.
    #[arg(long, env = "OUTRIGGER_DATA_DIR", value_name = "DIR", default_value = "data")]
    data_dir: PathBuf,
    /// Name for people [default: the host's].
    #[arg(long, env = "OUTRIGGER_NAME")]
    name: Option<String>,
    /// IP address to listen on.
    #[arg(long, env = "OUTRIGGER_BIND", value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// Host or IP address that the others reach us at [default: the one of --bind].
    #[arg(long, env = "OUTRIGGER_ADVERTISE", value_name = "HOST")]
    advertise: Option<String>,
    /// First port of the node: +0/udp gossip, +1/udp introducer, +2/tcp rpc; 0 lets the system choose all.
    #[arg(long, env = "OUTRIGGER_PORT_BASE", value_name = "PORT", default_value_t = 6_000, value_parser = within::<u16>(0..=u16::MAX - LAST_OFFSET))]
    port_base: u16,
    /// UDP port of the gossip [default: port base].
    #[arg(long, env = "OUTRIGGER_GOSSIP_PORT", value_name = "PORT")]
    gossip_port: Option<u16>,
    /// UDP port of the introducer [default: port base + 1].
    #[arg(long, env = "OUTRIGGER_INTRODUCER_PORT", value_name = "PORT")]
    introducer_port: Option<u16>,
    /// TCP port of the member service [default: port base + 2].
    #[arg(long, env = "OUTRIGGER_MEMBER_RPC_PORT", value_name = "PORT")]
    rpc_port: Option<u16>,
    /// Also listen for joins on the introducer's port.
    #[arg(long, env = "OUTRIGGER_INTRODUCER", value_parser = BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true", require_equals = true, default_value_t = false)]
    introducer: bool,
    /// host:port of a member or introducer to join; repeated, or separated by commas. Tried for ever.
    #[arg(long, env = "OUTRIGGER_SEED", value_name = "HOST:PORT", value_delimiter = ',')]
    seed: Vec<String>,
    /// Write pid and addresses there, as JSON, once we serve.
    #[arg(long, env = "OUTRIGGER_MEMBER_READY_FILE", value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Shared keys, 64 hexadecimal digits each, separated by commas: the first seals, all open. On the command line
    /// everyone on the machine can read it: use the variable or --gossip-key-file.
    #[arg(long, env = "OUTRIGGER_GOSSIP_KEY", hide_env_values = true, value_name = "HEX")]
    #[serde(skip)]
    gossip_key: Option<String>,
    /// File with shared keys, one per line.
    #[arg(long, env = "OUTRIGGER_GOSSIP_KEY_FILE", value_name = "FILE")]
    gossip_key_file: Option<PathBuf>,
    /// Leave on SIGTERM and SIGINT, instead of just stopping.
    #[arg(long, env = "OUTRIGGER_LEAVE_ON_TERMINATE", value_parser = BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true", require_equals = true, default_value_t = false)]
    leave_on_terminate: bool,
    /// Protocol period, 50 to 60000 ms.
    #[arg(long, env = "OUTRIGGER_PROBE_INTERVAL_MS", value_name = "MS", default_value_t = Settings::default().probe_interval_ms, value_parser = within::<u64>(50..=60_000))]
    probe_interval_ms: u64,
    /// Patience before helpers are asked, 10 ms to less than half of the period.
    #[arg(long, env = "OUTRIGGER_PROBE_TIMEOUT_MS", value_name = "MS", default_value_t = Settings::default().probe_timeout_ms)]
    probe_timeout_ms: u64,
    /// Length of a confirmed suspicion in periods, 1 to 100.
    #[arg(long, env = "OUTRIGGER_SUSPICION_MULTIPLIER", value_name = "N", default_value_t = Settings::default().suspicion_multiplier, value_parser = within::<u32>(1..=100))]
    suspicion_multiplier: u32,
    /// How often seeds and dead members are tried while others are alive, 1000 to 3600000 ms.
    #[arg(long, env = "OUTRIGGER_REJOIN_INTERVAL_MS", value_name = "MS", default_value_t = Settings::default().rejoin_interval_ms, value_parser = within::<u64>(1_000..=3_600_000))]
    rejoin_interval_ms: u64,
}

/// Checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the node.
    pub data_dir: PathBuf,
    /// For people; the host's name when absent.
    pub name: Option<String>,
    /// Address to listen on.
    pub bind: IpAddr,
    /// Host that the others reach us at, resolved at the start.
    pub advertise: String,
    /// UDP port of the gossip; 0 = chosen by the system.
    pub gossip_port: u16,
    /// UDP port of the introducer, for an introducer; 0 = chosen by the system.
    pub introducer_port: Option<u16>,
    /// TCP port of `MemberService`; 0 = chosen by the system.
    pub rpc_port: u16,
    /// Whom to join.
    pub seeds: Vec<Seed>,
    /// Where to say that we serve.
    pub ready_file: Option<PathBuf>,
    /// Shared keys.
    pub keys: KeyRing,
    /// Whether a stop is a leave.
    pub leave_on_terminate: bool,
    /// How the protocol behaves.
    pub settings: Settings,
}

impl Layered for Flags {
    type Config = Config;

    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&mut self, sources: &Sources) -> Result<Config, SettingError> {
        let base = self.port_base;
        let port = |own: &mut Option<u16>, offset| {
            *own.get_or_insert(if base == 0 { 0 } else { base + offset })
        };
        let introducer_port = port(&mut self.introducer_port, 1);
        Ok(Config {
            advertise: self.checked_advertise(sources)?,
            gossip_port: port(&mut self.gossip_port, 0),
            introducer_port: self.introducer.then_some(introducer_port),
            rpc_port: port(&mut self.rpc_port, 2),
            name: self.checked_name(sources)?,
            seeds: self.checked_seeds(sources)?,
            keys: self.checked_keys(sources)?,
            settings: self.checked_settings(sources)?,
            bind: self.bind,
            data_dir: self.data_dir.clone(),
            ready_file: self.ready_file.clone(),
            leave_on_terminate: self.leave_on_terminate,
        })
    }
}

impl Flags {
    fn checked_advertise(&mut self, sources: &Sources) -> Result<String, SettingError> {
        self.advertise = given(self.advertise.as_deref());
        if let Some(host) = &self.advertise {
            let checked = check_text("advertise", host, MAX_ADDRESS_BYTES);
            checked.map_err(|error| sources.wrong("advertise", format_args!("{host:?}"), error))?;
        } else if self.bind.is_unspecified() {
            let reason =
                "listens everywhere, so say by --advertise at which host the others reach us";
            return Err(sources.wrong("bind", self.bind, reason));
        }
        Ok(self.advertise.get_or_insert(self.bind.to_string()).clone())
    }

    fn checked_name(&mut self, sources: &Sources) -> Result<Option<String>, SettingError> {
        self.name = given(self.name.as_deref()).or_else(host_name);
        if let Some(name) = &self.name {
            let checked = check_text("name", name, MAX_NAME_BYTES);
            checked.map_err(|error| sources.wrong("name", format_args!("{name:?}"), error))?;
        }
        Ok(self.name.clone())
    }

    fn checked_seeds(&mut self, sources: &Sources) -> Result<Vec<Seed>, SettingError> {
        self.seed.retain(|text| !text.trim().is_empty());
        let parse = |text: &String| {
            text.parse().map_err(|error| sources.wrong("seed", format_args!("{text:?}"), error))
        };
        let mut seeds = self.seed.iter().map(parse).collect::<Result<Vec<Seed>, _>>()?;
        seeds.sort_unstable();
        seeds.dedup();
        if seeds.len() > MAX_SEEDS {
            let count = format_args!("{} values", seeds.len());
            return Err(sources.wrong("seed", count, format_args!("at most {MAX_SEEDS} may be")));
        }
        Ok(seeds)
    }

    /// No error shows a key.
    fn checked_keys(&self, sources: &Sources) -> Result<KeyRing, SettingError> {
        let wrong =
            |reason: &dyn std::fmt::Display| sources.wrong("gossip_key", "(not shown)", reason);
        let mut keys = read_keys(self.gossip_key.iter().flat_map(|keys| keys.split(',')))
            .map_err(|error| wrong(&error))?;
        if let Some(path) = &self.gossip_key_file {
            let wrong = |reason: &dyn std::fmt::Display| {
                sources.wrong(
                    "gossip_key_file",
                    format_args!("{:?}", path.to_string_lossy()),
                    reason,
                )
            };
            let text = std::fs::read_to_string(path)
                .map_err(|error| wrong(&format_args!("cannot be read: {error}")))?;
            let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            let more = read_keys(lines).map_err(|error| wrong(&error))?;
            if more.is_empty() {
                return Err(wrong(&"holds no key"));
            }
            keys.extend(more);
        }
        if keys.len() > MAX_KEYS {
            return Err(wrong(&format_args!("{} keys; at most {MAX_KEYS} may be", keys.len())));
        }
        Ok(KeyRing::new(keys))
    }

    fn checked_settings(&self, sources: &Sources) -> Result<Settings, SettingError> {
        let longest_ms = self.probe_interval_ms / 2 - 1;
        sources.within("probe_timeout_ms", self.probe_timeout_ms, (10, longest_ms))?;
        Ok(Settings {
            probe_interval_ms: self.probe_interval_ms,
            probe_timeout_ms: self.probe_timeout_ms,
            suspicion_multiplier: self.suspicion_multiplier,
            rejoin_interval_ms: self.rejoin_interval_ms,
            ..Settings::default()
        })
    }
}

/// An empty value, as templates make them, is one that is not given.
fn given(text: Option<&str>) -> Option<String> {
    text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn read_keys<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<Key>, KeyError> {
    texts.filter(|text| !text.trim().is_empty()).map(str::parse).collect()
}

/// The host's name, if it can be a member's.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
    (!name.is_empty() && name.len() <= MAX_NAME_BYTES).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::startup::{self, Loaded};

    fn loaded(args: &[&str]) -> Result<Loaded<Flags>, SettingError> {
        startup::load([&["member"], args].concat())
    }

    fn load(args: &[&str]) -> Result<Config, SettingError> {
        loaded(args).map(|loaded| loaded.config)
    }

    fn load_file(text: &str, args: &[&str]) -> Result<Config, SettingError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("member.toml");
        std::fs::write(&path, text).unwrap();
        load(&[&["--config", path.to_str().unwrap()], args].concat())
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let config = load(&[]).unwrap();
        assert_eq!(
            (config.gossip_port, config.introducer_port, config.rpc_port),
            (6_000, None, 6_002)
        );
        assert_eq!(
            (config.bind.to_string(), config.advertise.as_str()),
            ("127.0.0.1".into(), "127.0.0.1")
        );
        assert_eq!(config.data_dir, Path::new("data"));
        assert_eq!(config.settings, Settings::default());
        assert!(config.keys.is_empty() && config.seeds.is_empty() && !config.leave_on_terminate);
    }

    #[test]
    fn flags_win_over_the_file() {
        let text =
            "port_base = 7000\nintroducer = true\nseed = [\"a:1\", \"b:2\"]\nname = \"file\"";
        let config = load_file(text, &["--name", "flag"]).unwrap();
        assert_eq!((config.gossip_port, config.introducer_port), (7_000, Some(7_001)));
        assert_eq!((config.name.as_deref(), config.seeds.len()), (Some("flag"), 2));
        let config =
            load_file(text, &["--introducer=0", "--seed", "c:3", "--port-base=0"]).unwrap();
        assert_eq!((config.gossip_port, config.introducer_port, config.rpc_port), (0, None, 0));
        assert_eq!(config.seeds.iter().map(ToString::to_string).collect::<Vec<_>>(), ["c:3"]);
    }

    #[test]
    fn bad_values_are_named_with_what_they_may_be() {
        let key = "00".repeat(32);
        for (args, expected) in [
            (&["--bind", "host"][..], "bind = \"host\": invalid IP address"),
            (&["--bind", "0.0.0.0"], "at which host the others reach us"),
            (&["--port-base", "65531"], "port_base = 65531: must be 0 to 65530 (flag --port-base)"),
            (&["--seed", "nowhere"], "host:port"),
            (&["--seed", "a:0"], "host:port"),
            (&["--name", &"n".repeat(65)], "more than the limit of 64"),
            (&["--probe-interval-ms", "49"], "50 to 60000"),
            (&["--probe-timeout-ms", "250"], "10 to 249"),
            (&["--suspicion-multiplier", "0"], "1 to 100"),
            (&["--rejoin-interval-ms", "5"], "1000 to 3600000"),
            (&["--gossip-key", "abc"], "64 hexadecimal digits"),
            (&["--gossip-key", &[key.as_str(); 9].join(",")], "9 keys; at most 8"),
            (
                &["--gossip-key-file", "/nowhere/key"],
                "gossip_key_file = \"/nowhere/key\": cannot be read",
            ),
            (
                &["--config", "/nowhere/toml"],
                "cannot read the configuration file \"/nowhere/toml\"",
            ),
        ] {
            let error = load(args).unwrap_err().to_string();
            assert!(error.contains(expected), "{args:?}: {error}");
        }
    }

    #[test]
    fn unknown_and_mistyped_keys_of_the_file_are_named_with_the_file() {
        for (text, expected) in [
            ("port_bas = 1", "port_bas"),
            ("port_base = \"x\"", "port_base = \"x\": must be 0 to 65530"),
            ("port_base = 70000", "port_base = 70000: must be 0 to 65530"),
            ("= 3", "TOML"),
        ] {
            let error = load_file(text, &[]).unwrap_err().to_string();
            assert!(error.contains("member.toml") && error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn keys_come_from_flag_and_file_and_an_empty_variable_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        std::fs::write(&path, format!("# new\n{}\n\n", "11".repeat(32))).unwrap();
        let file = path.to_str().unwrap();
        let ring =
            load(&["--gossip-key", &"22".repeat(32), "--gossip-key-file", file]).unwrap().keys;
        assert_eq!(ring.sealing_id(), KeyRing::new([Key::new(&[0x22; 32])]).sealing_id());
        let alone = load(&["--gossip-key", "", "--gossip-key-file", file]).unwrap().keys;
        assert_eq!(alone.sealing_id(), KeyRing::new([Key::new(&[0x11; 32])]).sealing_id());
        std::fs::write(&path, "# none\n").unwrap();
        assert!(load(&["--gossip-key-file", file]).unwrap_err().to_string().contains("no key"));
        let empty = load(&["--advertise", "", "--seed", "", "--name", ""]).unwrap();
        assert_eq!((empty.advertise.as_str(), empty.seeds.len()), ("127.0.0.1", 0));
        assert_ne!(empty.name.as_deref(), Some(""));
    }

    #[test]
    fn no_key_is_ever_shown() {
        let key = "ab".repeat(32);
        let text = loaded(&["--gossip-key", &key]).unwrap().print().unwrap();
        assert!(!text.contains(&key), "{text}");
        assert!(text.contains("# gossip_key is not shown (flag --gossip-key)"), "{text}");
        let error = load(&["--gossip-key", "abcd"]).unwrap_err().to_string();
        assert!(!error.contains("abcd") && error.contains("flag --gossip-key"), "{error}");
    }
}
