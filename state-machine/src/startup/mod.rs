//! How each of the three daemons begins: settings from all their places, a log, then the process itself. The `member` crate
//! includes these very files, as it does with [`wire`](crate::wire).
//!
//! A setting is one field of a struct that clap parses: its name, variable, default and range stand there and nowhere
//! else. [`load`] fills it from, in this order, the command line, the environment, the TOML file of `--config`, the preset of
//! `--preset`, and its default, and remembers which it was ([`Source`]).

pub mod log;

mod error;
mod file;
mod layers;
mod print;
mod reload;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;

pub use error::{SettingError, Source, Sources};
pub use layers::{Loaded, load, within};
use log::{DEFAULT_FILTER, LogFormat};

const UNEXPECTED: u8 = 1;
const BAD_CONFIGURATION: u8 = 2;

/// What every daemon can be told.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Common {
    /// Print every setting in effect with its source, as a valid configuration file, and exit
    #[arg(long)]
    #[serde(skip)]
    pub print_config: bool,
    /// What to log: a level, and levels of modules (`info,raft::consensus=debug`); `RUST_LOG` is read too. SIGHUP reads it again
    #[arg(long, env = "OUTRIGGER_LOG", value_name = "FILTER", default_value = DEFAULT_FILTER, value_parser = log::checked)]
    pub log: String,
    /// How a line of the log looks
    #[arg(long, env = "OUTRIGGER_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// A name for several settings at once.
#[derive(Debug)]
pub struct Preset {
    /// As `--preset` has it.
    pub name: &'static str,
    /// Key and value as a file would have them.
    pub values: &'static [(&'static str, &'static str)],
}

/// The settings of one daemon. Their keys in a file are the names of the fields.
///
/// A field has its default as clap's `default_value_t`, and its range as clap's `value_parser` (see [`within`]). A field whose
/// default follows from others is an `Option`, filled by [`check`](Layered::check). There must be a field `config:
/// Option<PathBuf>`. What must not be printed has `serde(skip)`.
pub trait Layered: Parser + Serialize {
    /// What they become when they fit together.
    type Config;
    /// The presets; then there must be a field `preset` that takes their names.
    const PRESETS: &'static [Preset] = &[];

    /// Those that all daemons have.
    fn common(&self) -> &Common;

    /// Fills defaults that follow from other settings into `self`, and checks what one field alone does not show.
    ///
    /// # Errors
    /// See [`Sources::wrong`].
    fn check(&mut self, sources: &Sources) -> Result<Self::Config, SettingError>;
}

/// From the command line to an exit code: the settings, then the log, then `run`.
pub fn main<S: Layered>(run: impl FnOnce(Loaded<S>) -> u8) -> ExitCode {
    let outcome = match load::<S>(std::env::args_os()) {
        Ok(loaded) if loaded.settings.common().print_config => print::write_out(&loaded),
        Ok(loaded) => {
            log::install(loaded.settings.common());
            return ExitCode::from(run(loaded));
        }
        Err(SettingError::Usage(usage)) => {
            usage.print().map(|()| if usage.use_stderr() { BAD_CONFIGURATION } else { 0 })
        }
        Err(error) => writeln!(io::stderr(), "{}: {error}", S::command().get_name())
            .map(|()| BAD_CONFIGURATION),
    };
    ExitCode::from(outcome.unwrap_or(UNEXPECTED))
}
