//! The `raft` process: settings, log, signals, exit code.

use std::process::ExitCode;

use raft::config::Settings;
use raft::process::{self, RunError, STOP_TIMEOUT};
use raft::tasks::LogFailure;
use state_machine::startup::{self, Loaded};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

fn main() -> ExitCode {
    startup::main::<Settings>(|loaded| match start(loaded) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error}");
            error.exit_code()
        }
    })
}

fn start(loaded: Loaded<Settings>) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let (stop, stopping) = watch::channel(false);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::spawn(loaded.follow_hangups()?);
        let running = process::run(loaded.config, stopping);
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
