//! The `state-machine` process.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use state_machine::config::{Config, Flags};
use state_machine::daemon;
use tokio::signal::unix::{SignalKind, signal};
use tracing::error;
use tracing_subscriber::EnvFilter;

/// The logs of the store and of tarpc are for their authors, save when something is wrong.
const DEFAULT_LOG: &str = "info,fjall=warn,lsm_tree=warn,tarpc=warn";
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| DEFAULT_LOG.into());
    let colours = io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    log.with_ansi(colours).init();
    let code = match flags.resolve() {
        Ok(config) => run(config),
        Err(error) => {
            error!("{error}");
            BAD_CONFIGURATION
        }
    };
    ExitCode::from(code)
}

#[tokio::main(flavor = "current_thread")]
async fn run(config: Config) -> u8 {
    let stop = match stop_signal() {
        Ok(stop) => stop,
        Err(error) => {
            error!("cannot listen for signals: {error}");
            return 1;
        }
    };
    match daemon::run(config, stop).await {
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
