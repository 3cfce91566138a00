//! What the process is told: by flags, by `OUTRIGGER_…` variables, by a TOML file, in this order of precedence.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use serde::Deserialize;

use crate::key::{Key, KeyError, KeyRing, MAX_KEYS};
use crate::rpc::MAX_SEEDS;
use crate::seeds::{Seed, SeedError};
use crate::swim::member::{MAX_ADDRESS_BYTES, MAX_NAME_BYTES, check_text};
use crate::swim::{Settings, TagsError};

/// Flags of the process.
#[derive(Debug, clap::Parser)]
#[command(name = "member", version, about = "Gossip membership daemon of Outrigger")]
pub struct Flags {
    /// TOML file with the same keys as the flags.
    #[arg(long, env = "OUTRIGGER_MEMBER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    layer: Layer,
}

/// Everything that may be set, in whichever place.
#[derive(Debug, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Layer {
    /// Directory of the node; this process uses member/ and member.sock in it [default: data].
    #[arg(long, env = "OUTRIGGER_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Name for people [default: the host's].
    #[arg(long, env = "OUTRIGGER_NAME")]
    name: Option<String>,
    /// IP address to listen on [default: 127.0.0.1].
    #[arg(long, env = "OUTRIGGER_BIND", value_name = "IP")]
    bind: Option<String>,
    /// Host or IP address that the others reach us at [default: the one of --bind].
    #[arg(long, env = "OUTRIGGER_ADVERTISE", value_name = "HOST")]
    advertise: Option<String>,
    /// First port of the node: +0/udp gossip, +1/udp introducer, +2/tcp rpc; 0 lets the system choose all
    /// [default: 6000].
    #[arg(long, env = "OUTRIGGER_PORT_BASE", value_name = "PORT")]
    port_base: Option<u16>,
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
    #[arg(long, env = "OUTRIGGER_INTRODUCER", value_parser = BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    introducer: Option<bool>,
    /// host:port of a member or introducer to join; repeated, or separated by commas. Tried for ever.
    #[arg(long, env = "OUTRIGGER_SEED", value_name = "HOST:PORT", value_delimiter = ',')]
    seed: Option<Vec<String>>,
    /// Write pid and addresses there, as JSON, once we serve.
    #[arg(long, env = "OUTRIGGER_MEMBER_READY_FILE", value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Shared keys, 64 hexadecimal digits each, separated by commas: the first seals, all open. On the command line
    /// everyone on the machine can read it: use the variable or --gossip-key-file.
    #[arg(long, env = "OUTRIGGER_GOSSIP_KEY", hide_env_values = true, value_name = "HEX")]
    gossip_key: Option<String>,
    /// File with shared keys, one per line.
    #[arg(long, env = "OUTRIGGER_GOSSIP_KEY_FILE", value_name = "FILE")]
    gossip_key_file: Option<PathBuf>,
    /// Leave on SIGTERM and SIGINT, instead of just stopping.
    #[arg(long, env = "OUTRIGGER_LEAVE_ON_TERMINATE", value_parser = BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    leave_on_terminate: Option<bool>,
    /// Protocol period, 50 to 60000 ms [default: 500].
    #[arg(long, env = "OUTRIGGER_PROBE_INTERVAL_MS", value_name = "MS")]
    probe_interval_ms: Option<u64>,
    /// Patience before helpers are asked, 10 ms to less than half of the period [default: 200].
    #[arg(long, env = "OUTRIGGER_PROBE_TIMEOUT_MS", value_name = "MS")]
    probe_timeout_ms: Option<u64>,
    /// Length of a confirmed suspicion in periods, 1 to 100 [default: 4].
    #[arg(long, env = "OUTRIGGER_SUSPICION_MULTIPLIER", value_name = "N")]
    suspicion_multiplier: Option<u32>,
    /// How often seeds and dead members are tried while others are alive, 1000 to 3600000 ms [default: 20000].
    #[arg(long, env = "OUTRIGGER_REJOIN_INTERVAL_MS", value_name = "MS")]
    rejoin_interval_ms: Option<u64>,
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

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML, or has a key that we do not know, or a value of the wrong kind.
    #[error("{}: {detail}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Line, key and reason.
        detail: String,
    },
    /// A number is out of its range.
    #[error("{key} = {value} is out of range: it must be between {least} and {most}")]
    OutOfRange {
        /// Which.
        key: &'static str,
        /// What was given.
        value: u64,
        /// Inclusive.
        least: u64,
        /// Inclusive.
        most: u64,
    },
    /// A text is not what it should be.
    #[error("{key} = {value:?}: {reason}")]
    Text {
        /// Which.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is wrong and what to write.
        reason: String,
    },
    /// A name is too long or unprintable.
    #[error("name: {0}")]
    Name(TagsError),
    /// A seed is not one.
    #[error("seed: {0}")]
    Seed(#[from] SeedError),
    /// Too many.
    #[error("{count} values for {key} are more than the limit of {limit}")]
    TooMany {
        /// Of what.
        key: &'static str,
        /// How many.
        count: usize,
        /// At most so many.
        limit: usize,
    },
    /// A key is not one; it is not shown.
    #[error("{place}: {source}")]
    Key {
        /// Where it was given.
        place: String,
        /// What is wrong.
        source: KeyError,
    },
}

impl Config {
    /// Reads the file, if any, and checks everything.
    ///
    /// # Errors
    /// Says which value of which place is wrong and what it may be.
    pub fn load(flags: Flags) -> Result<Self, ConfigError> {
        let file = flags.config.as_deref().map(Layer::read).transpose()?;
        flags.layer.over(file.unwrap_or_default()).check()
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

impl Layer {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let in_file = |error: toml::de::Error| ConfigError::File {
            path: path.to_owned(),
            detail: error.to_string().trim_end().to_owned(),
        };
        toml::from_str(&read(path)?).map_err(in_file)
    }

    fn over(self, lower: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(lower.data_dir),
            name: self.name.or(lower.name),
            bind: self.bind.or(lower.bind),
            advertise: self.advertise.or(lower.advertise),
            port_base: self.port_base.or(lower.port_base),
            gossip_port: self.gossip_port.or(lower.gossip_port),
            introducer_port: self.introducer_port.or(lower.introducer_port),
            rpc_port: self.rpc_port.or(lower.rpc_port),
            introducer: self.introducer.or(lower.introducer),
            seed: self.seed.or(lower.seed),
            ready_file: self.ready_file.or(lower.ready_file),
            gossip_key: self.gossip_key.or(lower.gossip_key),
            gossip_key_file: self.gossip_key_file.or(lower.gossip_key_file),
            leave_on_terminate: self.leave_on_terminate.or(lower.leave_on_terminate),
            probe_interval_ms: self.probe_interval_ms.or(lower.probe_interval_ms),
            probe_timeout_ms: self.probe_timeout_ms.or(lower.probe_timeout_ms),
            suspicion_multiplier: self.suspicion_multiplier.or(lower.suspicion_multiplier),
            rejoin_interval_ms: self.rejoin_interval_ms.or(lower.rejoin_interval_ms),
        }
    }

    fn check(self) -> Result<Config, ConfigError> {
        let bind = self.checked_bind()?;
        let introducer = self.introducer.unwrap_or(false);
        Ok(Config {
            advertise: self.checked_advertise(bind)?,
            gossip_port: self.port(self.gossip_port, 0)?,
            introducer_port: introducer.then(|| self.port(self.introducer_port, 1)).transpose()?,
            rpc_port: self.port(self.rpc_port, 2)?,
            name: self.checked_name()?,
            seeds: self.checked_seeds()?,
            keys: self.checked_keys()?,
            settings: self.checked_settings()?,
            bind,
            data_dir: self.data_dir.unwrap_or_else(|| PathBuf::from("data")),
            ready_file: self.ready_file,
            leave_on_terminate: self.leave_on_terminate.unwrap_or(false),
        })
    }

    fn checked_bind(&self) -> Result<IpAddr, ConfigError> {
        match given(self.bind.as_deref()) {
            None => Ok(Ipv4Addr::LOCALHOST.into()),
            Some(text) => text.parse().map_err(|_error| ConfigError::Text {
                key: "bind",
                value: text.to_owned(),
                reason: "not an IP address; names go to --advertise".to_owned(),
            }),
        }
    }

    fn checked_advertise(&self, bind: IpAddr) -> Result<String, ConfigError> {
        let wrong = |value: &str, reason: String| ConfigError::Text {
            key: "advertise",
            value: value.to_owned(),
            reason,
        };
        match given(self.advertise.as_deref()) {
            Some(host) => check_text("advertise", host, MAX_ADDRESS_BYTES)
                .map(|()| host.to_owned())
                .map_err(|error| wrong(host, error.to_string())),
            None if bind.is_unspecified() => {
                let reason = format!(
                    "--bind {bind} listens everywhere, so say at which host the others reach us"
                );
                Err(wrong("", reason))
            }
            None => Ok(bind.to_string()),
        }
    }

    fn port(&self, own: Option<u16>, offset: u16) -> Result<u16, ConfigError> {
        const LAST_OFFSET: u16 = 5;
        let base = self.port_base.unwrap_or(6_000);
        in_range("port-base", u64::from(base), 0..=u64::from(u16::MAX - LAST_OFFSET))?;
        Ok(own.unwrap_or(if base == 0 { 0 } else { base + offset }))
    }

    fn checked_name(&self) -> Result<Option<String>, ConfigError> {
        let name = given(self.name.as_deref());
        if let Some(name) = name {
            check_text("name", name, MAX_NAME_BYTES).map_err(ConfigError::Name)?;
        }
        Ok(name.map(str::to_owned))
    }

    fn checked_seeds(&self) -> Result<Vec<Seed>, ConfigError> {
        let texts = self.seed.iter().flatten().filter(|text| !text.trim().is_empty());
        let mut seeds = texts.map(|text| text.parse()).collect::<Result<Vec<Seed>, _>>()?;
        seeds.sort_unstable();
        seeds.dedup();
        at_most("seed", seeds.len(), MAX_SEEDS)?;
        Ok(seeds)
    }

    fn checked_keys(&self) -> Result<KeyRing, ConfigError> {
        let mut keys = read_keys("gossip-key", self.gossip_key.iter().flat_map(|k| k.split(',')))?;
        if let Some(path) = &self.gossip_key_file {
            let text = read(path)?;
            let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            keys.extend(read_keys(&path.display().to_string(), lines)?);
            if keys.is_empty() {
                let detail = "holds no key".to_owned();
                return Err(ConfigError::File { path: path.clone(), detail });
            }
        }
        at_most("gossip-key", keys.len(), MAX_KEYS)?;
        Ok(KeyRing::new(keys))
    }

    fn checked_settings(&self) -> Result<Settings, ConfigError> {
        let default = Settings::default();
        let settings = Settings {
            probe_interval_ms: self.probe_interval_ms.unwrap_or(default.probe_interval_ms),
            probe_timeout_ms: self.probe_timeout_ms.unwrap_or(default.probe_timeout_ms),
            suspicion_multiplier: self.suspicion_multiplier.unwrap_or(default.suspicion_multiplier),
            rejoin_interval_ms: self.rejoin_interval_ms.unwrap_or(default.rejoin_interval_ms),
            ..default
        };
        in_range("probe-interval-ms", settings.probe_interval_ms, 50..=60_000)?;
        let longest_ms = settings.probe_interval_ms / 2 - 1;
        in_range("probe-timeout-ms", settings.probe_timeout_ms, 10..=longest_ms)?;
        in_range("suspicion-multiplier", settings.suspicion_multiplier.into(), 1..=100)?;
        in_range("rejoin-interval-ms", settings.rejoin_interval_ms, 1_000..=3_600_000)?;
        Ok(settings)
    }
}

/// An empty variable, as compose files make them, is one that is not set.
fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

fn read_keys<'a>(
    place: &str,
    texts: impl Iterator<Item = &'a str>,
) -> Result<Vec<Key>, ConfigError> {
    let parse = |text: &str| {
        text.parse().map_err(|source| ConfigError::Key { place: place.to_owned(), source })
    };
    texts.filter(|text| !text.trim().is_empty()).map(parse).collect()
}

fn in_range(key: &'static str, value: u64, range: RangeInclusive<u64>) -> Result<(), ConfigError> {
    let (least, most) = range.clone().into_inner();
    if range.contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::OutOfRange { key, value, least, most })
    }
}

fn at_most(key: &'static str, count: usize, limit: usize) -> Result<(), ConfigError> {
    if count <= limit { Ok(()) } else { Err(ConfigError::TooMany { key, count, limit }) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn load(args: &[&str]) -> Result<Config, ConfigError> {
        Config::load(Flags::parse_from([&["member"], args].concat()))
    }

    fn load_file(text: &str, args: &[&str]) -> Result<Config, ConfigError> {
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
            "port-base = 7000\nintroducer = true\nseed = [\"a:1\", \"b:2\"]\nname = \"file\"";
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
            (&["--bind", "host"][..], "bind = \"host\": not an IP address"),
            (&["--bind", "0.0.0.0"], "at which host the others reach us"),
            (
                &["--port-base", "65531"],
                "port-base = 65531 is out of range: it must be between 0 and 65530",
            ),
            (&["--seed", "nowhere"], "host:port"),
            (&["--seed", "a:0"], "host:port"),
            (&["--name", &"n".repeat(65)], "more than the limit of 64"),
            (&["--probe-interval-ms", "49"], "between 50 and 60000"),
            (&["--probe-timeout-ms", "250"], "between 10 and 249"),
            (&["--suspicion-multiplier", "0"], "between 1 and 100"),
            (&["--rejoin-interval-ms", "5"], "between 1000 and 3600000"),
            (&["--gossip-key", "abc"], "64 hexadecimal digits"),
            (&["--gossip-key", &[key.as_str(); 9].join(",")], "more than the limit of 8"),
            (&["--gossip-key-file", "/nowhere/key"], "cannot read /nowhere/key"),
            (&["--config", "/nowhere/toml"], "cannot read /nowhere/toml"),
        ] {
            let error = load(args).unwrap_err().to_string();
            assert!(error.contains(expected), "{args:?}: {error}");
        }
    }

    #[test]
    fn unknown_and_mistyped_keys_of_the_file_are_named_with_the_file() {
        for (text, expected) in [
            ("port-bas = 1", "port-bas"),
            ("port-base = \"x\"", "port-base"),
            ("port-base = 70000", "port-base"),
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
        assert_eq!(
            (empty.advertise.as_str(), empty.seeds.len(), empty.name),
            ("127.0.0.1", 0, None)
        );
    }
}
