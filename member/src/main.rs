//! The `member` process: flags, log, signals, exit code.
//!
//! Exit codes: 0 clean stop · 1 unexpected failure · 2 bad flag or configuration · 3 address not to be had · 4 data
//! directory unwritable or locked · 11 damaged file.

use std::io::IsTerminal;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use member::config::{Config, Flags};
use member::daemon::{Daemon, DaemonError};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tracing::error;
use tracing_subscriber::EnvFilter;

/// A name server that does not answer must not hold up the end.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let flags = Flags::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colours);
    log.with_env_filter(filter).init();
    let config = match Config::load(flags) {
        Ok(config) => config,
        Err(error) => {
            error!("{error}");
            return ExitCode::from(2);
        }
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(config: Config) -> Result<(), DaemonError> {
    let failed = |what| move |source| DaemonError::System { what, source };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("cannot start the runtime"))?;
    let outcome = runtime.block_on(async {
        let mut terminate =
            signal(SignalKind::terminate()).map_err(failed("cannot listen for SIGTERM"))?;
        let mut interrupt =
            signal(SignalKind::interrupt()).map_err(failed("cannot listen for SIGINT"))?;
        let mut stop = pin!(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        let daemon = tokio::select! {
            () = &mut stop => return Ok(()),
            daemon = Daemon::start(config) => daemon?,
        };
        daemon.run(stop).await
    });
    runtime.shutdown_timeout(SHUTDOWN_GRACE);
    outcome
}
