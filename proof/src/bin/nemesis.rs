//! The command line of the nemesis: faults on real processes or containers, under clients whose histories are checked.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use proof::nemesis::{
    Containers, Kind, Plan, Processes, Report, in_namespaces, obstacle_to_networks, run,
};
use tokio::signal::unix::{SignalKind, signal};

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
        /// Load no library into the processes that would let their clocks jump
        #[arg(long)]
        no_clock: bool,
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

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = tokio::select! {
        // First: what runs in the namespaces may have ended by the same signal.
        biased;
        // What is dropped with the run ends all that it has started.
        stopped = told_to_stop() => stopped,
        outcome = carry_out(arguments) => outcome,
    };
    outcome.unwrap_or_else(|error| say_failure(&error))
}

#[allow(clippy::print_stderr, reason = "it is what the program is for")]
fn say_failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("nemesis: the run was not carried out: {error:#}");
    ExitCode::from(2)
}

async fn told_to_stop() -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Of a terminal that is gone. The nodes live on by it: to them it means to read their settings again.
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(ExitCode::from(130))
}

async fn carry_out(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let is_inside = env::var_os(INSIDE).is_some();
    let no_networks = match arguments.site {
        Where::Processes { .. } if !is_inside => obstacle_to_networks().await,
        Where::Processes { .. } | Where::Containers { .. } => None,
    };
    if matches!(arguments.site, Where::Processes { .. }) && !is_inside && no_networks.is_none() {
        return go_inside().await;
    }
    let plan = Plan {
        length: Duration::from_secs(arguments.seconds),
        seed: arguments.seed,
        kinds: arguments.faults,
        clients: arguments.clients,
    };
    let (report, history) = match arguments.site {
        Where::Processes { binaries, work, nodes, no_clock } => {
            let mut site =
                Processes::start(nodes, &binaries, &work, no_networks, !no_clock).await?;
            run(&mut site, &plan).await?
        }
        Where::Containers { project, compose, small_disk } => {
            let mut site = Containers::find(project, compose, small_disk).await?;
            run(&mut site, &plan).await?
        }
    };
    show(&report);
    if let Some(path) = arguments.history {
        let file = fs::File::create(&path).with_context(|| path.display().to_string())?;
        history.write_lines(std::io::BufWriter::new(file))?;
    }
    Ok(if report.is_green() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The same program in namespaces. They end with it: it is their first process, and is killed with the command that made them, which
/// listens to no signal itself.
async fn go_inside() -> anyhow::Result<ExitCode> {
    let mut command = in_namespaces();
    command.args(env::args_os()).env(INSIDE, "1");
    let status = command.spawn().context("cannot run unshare")?.wait().await?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

#[allow(clippy::print_stdout, reason = "it is what the program is for")]
fn show(report: &Report) {
    println!("{report}");
}
