//! The `raft-client` program: one verb, one answer, one exit code.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what this program is for"
)]

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use raft_client::cli::Cli;
use raft_client::run::run;
use tracing_subscriber::EnvFilter;

const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let options = match cli.global.options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("raft-client: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("raft-client: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let printed = runtime.block_on(run(cli, options));
    if let Some(error) = printed.err {
        eprintln!("raft-client: {error}");
    }
    if let Some(mut answer) = printed.out {
        answer.push(b'\n');
        // If whoever was to read it is gone, the exit code still tells.
        drop(io::stdout().write_all(&answer));
    }
    ExitCode::from(printed.exit_code)
}
