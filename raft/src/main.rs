//! The `raft` process: settings, log, signals, exit code.

use std::process::ExitCode;

use raft::config::Settings;
use raft::offline;
use raft::process::{self, RunError, STOP_TIMEOUT, Wish};
use raft::tasks::LogFailure;
use state_machine::startup::{self, Loaded};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

fn main() -> ExitCode {
    if let Some(code) = offline::main(std::env::args_os()) {
        return code;
    }
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
        let (wish, wishes) = watch::channel(Wish::Run);
        let (leaves, leave_limit) = (loaded.config.leave_on_terminate, loaded.config.leave_timeout);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::spawn(loaded.follow_hangups()?);
        let running = process::run(loaded.config, wishes);
        tokio::pin!(running);
        let cut_short = || Err(LogFailure::TooSlow.into());
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
