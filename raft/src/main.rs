//! The `raft` process: settings, log, signals, exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use raft::config::Settings;
use raft::process::{self, RunError, STOP_TIMEOUT};
use raft::tasks::LogFailure;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
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
        let (stop, stopping) = watch::channel(false);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let running = process::run(config, stopping);
        tokio::pin!(running);
        tokio::select! {
            outcome = &mut running => return outcome,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping: the log is synced first");
        stop.send_replace(true);
        let cut_short = || Err(LogFailure::TooSlow.into());
        tokio::time::timeout(STOP_TIMEOUT, running).await.unwrap_or_else(|_elapsed| cut_short())
    });
    // Connections and links hold nothing that must be finished.
    runtime.shutdown_background();
    outcome
}
