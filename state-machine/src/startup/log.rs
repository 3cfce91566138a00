//! The log of a daemon: its format, and a filter that can be changed while it runs.

use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};

use clap::ValueEnum;
use serde::Serialize;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::Common;

/// What is logged unless told otherwise. The logs of the store and of tarpc are for their authors, save when something
/// is wrong.
pub const DEFAULT_FILTER: &str = "info,fjall=warn,lsm_tree=warn,tarpc=warn";
/// Most bytes of a filter.
pub const MAX_FILTER_BYTES: usize = 1024;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// There is one log in a process, and so is there one of these.
static INSTALLED: OnceLock<Installed> = OnceLock::new();

struct Installed {
    handle: reload::Handle<EnvFilter, Registry>,
    /// As it was written; the filter itself would tell its parts in another order.
    text: Mutex<String>,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Begins to log to the standard error stream; to be called once.
pub(super) fn install(common: &Common) {
    // The text was checked where it came in; what is wrong all the same leaves errors only.
    let (filter, handle) = reload::Layer::new(EnvFilter::new(&common.log));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match common.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let lines = lines.with_filter(filter_fn(tells_no_data));
    tracing_subscriber::registry().with(filter).with(lines).init();
    INSTALLED.get_or_init(|| Installed { handle, text: Mutex::new(common.log.clone()) });
}

/// Whatever the filter says: below this level the store's libraries write keys of clients into their lines.
fn tells_no_data(line: &Metadata<'_>) -> bool {
    let crate_name = line.target().split("::").next().unwrap_or_default();
    *line.level() <= Level::INFO || !["fjall", "lsm_tree"].contains(&crate_name)
}

/// The filter in force.
///
/// # Errors
/// In a process whose log was not made here, such as a test.
pub fn filter() -> Result<String, String> {
    let installed = INSTALLED.get().ok_or("this process has no log of its own")?;
    Ok(installed.text.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Changes the filter. Returns the one in force from now on.
///
/// # Errors
/// Says what is wrong; then nothing was changed.
pub fn set_filter(text: &str) -> Result<String, String> {
    let wanted = parse(text)?;
    let installed = INSTALLED.get().ok_or("this process has no log of its own")?;
    let mut known = installed.text.lock().unwrap_or_else(PoisonError::into_inner);
    installed.handle.reload(wanted).map_err(|error| error.to_string())?;
    text.clone_into(&mut known);
    Ok(known.clone())
}

/// Takes a filter that is one, for clap.
///
/// # Errors
/// Says what is wrong.
pub(super) fn checked(text: &str) -> Result<String, String> {
    parse(text).map(|_filter| text.to_owned())
}

fn parse(text: &str) -> Result<EnvFilter, String> {
    if text.len() > MAX_FILTER_BYTES {
        return Err(format!("is {} bytes long, at most {MAX_FILTER_BYTES} may be", text.len()));
    }
    if text.trim().is_empty() {
        return Err(format!("must name a level: {}", LEVELS.join(", ")));
    }
    // The parser takes a word that is no level for a module, which turns "inof" into silence.
    for word in text.split(',').map(str::trim).filter(|word| !word.contains(['=', '['])) {
        if !LEVELS.contains(&word.to_ascii_lowercase().as_str()) {
            let levels = LEVELS.join(", ");
            return Err(format!(
                "{word:?} is no level ({levels}); for a module write {word}=trace"
            ));
        }
    }
    EnvFilter::try_new(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        for text in ["info", "WARN", "off", DEFAULT_FILTER, "raft::wal=debug, info", "[span]=info"]
        {
            checked(text).unwrap();
        }
        for (text, reason) in [
            ("", "must name a level"),
            ("inof", "\"inof\" is no level"),
            ("info,raft", "write raft=trace"),
            ("info,", "is no level"),
            ("raft=loud", "expected one of"),
            (&"x=info,".repeat(200), "bytes long"),
        ] {
            let error = checked(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
