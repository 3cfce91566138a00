//! What can be said on the command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use raft_client::bench::{Aim, Plan};
use raft_client::{
    DEFAULT_ENDPOINT, DEFAULT_LIST_PAIRS, Endpoint, EndpointError, MAX_LIST_PAIRS, Stamp,
};

use crate::output::Format;

const AFTER_HELP: &str = "\
Verbs may be written in any case. Options stand anywhere before the words of a value, text or query: from its first \
word on, everything belongs to it, dashes included. A value that begins like an option of this command stands after --.

The nodes are found by, in this order: --endpoints, --endpoints-file, OUTRIGGER_ENDPOINTS, OUTRIGGER_ENDPOINTS_FILE, \
the file data/endpoints if it is there, 127.0.0.1:6004.

With --output json, results and errors are one JSON value on one line of standard output.

Exit codes:
  0  applied, or answered
  1  refused: surely not applied; or there is no such key
  2  wrong usage: nothing was sent
  3  unknown: it may have been applied, or may be later (of a read: no answer came)
  4  no leader was found, and surely nothing was sent or applied
  5  committed but not yet applied: it will be, when the state machine beside the leader is back";

const AFTER_BENCH_HELP: &str = "\
Each client waits for its answer before its next request. A request that fails is counted, not repeated. It writes \
keys that begin with bench/ and leaves them there.

--timeout-ms is for each request.

Exit codes: 0 if any request succeeded, else that of the first error; 1 if --watch-term saw an election.";

/// Talks to a cluster: writes, linearizable reads, and what the nodes say of themselves
#[derive(Debug, Parser)]
#[command(name = "raft-client", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Nodes to ask, separated by commas: `host:port`, `[ipv6]:port` or `unix:/path`
    #[arg(long, global = true, value_name = "LIST")]
    pub(crate) endpoints: Option<String>,
    /// File with nodes to ask: one per line, # begins a comment
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) endpoints_file: Option<PathBuf>,
    /// How results and errors are printed
    #[arg(long, global = true, value_enum, default_value = "human", env = "OUTRIGGER_OUTPUT")]
    pub(crate) output: Format,
    /// How long to keep trying, 1–3600000 ms
    #[arg(long, global = true, value_name = "MS", default_value = "10000", env = "OUTRIGGER_TIMEOUT_MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub(crate) timeout_ms: u64,
    /// The only cluster to talk to, by its id [default: the first that answers]
    #[arg(long, global = true, value_name = "HEX", env = "OUTRIGGER_CLUSTER", value_parser = cluster_id)]
    pub(crate) cluster: Option<u128>,
    /// Ask nodes not to pass requests on, and go to the leader from here
    #[arg(long, global = true)]
    pub(crate) no_forward: bool,
    /// Send a write again under the session that a former attempt reported, with its --sequence: it is applied once
    #[arg(long, global = true, value_name = "HEX", requires = "sequence", value_parser = session_id)]
    pub(crate) session: Option<u64>,
    /// Number within --session, from 1
    #[arg(long, global = true, value_name = "N", requires = "session", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) sequence: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Set KEY to the words of VALUE, joined by one space
    #[command(name = "PUT")]
    Put {
        /// 1 to 4096 bytes
        key: String,
        /// Up to 1 MiB - 8 KiB in all
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        value: Vec<String>,
    },
    /// Print the value of KEY
    #[command(name = "GET")]
    Get {
        /// 1 to 4096 bytes
        key: String,
    },
    /// Remove KEY
    #[command(name = "DEL")]
    Del {
        /// 1 to 4096 bytes
        key: String,
    },
    /// Add BY to the number at KEY and print the new one
    #[command(name = "INCR")]
    Incr {
        /// 1 to 4096 bytes
        key: String,
        /// A whole number
        #[arg(default_value = "1", allow_negative_numbers = true)]
        by: i64,
    },
    /// Set KEY to VALUE if its present value is EXPECTED; else refuse, and tell the present one
    #[command(
        name = "CAS",
        override_usage = "raft-client CAS [OPTIONS] <KEY> <EXPECTED> <VALUE>...\n       raft-client CAS [OPTIONS] --absent <KEY> <VALUE>..."
    )]
    Cas {
        /// Set KEY if it is not there, and name no EXPECTED
        #[arg(long)]
        absent: bool,
        /// 1 to 4096 bytes
        key: String,
        /// EXPECTED, one word (quote it if it has spaces), then the words of VALUE, joined by one space; up to 1 MiB - 8 KiB in all
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        values: Vec<String>,
    },
    /// Put the words of VALUE, joined by one space, behind the value of KEY, and print its new length in bytes
    #[command(name = "APPEND")]
    Append {
        /// 1 to 4096 bytes
        key: String,
        /// Up to 1 MiB - 8 KiB together with what is there
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        value: Vec<String>,
    },
    /// Print keys that begin with PREFIX and their values, in the order of the keys' bytes
    #[command(name = "LIST")]
    List {
        /// Without it, all keys
        #[arg(default_value = "")]
        prefix: String,
        /// At most so many, 1 to 10000; an answer also ends at 1 MiB, and says if there is more
        #[arg(long, value_name = "N", default_value_t = DEFAULT_LIST_PAIRS, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LIST_PAIRS)))]
        limit: u32,
        /// Only keys that come after this one: the last key of the answer before
        #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
        after: String,
        /// Without the values
        #[arg(long)]
        keys_only: bool,
    },
    /// Have the words of TEXT, joined by one space, applied by any state machine, and print its answer
    Submit {
        /// Up to 1 MiB in all
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        text: Vec<String>,
    },
    /// Ask any state machine the words of TEXT, joined by one space, and print its answer
    Query {
        /// Up to 1 MiB in all
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        text: Vec<String>,
    },
    /// What a node says of itself
    Status {
        /// Every node, also those that do not answer
        #[arg(long)]
        all: bool,
    },
    /// Who is there, as gossip and the configuration see it
    Members,
    /// Print what the raft process of a node logs (the first that answers; see --endpoints), or change it
    LogFilter {
        /// A level, and levels of modules, such as `info,raft::consensus=debug`; until the process ends or gets SIGHUP
        filter: Option<String>,
    },
    /// Have the leader hand leadership to NODE
    Transfer {
        /// Name, id or address of a voter, or how one of these begins [default: the voter that is best caught up]
        node: Option<String>,
    },
    /// Have NODE become the leader, also where there is none: then it stands for election
    Campaign {
        /// Name, id or address of a voter, or how one of these begins [default: the node that answers]
        node: Option<String>,
    },
    /// Have NODE leave the cluster, and its raft end; started again it comes back
    Leave {
        /// Name, id or address of a node, or how one of these begins [default: the node that answers]
        node: Option<String>,
    },
    /// Have NODE take a snapshot of its state machine now, and make its log shorter
    Snapshot {
        /// Name, id or address of a node, or how one of these begins [default: the node that answers]
        node: Option<String>,
    },
    /// Exit with 0 if the processes of one node work, and else with 1; asks nobody but this node, for 2 s at most
    Health {
        /// The node's raft port
        #[arg(long, value_name = "ENDPOINT", default_value = DEFAULT_ENDPOINT, value_parser = endpoint)]
        endpoint: Endpoint,
    },
    /// Make load with many clients and measure it
    #[command(after_help = AFTER_BENCH_HELP)]
    Bench(Bench),
}

#[derive(Args, Debug)]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) plan: Plan,
    /// Where the connections go: to the leader, to the first node that answers, or to all nodes in turn
    #[arg(long, value_enum, default_value = "leader")]
    pub(crate) target: Aim,
    /// Give each client a session, as PUT has one: its writes are exactly-once [default: none, as in other systems]
    #[arg(long)]
    pub(crate) sessions: bool,
    /// End with exit code 1 if the term changed while the load ran: an election happened
    #[arg(long)]
    pub(crate) watch_term: bool,
}

impl Cli {
    /// The name that a write is to be repeated under.
    pub(crate) fn stamp(&self) -> Result<Option<Stamp>, String> {
        let Some((session, sequence)) = self.common.session.zip(self.common.sequence) else {
            return Ok(None);
        };
        match self.verb {
            Verb::Put { .. }
            | Verb::Del { .. }
            | Verb::Incr { .. }
            | Verb::Cas { .. }
            | Verb::Append { .. }
            | Verb::Submit { .. } => Ok(Some(Stamp { session, sequence })),
            Verb::Get { .. }
            | Verb::List { .. }
            | Verb::LogFilter { .. }
            | Verb::Query { .. }
            | Verb::Status { .. }
            | Verb::Members
            | Verb::Bench(_)
            | Verb::Health { .. }
            | Verb::Transfer { .. }
            | Verb::Campaign { .. }
            | Verb::Leave { .. }
            | Verb::Snapshot { .. } => {
                let writes = "PUT, DEL, INCR, CAS, APPEND and submit";
                Err(format!("--session and --sequence are for writes: {writes}"))
            }
        }
    }
}

fn endpoint(text: &str) -> Result<Endpoint, EndpointError> {
    text.parse()
}

fn cluster_id(text: &str) -> Result<u128, String> {
    match u128::from_str_radix(text, 16) {
        Ok(id) if id != 0 => Ok(id),
        _ => Err("a cluster id has up to 32 hexadecimal digits, not all 0".to_owned()),
    }
}

fn session_id(text: &str) -> Result<u64, String> {
    match u64::from_str_radix(text, 16) {
        Ok(id) if id != 0 => Ok(id),
        _ => Err("a session has up to 16 hexadecimal digits, not all 0".to_owned()),
    }
}

/// The arguments with the verb as it is spelled here, in whatever case it was typed.
pub(crate) fn with_known_verb(arguments: &[OsString]) -> Vec<OsString> {
    let (command, mut known) = (Cli::command(), arguments.to_vec());
    if let Some(typed) = known.iter_mut().skip(1).find(after_options(&command)) {
        let spelled = command.get_subcommands().map(|verb| OsStr::new(verb.get_name()));
        if let Some(verb) = spelled.into_iter().find(|verb| typed.eq_ignore_ascii_case(verb)) {
            verb.clone_into(typed);
        }
    }
    known
}

/// Finds the first argument that is neither an option nor an option's value.
fn after_options(command: &clap::Command) -> impl FnMut(&&mut OsString) -> bool {
    let with_value: Vec<OsString> = command
        .get_arguments()
        .filter(|argument| argument.get_action().takes_values())
        .filter_map(|argument| argument.get_long().map(|long| format!("--{long}").into()))
        .collect();
    let mut value_follows = false;
    move |argument| {
        let is_value = value_follows;
        value_follows = !is_value && with_value.contains(argument);
        !is_value && !argument.as_encoded_bytes().starts_with(b"-")
    }
}

/// Whether errors are wanted as JSON, by arguments that could not be understood as a whole.
pub(crate) fn asks_for_json(arguments: &[OsString]) -> bool {
    let flag = |pair: &[OsString]| pair[0] == "--output" && pair[1] == "json";
    arguments.iter().any(|argument| argument == "--output=json")
        || arguments.windows(2).any(flag)
        || std::env::var_os("OUTRIGGER_OUTPUT").as_deref() == Some(OsStr::new("json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        let arguments: Vec<OsString> =
            ["raft-client"].iter().chain(words).map(OsString::from).collect();
        Cli::try_parse_from(with_known_verb(&arguments))
    }

    #[test]
    fn definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn words_of_a_value_are_taken_as_they_are() {
        let cases: &[(&[&str], &str, &str)] = &[
            (&["PUT", "k", "a", "b  c", "d"], "k", "a b  c d"),
            (&["put", "k", ""], "k", ""),
            (&["Put", "k", "-5"], "k", "-5"),
            (&["PUT", "k", "--", "-5"], "k", "-5"),
            (&["PUT", "k", "--", "--output", "json"], "k", "--output json"),
            (&["PUT", "k", "a", "--output", "json"], "k", "a --output json"),
            (&["PUT", "k", "a", "--", "b"], "k", "a -- b"),
            (&["PUT", "k", "--unknown", "-x"], "k", "--unknown -x"),
            (&["PUT", "--", "-k", "--all"], "-k", "--all"),
            (&["--timeout-ms", "5", "PUT", "--no-forward", "put", "GET"], "put", "GET"),
            (&["--endpoints", "PUT:1", "PUT", "K", "V"], "K", "V"),
        ];
        for (words, wanted_key, wanted_value) in cases {
            let Verb::Put { key, value } = parse(words).unwrap().verb else {
                panic!("{words:?} is no PUT");
            };
            assert_eq!((key.as_str(), value.join(" ").as_str()), (*wanted_key, *wanted_value));
        }
    }

    #[test]
    fn options_stand_before_or_after_the_verb() {
        for words in [
            &["--output", "json", "GET", "k"][..],
            &["GET", "--output=json", "k"],
            &["GET", "k", "--output", "json"],
        ] {
            let cli = parse(words).unwrap();
            assert!(matches!(cli.verb, Verb::Get { .. }), "{words:?}");
            assert_eq!(cli.common.output, Format::Json, "{words:?}");
        }
    }

    #[test]
    fn an_expected_value_is_the_first_word_unless_none_is_expected() {
        let cases: &[(&[&str], bool, &[&str])] = &[
            (&["cas", "k", "old", "new", "words"], false, &["old", "new", "words"]),
            (&["CAS", "k", "old words", "-1"], false, &["old words", "-1"]),
            (&["CAS", "--absent", "k", "new"], true, &["new"]),
            (&["CAS", "k", "--absent", "new"], true, &["new"]),
            (&["CAS", "k", "old", "--absent"], false, &["old", "--absent"]),
        ];
        for (words, wanted_absent, wanted_values) in cases {
            let Verb::Cas { absent, key, values } = parse(words).unwrap().verb else { panic!() };
            assert_eq!((absent, key.as_str()), (*wanted_absent, "k"), "{words:?}");
            assert_eq!(values, *wanted_values, "{words:?}");
        }
    }

    #[test]
    fn negative_steps_are_numbers() {
        let Verb::Incr { by, .. } = parse(&["INCR", "k", "-5"]).unwrap().verb else { panic!() };
        assert_eq!(by, -5);
    }

    #[test]
    fn wrong_usage_is_refused() {
        for words in [
            &["FROB", "k"][..],
            &[],
            &["PUT", "k"],
            &["PUT"],
            &["GET"],
            &["GET", "k", "j"],
            &["INCR", "k", "x"],
            &["INCR", "k", "9223372036854775808"],
            &["CAS", "k"],
            &["CAS", "k", "--absent"],
            &["APPEND", "k"],
            &["LIST", "a", "b"],
            &["LIST", "--limit", "0"],
            &["LIST", "--limit", "10001"],
            &["submit"],
            &["status", "--timeout-ms", "0"],
            &["status", "--timeout-ms", "3600001"],
            &["status", "--cluster", "xyz"],
            &["status", "--cluster", "0"],
            &["DEL", "k", "--session", "1"],
            &["DEL", "k", "--sequence", "1"],
            &["DEL", "k", "--session", "1", "--sequence", "0"],
            &["status", "--output", "xml"],
            &["health", "--endpoint", "nonsense"],
        ] {
            let error = parse(words).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{words:?}: {error}");
        }
    }

    #[test]
    fn only_writes_are_repeated() {
        let stamp = Stamp { session: 0x2a, sequence: 7 };
        let repeat = ["--session", "2a", "--sequence", "7"];
        let stamp_of = |verb: &[&str]| parse(&[&repeat, verb].concat()).unwrap().stamp();
        assert_eq!(stamp_of(&["PUT", "k", "v"]), Ok(Some(stamp)));
        assert_eq!(stamp_of(&["submit", "x"]), Ok(Some(stamp)));
        assert!(stamp_of(&["GET", "k"]).is_err());
        assert_eq!(parse(&["GET", "k"]).unwrap().stamp(), Ok(None));
    }
}
