//! What the commands do: the entries of one batch, run over an engine that changes only at the end of it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::command::{Command, MAX_VALUE_BYTES, Swap, encode_swap, encode_value};
use super::engine::{Changes, Engine};
use crate::entries::{Entry, EntryKind};
use crate::machine::MachineError;
use crate::rpc::CommandResult;

/// Once it has copied so much (8 MiB), a batch is to be written before it goes on.
const MAX_COPIED_BYTES: usize = 8 << 20;

pub(super) const LIST_IN_LOG: &str = "LIST only reads: query it, do not submit it";

/// What a batch did so far; later entries of the batch see it before the engine does.
pub(super) struct Batch<'a, E> {
    engine: &'a E,
    changes: BTreeMap<Bytes, Option<Value>>,
    /// Bytes of values that were copied to be appended to: entries of a few bytes each can call for any number of them.
    copied_bytes: usize,
}

/// A value that the batch wrote.
enum Value {
    Whole(Bytes),
    /// Appended to, and perhaps again: were it copied each time, many small additions to a large value would cost their product.
    Growing(BytesMut),
}

impl Value {
    fn into_bytes(self) -> Bytes {
        match self {
            Value::Whole(bytes) => bytes,
            Value::Growing(bytes) => bytes.freeze(),
        }
    }
}

impl<'a, E: Engine> Batch<'a, E> {
    /// Nothing done yet.
    pub(super) fn new(engine: &'a E) -> Batch<'a, E> {
        Batch { engine, changes: BTreeMap::new(), copied_bytes: 0 }
    }

    /// Whether it holds as much as it may.
    pub(super) fn is_full(&self) -> bool {
        self.copied_bytes >= MAX_COPIED_BYTES
    }

    /// What all its entries together changed.
    pub(super) fn into_changes(self) -> Changes {
        let changes = self.changes.into_iter();
        changes.map(|(key, change)| (key, change.map(Value::into_bytes))).collect()
    }

    /// Runs the next entry.
    ///
    /// # Errors
    /// The engine is broken.
    pub(super) fn run(&mut self, entry: &Entry) -> Result<CommandResult, MachineError> {
        match entry.header.kind {
            EntryKind::Skip => Ok(CommandResult::Skipped),
            EntryKind::Command => match Command::decode(&entry.command) {
                Ok(command) => self.execute(command),
                Err(error) => Ok(refused(&error.to_string())),
            },
        }
    }

    fn execute(&mut self, command: Command) -> Result<CommandResult, MachineError> {
        match command {
            Command::Put { key, value } => {
                self.set(key, value);
                Ok(CommandResult::Done(Bytes::new()))
            }
            Command::Del { key } => {
                let was_there = self.get(&key)?.is_some();
                self.changes.insert(key, None);
                Ok(CommandResult::Done(Bytes::from_static(if was_there { b"1" } else { b"0" })))
            }
            Command::Incr { key, by } => self.increment(key, by),
            Command::Get { key } => {
                Ok(CommandResult::Done(encode_value(self.get(&key)?.as_deref())))
            }
            Command::Cas { key, expected, value } => {
                let present = self.get(&key)?;
                if present != expected {
                    return Ok(CommandResult::Done(encode_swap(&Swap::Mismatch { present })));
                }
                self.set(key, value);
                Ok(CommandResult::Done(encode_swap(&Swap::Done)))
            }
            Command::Append { key, value } => self.append(key, &value),
            Command::List(_) => Ok(refused(LIST_IN_LOG)),
        }
    }

    fn append(&mut self, key: Bytes, value: &[u8]) -> Result<CommandResult, MachineError> {
        let bytes;
        if let Some(Some(Value::Growing(grown))) = self.changes.get_mut(&key) {
            bytes = grown.len() + value.len();
            if bytes <= MAX_VALUE_BYTES {
                grown.extend_from_slice(value);
                self.copied_bytes += value.len();
            }
        } else {
            let present = self.get(&key)?.unwrap_or_default();
            bytes = present.len() + value.len();
            if bytes <= MAX_VALUE_BYTES {
                let mut grown = BytesMut::with_capacity(bytes);
                grown.extend_from_slice(&present);
                grown.extend_from_slice(value);
                self.copied_bytes += bytes;
                self.changes.insert(key, Some(Value::Growing(grown)));
            }
        }
        Ok(if bytes <= MAX_VALUE_BYTES {
            CommandResult::Done(bytes.to_string().into())
        } else {
            refused(&format!(
                "APPEND: the value would have {bytes} bytes; up to {MAX_VALUE_BYTES} are possible"
            ))
        })
    }

    fn increment(&mut self, key: Bytes, by: i64) -> Result<CommandResult, MachineError> {
        let old = match self.get(&key)? {
            None => Some(0),
            Some(value) => str::from_utf8(&value).ok().and_then(|text| text.parse().ok()),
        };
        let Some(old): Option<i64> = old else {
            return Ok(refused("INCR: the value is not a whole number of 64 bits"));
        };
        let Some(new) = old.checked_add(by) else {
            return Ok(refused("INCR: the sum is beyond 64 bits"));
        };
        let new = Bytes::from(new.to_string());
        self.set(key, new.clone());
        Ok(CommandResult::Done(new))
    }

    fn set(&mut self, key: Bytes, value: Bytes) {
        self.changes.insert(key, Some(Value::Whole(value)));
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MachineError> {
        match self.changes.get(key) {
            Some(None) => Ok(None),
            Some(Some(Value::Whole(value))) => Ok(Some(value.clone())),
            Some(Some(Value::Growing(value))) => Ok(Some(Bytes::copy_from_slice(value))),
            None => self.engine.get(key),
        }
    }
}

/// An answer that says why nothing was changed.
pub(super) fn refused(reason: &str) -> CommandResult {
    CommandResult::Refused(Bytes::copy_from_slice(reason.as_bytes()))
}
