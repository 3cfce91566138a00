//! SIGHUP: reads all settings again and takes the log filter from them.

use std::ffi::OsString;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task;
use toml::Table;
use tracing::{error, info, warn};

use super::{Layered, Loaded, load, log};

impl<S: Layered + 'static> Loaded<S> {
    /// Listens for SIGHUP from now on; the future acts on it, for ever.
    ///
    /// # Errors
    /// When the system has no place for the signal.
    pub fn follow_hangups(&self) -> io::Result<impl Future<Output = ()> + Send + 'static + use<S>> {
        let hangups = signal(SignalKind::hangup())?;
        let arguments = self.arguments.clone();
        Ok(follow::<S>(hangups, arguments, self.table().unwrap_or_default()))
    }
}

async fn follow<S: Layered + 'static>(
    mut hangups: Signal,
    arguments: Vec<OsString>,
    running: Table,
) {
    while hangups.recv().await.is_some() {
        let arguments = arguments.clone();
        // A file system that hangs must not hold up the process.
        let read = task::spawn_blocking(move || reread::<S>(arguments)).await;
        match read.unwrap_or_else(|panic| Err(panic.to_string())) {
            Ok((filter, table)) => {
                report(&filter);
                warn_of_changes(&running, &table);
            }
            Err(error) => error!("SIGHUP: the log filter stays as it is: {error}"),
        }
    }
}

/// The log filter with its source, and all settings.
fn reread<S: Layered>(arguments: Vec<OsString>) -> Result<((String, String), Table), String> {
    let loaded = load::<S>(arguments).map_err(|error| error.to_string())?;
    let table = loaded.table().map_err(|error| error.to_string())?;
    let source = loaded.sources.of("log").to_string();
    Ok(((loaded.settings.common().log.clone(), source), table))
}

fn report((filter, source): &(String, String)) {
    match log::set_filter(filter) {
        Ok(in_force) => info!(filter = in_force, source, "SIGHUP: log filter set"),
        Err(error) => error!("SIGHUP: the log filter stays as it is: {error}"),
    }
}

/// Only the filter can change while the process runs.
fn warn_of_changes(running: &Table, now: &Table) {
    let differs = |key: &&String| key.as_str() != "log" && running.get(*key) != now.get(*key);
    let gone = running.keys().filter(|key| !now.contains_key(*key));
    let changed: Vec<_> = now.keys().filter(differs).chain(gone).map(String::as_str).collect();
    if !changed.is_empty() {
        warn!(settings = changed.join(", "), "SIGHUP: these have changed and need a restart");
    }
}
