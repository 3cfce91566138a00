//! The TOML file of `--config`: flat, its keys those of the settings.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use toml::{Table, Value};

use super::layers::settings;
use super::{SettingError, Source};

/// A file that was read.
pub(super) struct File {
    path: PathBuf,
    text: String,
    table: Table,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, SettingError> {
        let path = path.to_owned();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(SettingError::Unreadable { path, source }),
        };
        match text.parse() {
            Ok(table) => Ok(Self { path, text, table }),
            Err(source) => Err(SettingError::Malformed { path, source: Box::new(source) }),
        }
    }

    /// Refuses keys that are no settings: most are misspelt.
    pub(super) fn check_keys(&self, command: &Command) -> Result<(), SettingError> {
        let keys: Vec<_> = settings(command).map(|arg| arg.get_id().as_str()).collect();
        let Some(key) = self.table.keys().find(|key| !keys.contains(&key.as_str())) else {
            return Ok(());
        };
        let right = key.replace('-', "_");
        let advice = if keys.contains(&right.as_str()) {
            format!("write {right}")
        } else {
            format!("there are {}", keys.join(", "))
        };
        let line = self.line(key);
        Err(SettingError::Unknown { path: self.path.clone(), line, key: key.clone(), advice })
    }

    /// What the file says about `key`, if anything, as it would be said by flags.
    pub(super) fn texts(&self, key: &str) -> Option<Result<(Source, Vec<String>), SettingError>> {
        let value = self.table.get(key)?;
        let source = Source::File { path: self.path.clone(), line: self.line(key) };
        let texts = match value {
            Value::Array(items) => items.iter().map(text).collect(),
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Table(_) => text(value).map(|text| vec![text]),
        };
        Some(match texts {
            Some(texts) => Ok((source, texts)),
            None => Err(SettingError::Value {
                key: key.to_owned(),
                value: value.to_string(),
                reason: "must be a text, a number, true, false, or a list of these".to_owned(),
                source_of_value: source,
            }),
        })
    }

    /// Where a key stands, from one.
    fn line(&self, key: &str) -> usize {
        let is_it = |line: &str| {
            line.split_once('=')
                .is_some_and(|(name, _)| name.trim().trim_matches(['"', '\'']) == key)
        };
        self.text.lines().position(is_it).unwrap_or_default() + 1
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(value.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}
