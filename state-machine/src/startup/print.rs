//! `--print-config`: what is in effect, and who said so.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use toml::Table;

use super::layers::{command, settings};
use super::{BAD_CONFIGURATION, Layered, Loaded, Source};

/// The sources stand below each other, right of most values.
const VALUE_COLUMNS: usize = 40;

impl<S: Layered> Loaded<S> {
    /// Every setting with its source, as a configuration file.
    ///
    /// # Errors
    /// A path that is no UTF-8 has no TOML.
    pub fn print(&self) -> Result<String, toml::ser::Error> {
        let table = self.table()?;
        let mut text = String::new();
        for arg in settings(&command::<S>()) {
            let key = arg.get_id().as_str();
            let source = self.sources.of(key);
            let line = match (table.get(key), source) {
                (Some(value), _) => {
                    let pair = format!("{key} = {value}");
                    writeln!(text, "{pair:VALUE_COLUMNS$} # {source}")
                }
                (None, Source::Default) => writeln!(text, "# {key} is not set"),
                (None, source) => writeln!(text, "# {key} is not shown ({source})"),
            };
            line.unwrap_or_default(); // a String takes everything
        }
        Ok(text)
    }

    /// The settings that may be shown and have a value.
    pub(super) fn table(&self) -> Result<Table, toml::ser::Error> {
        Table::try_from(&self.settings)
    }
}

/// Carries out `--print-config`; returns the exit code.
pub(super) fn write_out<S: Layered>(loaded: &Loaded<S>) -> io::Result<u8> {
    match loaded.print() {
        Ok(text) => io::stdout().write_all(text.as_bytes()).map(|()| 0),
        Err(error) => {
            writeln!(io::stderr(), "cannot print the settings: {error}").map(|()| BAD_CONFIGURATION)
        }
    }
}
