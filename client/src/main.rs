//! The `raft-client` command: parse, run, print, exit code.

mod cli;
mod health;
mod measure;
mod naming;
mod output;
mod run;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use cli::Cli;
use output::Format;
use run::Failure;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(cli::with_known_verb(&arguments)) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && cli::asks_for_json(&arguments) => {
            return fail(Format::Json, &Failure::Usage(error.render().to_string()));
        }
        // Help and version, too.
        Err(error) => error.exit(),
    };
    let filter = EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_unset| EnvFilter::new("error")))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    let format = cli.common.output;
    run::run(cli, |outcome| match outcome {
        Ok(report) => match print(&report.text(format)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(Format::Human, &Failure::Print(error)),
        },
        Err(failure) => fail(format, &failure),
    })
}

fn fail(format: Format, failure: &Failure) -> ExitCode {
    let printed = match format {
        Format::Human => io::stderr().write_all(output::explain(failure).as_bytes()),
        Format::Json => print(output::explain_json(failure).as_bytes()),
    };
    // When not even this can be printed, the exit code still tells.
    drop(printed);
    ExitCode::from(failure.exit_code())
}

fn print(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
