//! The command line: what may be typed, and what it means to the client.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::endpoints::{DEFAULT_FILE, EndpointsError, Sources};
use crate::options::Options;
use crate::session::Stamp;

const EXIT_CODES: &str = "\
Endpoints come from --endpoints, --endpoints-file, OUTRIGGER_ENDPOINTS, OUTRIGGER_ENDPOINTS_FILE, the file data/endpoints, \
or are 127.0.0.1:6004: the first of these that is there. Options stand before the key: whatever follows it is the value.

Exit codes:
  0  applied, or answered
  1  refused; surely not applied. For GET: there is no such key
  2  usage
  3  unknown: it may have been applied
  4  no leader found, and surely not applied
  5  committed, but not applied yet: the state machine does not answer";

/// Talks to a cluster.
#[derive(Debug, Parser)]
#[command(name = "raft-client", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// How to reach the cluster, and how to print.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Args)]
pub struct Global {
    /// Nodes to ask, `host:port`, separated by commas; one is enough
    #[arg(long, global = true, value_name = "LIST")]
    pub endpoints: Option<String>,
    /// File with nodes to ask, one on each line
    #[arg(long, global = true, value_name = "FILE")]
    pub endpoints_file: Option<PathBuf>,
    /// Print for people or for programs
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    pub output: Format,
    /// Follow the request for this long, 1–3600000 ms
    #[arg(long, global = true, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub timeout_ms: u64,
    /// Insist on this cluster id, hexadecimal
    #[arg(long, global = true, value_name = "HEX", value_parser = parse_cluster)]
    pub cluster: Option<u128>,
    /// Do not let a node that does not lead pass the request on
    #[arg(long, global = true)]
    pub no_forward: bool,
    /// Send a write again under this session, hexadecimal, as an earlier attempt told
    #[arg(long, global = true, value_name = "HEX", requires = "sequence", value_parser = parse_session)]
    pub session: Option<u64>,
    /// Sequence number of that write within its session
    #[arg(long, global = true, value_name = "N", requires = "session", value_parser = clap::value_parser!(u64).range(1..))]
    pub sequence: Option<u64>,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Sentences and tables.
    Human,
    /// One JSON value on one line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Set a key: the words after it, joined by a space, are its value
    #[command(name = "PUT", alias = "put")]
    Put {
        /// Which key
        #[arg(value_name = "KEY")]
        key: String,
        /// Its value
        #[arg(value_name = "WORD", trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Print a key's value
    #[command(name = "GET", alias = "get")]
    Get {
        /// Which key
        key: String,
    },
    /// Remove a key
    #[command(name = "DEL", alias = "del")]
    Del {
        /// Which key
        key: String,
    },
    /// Add to a number; a missing key counts as 0
    #[command(name = "INCR", alias = "incr")]
    Incr {
        /// Which key
        key: String,
        /// How much to add
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
    },
    /// Have any state machine apply the words, joined by a space
    Submit {
        /// The command
        #[arg(
            value_name = "WORD",
            required = true,
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        words: Vec<String>,
    },
    /// Ask any state machine the words, joined by a space
    Query {
        /// The query
        #[arg(
            value_name = "WORD",
            required = true,
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        words: Vec<String>,
    },
    /// What nodes say of themselves
    Status {
        /// All nodes, not only the first that answers
        #[arg(long)]
        all: bool,
    },
    /// Members as gossip sees them, joined with the configuration
    Members,
}

impl Global {
    /// The client's options.
    ///
    /// # Errors
    /// The endpoints are of no use.
    pub fn options(&self) -> Result<Options, EndpointsError> {
        let mut sources = Sources::from_environment();
        sources.list.clone_from(&self.endpoints);
        sources.file.clone_from(&self.endpoints_file);
        sources.default_file = Some(PathBuf::from(DEFAULT_FILE));
        Ok(Options {
            timeout: Duration::from_millis(self.timeout_ms),
            cluster: self.cluster.unwrap_or(0),
            forward: !self.no_forward,
            discover: false,
            ..Options::new(sources.resolve()?)
        })
    }

    /// The name of an earlier attempt, if there was one.
    pub fn stamp(&self) -> Option<Stamp> {
        self.session.zip(self.sequence).map(|(session, sequence)| Stamp { session, sequence })
    }
}

/// Words as one value.
pub fn join(words: &[String]) -> Bytes {
    Bytes::from(words.join(" "))
}

fn parse_cluster(text: &str) -> Result<u128, String> {
    u128::from_str_radix(text, 16)
        .map_err(|error| format!("{error}; a cluster id has 32 hexadecimal digits"))
}

fn parse_session(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16)
        .map_err(|error| format!("{error}; a session has up to 16 hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    fn put(line: &str) -> (String, Bytes) {
        match parse(line).unwrap().verb {
            Verb::Put { key, words } => (key, join(&words)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn whatever_follows_the_key_is_the_value() {
        let (key, value) = put("raft-client PUT pizzatoppings peporoni peppr --output -5");
        assert_eq!(
            (key.as_str(), &value[..]),
            ("pizzatoppings", &b"peporoni peppr --output -5"[..])
        );
        assert_eq!(put("raft-client --output json put k").1, "");
    }

    #[test]
    fn negative_numbers_are_numbers() {
        let Verb::Incr { by, .. } = parse("raft-client INCR k -5").unwrap().verb else { panic!() };
        assert_eq!(by, -5);
    }

    #[test]
    fn misuse_is_a_usage_error() {
        for (line, kind) in [
            ("raft-client FROB k", ErrorKind::InvalidSubcommand),
            ("raft-client PUT", ErrorKind::MissingRequiredArgument),
            ("raft-client INCR k x", ErrorKind::ValueValidation),
            ("raft-client --timeout-ms 0 GET k", ErrorKind::ValueValidation),
            ("raft-client --session 1 GET k", ErrorKind::MissingRequiredArgument),
            ("raft-client --cluster xyz GET k", ErrorKind::ValueValidation),
            ("raft-client --output yaml GET k", ErrorKind::InvalidValue),
        ] {
            assert_eq!(parse(line).unwrap_err().kind(), kind, "{line}");
        }
    }
}
