//! The `member` process: flags, log, signals, exit code.
//!
//! Exit codes: 0 clean stop · 1 unexpected failure · 2 bad flag or configuration · 3 address not to be had · 4 data
//! directory unwritable or locked · 11 damaged file.

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use member::config::Flags;
use member::daemon::{Daemon, DaemonError};
use member::startup::{self, Loaded};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tracing::error;

/// A name server that does not answer must not hold up the end.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    startup::main::<Flags>(|loaded| match run(loaded) {
        Ok(()) => 0,
        Err(error) => {
            error!("{error}");
            error.exit_code()
        }
    })
}

fn run(loaded: Loaded<Flags>) -> Result<(), DaemonError> {
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
        let hangups = loaded.follow_hangups().map_err(failed("cannot listen for SIGHUP"))?;
        tokio::spawn(hangups);
        let mut stop = pin!(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        let daemon = tokio::select! {
            () = &mut stop => return Ok(()),
            daemon = Daemon::start(loaded.config) => daemon?,
        };
        daemon.run(stop).await
    });
    runtime.shutdown_timeout(SHUTDOWN_GRACE);
    outcome
}
