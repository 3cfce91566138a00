//! Tools for files: they look into a node's log or a snapshot and change nothing, whether raft is running or not, and
//! whether the files are whole or not.

mod holder;
mod item;
mod log;
mod read_only;
mod report;
mod snapshot;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command, Parser, Subcommand, ValueEnum};

use self::report::Report;

const EXIT_CODES: &str = "\
Exit codes:
   0  whole
   1  the output could not be written
   2  wrong usage
   4  not readable
  11  damaged, or of another version of this program
  12  files of another log or cluster are mixed in";

/// What was found, as an exit code; those of raft itself where it would say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Whole = 0,
    Unreadable = 4,
    Damaged = 11,
    Foreign = 12,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Human,
    /// One JSON object per line
    Json,
}

#[derive(Parser)]
#[command(name = "raft", version)]
struct Tools {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand)]
enum Tool {
    /// Look into the log of a node, which may be running
    #[command(subcommand)]
    Log(LogTool),
    /// Look into the file of a snapshot
    #[command(subcommand)]
    Snapshot(SnapshotTool),
}

#[derive(Subcommand)]
enum LogTool {
    /// Print what is in the log, in the order in which it was written
    #[command(after_help = EXIT_CODES)]
    Dump {
        #[command(flatten)]
        place: Place,
        /// First index to print; terms, votes and commit hints are left out then
        #[arg(long, value_name = "INDEX")]
        from: Option<u64>,
        /// Last index to print; terms, votes and commit hints are left out then
        #[arg(long, value_name = "INDEX")]
        to: Option<u64>,
        #[command(flatten)]
        output: Output,
    },
    /// Read all of the log and say whether raft would take it
    #[command(after_help = EXIT_CODES)]
    Verify {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
enum SnapshotTool {
    /// Print what a snapshot holds, and check all of it
    #[command(after_help = EXIT_CODES)]
    Inspect {
        /// The file, as in raft/snapshots/ of a node's data directory
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args)]
struct Place {
    /// The node's data directory, or the directory of the log itself
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Args)]
struct Output {
    /// How results are printed
    #[arg(long, value_enum, default_value = "human")]
    output: Format,
}

/// The tools, to be listed among what the program can do.
pub fn commands() -> Vec<Command> {
    Tool::augment_subcommands(Command::new("raft")).get_subcommands().cloned().collect()
}

/// Carries out a tool, if the first argument (after the program's name) is one.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if !Tool::has_subcommand(arguments.get(1)?.to_str()?) {
        return None;
    }
    Some(match Tools::try_parse_from(arguments) {
        Ok(tools) => exit_code(tools.tool.run()),
        Err(usage) => refusal(&usage),
    })
}

/// Says what is wrong with the arguments, or how to use them.
fn refusal(usage: &clap::Error) -> ExitCode {
    let code = if usage.use_stderr() { 2 } else { 0 };
    usage.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code))
}

fn exit_code(outcome: io::Result<Verdict>) -> ExitCode {
    match outcome {
        Ok(verdict) => ExitCode::from(verdict as u8),
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody left to tell if this fails too.
            writeln!(io::stderr(), "raft: cannot write the output: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

impl Tool {
    fn run(self) -> io::Result<Verdict> {
        let report = |output: Output| Report::new(output.output, io::stdout().lock());
        match self {
            Self::Log(LogTool::Dump { place, from, to, output }) => {
                log::dump(&place.dir, log::Range::new(from, to), &mut report(output))
            }
            Self::Log(LogTool::Verify { place, output }) => {
                log::verify(&place.dir, &mut report(output))
            }
            Self::Snapshot(SnapshotTool::Inspect { file, output }) => {
                snapshot::inspect(&file, &mut report(output))
            }
        }
    }
}
