//! The `raft` process: settings, log, signals, exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use raft::config::Settings;
use raft::process::{self, RunError, STOP_TIMEOUT, Wish};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let settings = Settings::parse();
    let filter = EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_unset| EnvFilter::new("info,tarpc=warn")))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match start(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn start(settings: Settings) -> Result<(), RunError> {
    let config = settings.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let (wish, wishes) = watch::channel(Wish::Run);
        let (leaves, leave_limit) = (config.leave_on_terminate, config.leave_timeout);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let running = process::run(config, wishes);
        tokio::pin!(running);
        let cut_short = || Err(RunError::LogFailed("not synced in time after a signal".to_owned()));
        let leave = tokio::select! {
            outcome = &mut running => return outcome,
            _ = interrupt.recv() => false,
            _ = terminate.recv() => leaves,
        };
        if leave {
            wish.send_replace(Wish::Leave);
            tokio::select! {
                outcome = timeout(leave_limit + STOP_TIMEOUT, &mut running) => {
                    return outcome.unwrap_or_else(|_elapsed| cut_short());
                }
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        tracing::info!("stopping: the log is synced first");
        wish.send_replace(Wish::Stop);
        timeout(STOP_TIMEOUT, running).await.unwrap_or_else(|_elapsed| cut_short())
    });
    // Connections and links hold nothing that must be finished.
    runtime.shutdown_background();
    outcome
}
