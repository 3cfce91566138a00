//! The `state-machine` process.

use std::io;
use std::process::ExitCode;

use state_machine::config::Flags;
use state_machine::daemon;
use state_machine::startup::{self, Loaded};
use tokio::signal::unix::{SignalKind, signal};
use tracing::error;

fn main() -> ExitCode {
    startup::main(run)
}

#[tokio::main(flavor = "current_thread")]
async fn run(loaded: Loaded<Flags>) -> u8 {
    let (stop, hangups) = match (stop_signal(), loaded.follow_hangups()) {
        (Ok(stop), Ok(hangups)) => (stop, hangups),
        (Err(error), _) | (_, Err(error)) => {
            error!("cannot listen for signals: {error}");
            return 1;
        }
    };
    tokio::spawn(hangups);
    match daemon::run(loaded.config, stop).await {
        Ok(()) => 0,
        Err(error) => {
            error!("{error}");
            error.exit_code()
        }
    }
}

/// Resolves at the first SIGTERM or SIGINT.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
