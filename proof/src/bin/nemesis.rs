//! The command line of the nemesis: faults on real processes or containers, under clients whose histories are checked.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use proof::nemesis::{Containers, Kind, Plan, Processes, Report, has, run};

/// Set for the process inside of the namespaces.
const INSIDE: &str = "OUTRIGGER_NEMESIS_INSIDE";

/// Breaks a cluster in turn in every way that is possible here, and checks what its clients saw.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long faults are done, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Of the schedule and of what clients want
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clients, each with one operation under way
    #[arg(long, default_value_t = 10)]
    clients: u64,
    /// Only these faults, separated by commas; else all that are possible
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Kind>,
    /// Where to write the history, one operation a line
    #[arg(long)]
    history: Option<PathBuf>,
    #[command(subcommand)]
    site: Where,
}

#[derive(Debug, Subcommand)]
enum Where {
    /// Nodes as processes of this machine
    Processes {
        /// Directory of the binaries
        #[arg(long)]
        binaries: PathBuf,
        /// An empty directory with a short path, for all that the nodes write
        #[arg(long)]
        work: PathBuf,
        /// How many nodes
        #[arg(long, default_value_t = 5)]
        nodes: usize,
    },
    /// Nodes as containers of a compose project that is up
    Containers {
        /// The project
        #[arg(long)]
        project: String,
        /// The compose command, for scaling
        #[arg(long)]
        compose: String,
        /// Where on this machine the introducer's volume is, if it is a small disk of its own
        #[arg(long)]
        small_disk: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let namespaces = can_have_namespaces();
    if matches!(arguments.site, Where::Processes { .. })
        && namespaces
        && env::var_os(INSIDE).is_none()
    {
        return go_inside();
    }
    match carry_out(arguments, namespaces) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => say_failure(&error),
    }
}

#[allow(clippy::print_stderr, reason = "it is what the program is for")]
fn say_failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("nemesis: the run was not carried out: {error:#}");
    ExitCode::from(2)
}

fn can_have_namespaces() -> bool {
    rustix::process::geteuid().is_root()
        && ["ip", "iptables", "unshare", "tc", "mount"].iter().all(|program| has(program))
}

/// The same program in network, mount and process namespaces of its own, which end with it: nothing can be left behind.
fn go_inside() -> ExitCode {
    let error = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .args(env::args_os())
        .env(INSIDE, "1")
        .exec();
    say_failure(&anyhow::Error::new(error).context("cannot run unshare"))
}

#[tokio::main]
async fn carry_out(arguments: Arguments, namespaces: bool) -> anyhow::Result<bool> {
    let plan = Plan {
        length: Duration::from_secs(arguments.seconds),
        seed: arguments.seed,
        kinds: arguments.faults,
        clients: arguments.clients,
    };
    let (report, history) = match arguments.site {
        Where::Processes { binaries, work, nodes } => {
            let mut site = Processes::start(nodes, &binaries, &work, namespaces).await?;
            run(&mut site, &plan).await?
        }
        Where::Containers { project, compose, small_disk } => {
            let mut site = Containers::find(project, compose, small_disk).await?;
            run(&mut site, &plan).await?
        }
    };
    if let Some(path) = arguments.history {
        let file = fs::File::create(&path).with_context(|| path.display().to_string())?;
        history.write_lines(std::io::BufWriter::new(file))?;
    }
    show(&report);
    Ok(report.is_green())
}

#[allow(clippy::print_stdout, reason = "it is what the program is for")]
fn show(report: &Report) {
    println!("{report}");
}
