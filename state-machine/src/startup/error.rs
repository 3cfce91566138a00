//! Where a setting comes from, and what is wrong with it.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line; the flag with its dashes.
    Flag(String),
    /// The variable of this name.
    Environment(String),
    /// The configuration file.
    File {
        /// Which.
        path: PathBuf,
        /// From one.
        line: usize,
    },
    /// The preset of this name.
    Preset(&'static str),
    /// Nobody said anything.
    Default,
}

impl Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            // Quoted, so that whatever a path holds stays within its line.
            Self::File { path, line } => {
                write!(f, "file {:?}, line {line}", path.to_string_lossy())
            }
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Where each setting comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources(pub(super) BTreeMap<String, Source>);

impl Sources {
    /// Where the setting `key` comes from.
    pub fn of(&self, key: &str) -> &Source {
        self.0.get(key).unwrap_or(&Source::Default)
    }

    /// Says that `key` cannot be `value`, `because`.
    pub fn wrong(&self, key: &str, value: impl Display, because: impl Display) -> SettingError {
        SettingError::Value {
            key: key.to_owned(),
            value: value.to_string(),
            reason: because.to_string(),
            source_of_value: self.of(key).clone(),
        }
    }

    /// Checks a range that depends on other settings; one that does not belongs to the field (see
    /// [`within`](super::within)).
    ///
    /// # Errors
    /// See [`Sources::wrong`].
    pub fn within<T: PartialOrd + Display>(
        &self,
        key: &str,
        value: T,
        (least, most): (T, T),
    ) -> Result<T, SettingError> {
        if least <= value && value <= most {
            Ok(value)
        } else {
            Err(self.wrong(key, value, format_args!("must be {least} to {most}")))
        }
    }
}

/// Why the settings cannot be used.
#[derive(Debug, Error)]
pub enum SettingError {
    /// The command line asks for help, or is not understood; clap says it best.
    #[error("{0}")]
    Usage(clap::Error),
    /// A value does not fit.
    #[error("{key} = {value}: {reason} ({source_of_value})")]
    Value {
        /// Which setting.
        key: String,
        /// What it is.
        value: String,
        /// What it must be.
        reason: String,
        /// Who says so.
        source_of_value: Source,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration file {path:?}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("configuration file {path:?}: {source}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Shows the place.
        source: Box<toml::de::Error>,
    },
    /// The file has a key that is no setting.
    #[error("configuration file {path:?}, line {line}: there is no setting {key:?}; {advice}")]
    Unknown {
        /// Which file.
        path: PathBuf,
        /// From one.
        line: usize,
        /// The key.
        key: String,
        /// What there is instead.
        advice: String,
    },
}
