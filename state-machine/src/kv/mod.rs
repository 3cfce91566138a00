//! The built-in key-value machine.
//!
//! [`command`] is its language, [`Kv`] its rules, an [`Engine`] its storage: [`DiskEngine`] for real,
//! [`MemoryEngine`] for tests and for data that need not stay. A batch of entries becomes one atomic write that holds the
//! applied log id as well, so that after any crash the data and the applied index agree.

pub mod command;
mod disk;
mod dump;
mod engine;
pub mod list;
mod memory;

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Bound;

use bytes::Bytes;

use crate::entries::{Entry, EntryKind};
use crate::host::{MAX_ANSWER_BYTES, result_bytes};
use crate::machine::{LogId, Machine, MachineError, RestoreFailure};
use crate::rpc::{CommandResult, Verdict};
use command::{Command, MAX_VALUE_BYTES, Swap, encode_swap, encode_value};
pub use disk::DiskEngine;
use dump::{DumpParser, DumpReader};
pub use engine::{Changes, Engine, Pair, Pairs};
pub use memory::MemoryEngine;

const LIST_IN_LOG: &str = "LIST only reads: query it, do not submit it";

/// The key-value machine over an engine.
#[derive(Debug)]
pub struct Kv<E> {
    engine: E,
    restoring: Option<DumpParser>,
}

impl<E: Engine> Kv<E> {
    /// Over an engine as it was opened.
    pub fn new(engine: E) -> Kv<E> {
        Kv { engine, restoring: None }
    }
}

impl<E: Engine> Machine for Kv<E> {
    fn name(&self) -> &'static str {
        "kv"
    }

    fn applied(&self) -> LogId {
        self.engine.applied()
    }

    fn durable_index(&self) -> u64 {
        self.engine.durable_index()
    }

    fn apply(&mut self, entries: &[Entry]) -> Result<Vec<CommandResult>, MachineError> {
        let Some(last) = entries.last() else { return Ok(Vec::new()) };
        let applied = LogId {
            term: last.header.term,
            index: self.engine.applied().index + entries.len() as u64,
        };
        let mut batch = Batch { engine: &self.engine, changes: BTreeMap::new() };
        let mut results = Vec::with_capacity(entries.len());
        let mut room_bytes = MAX_ANSWER_BYTES;
        for entry in entries {
            // What the host would leave out is not even gathered: many short commands can have huge answers.
            let result = batch.run(entry)?;
            let left_bytes = room_bytes.checked_sub(result_bytes(&result));
            room_bytes = left_bytes.unwrap_or(room_bytes);
            results.push(if left_bytes.is_some() { result } else { CommandResult::Skipped });
        }
        let changes = batch.changes;
        self.engine.write(changes, applied)?;
        Ok(results)
    }

    fn query(&self, query: &Bytes) -> Result<CommandResult, MachineError> {
        match Command::decode(query) {
            Ok(Command::Get { key }) => {
                let value = self.engine.get(&key)?;
                Ok(CommandResult::Done(encode_value(value.as_deref())))
            }
            Ok(Command::List(range)) => Ok(CommandResult::Done(list::read(&self.engine, &range)?)),
            Ok(
                Command::Put { .. }
                | Command::Del { .. }
                | Command::Incr { .. }
                | Command::Cas { .. }
                | Command::Append { .. },
            ) => Ok(refused("this command writes: submit it, a query only reads")),
            Err(error) => Ok(refused(&error.to_string())),
        }
    }

    fn sync(&mut self) -> Result<(), MachineError> {
        self.engine.sync()
    }

    fn snapshot(&self) -> Result<Box<dyn Read + Send>, MachineError> {
        Ok(Box::new(DumpReader::new(self.engine.pairs_from(Bound::Unbounded))))
    }

    fn begin_restore(&mut self) -> Result<(), MachineError> {
        self.restoring = Some(DumpParser::default());
        self.engine.begin_restore()
    }

    fn write_restore(&mut self, bytes: &[u8]) -> Result<(), RestoreFailure> {
        let pairs = self.restoring.get_or_insert_default().push(bytes)?;
        Ok(self.engine.write_restore(pairs)?)
    }

    fn finish_restore(&mut self, applied: LogId) -> Result<(), RestoreFailure> {
        self.restoring.take().unwrap_or_default().finish()?;
        Ok(self.engine.finish_restore(applied)?)
    }

    fn abandon_restore(&mut self) {
        self.restoring = None;
        self.engine.abandon_restore();
    }

    fn validate(&self, command: &Bytes) -> Verdict {
        match Command::decode(command) {
            Ok(Command::List(_)) => Verdict::Refused(LIST_IN_LOG.to_owned()),
            Ok(_) => Verdict::Accepted,
            Err(error) => Verdict::Refused(error.to_string()),
        }
    }
}

/// What a batch did so far; later entries of the batch see it before the engine does.
struct Batch<'a, E> {
    engine: &'a E,
    changes: Changes,
}

impl<E: Engine> Batch<'_, E> {
    fn run(&mut self, entry: &Entry) -> Result<CommandResult, MachineError> {
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
                self.changes.insert(key, Some(value));
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
                self.changes.insert(key, Some(value));
                Ok(CommandResult::Done(encode_swap(&Swap::Done)))
            }
            Command::Append { key, value } => self.append(key, &value),
            Command::List(_) => Ok(refused(LIST_IN_LOG)),
        }
    }

    fn append(&mut self, key: Bytes, value: &[u8]) -> Result<CommandResult, MachineError> {
        let present = self.get(&key)?.unwrap_or_default();
        let bytes = present.len() + value.len();
        if bytes > MAX_VALUE_BYTES {
            return Ok(refused(&format!(
                "APPEND: the value would have {bytes} bytes; up to {MAX_VALUE_BYTES} are possible"
            )));
        }
        self.changes.insert(key, Some([&present, value].concat().into()));
        Ok(CommandResult::Done(bytes.to_string().into()))
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
        self.changes.insert(key, Some(new.clone()));
        Ok(CommandResult::Done(new))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MachineError> {
        match self.changes.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => self.engine.get(key),
        }
    }
}

fn refused(reason: &str) -> CommandResult {
    CommandResult::Refused(Bytes::copy_from_slice(reason.as_bytes()))
}

#[cfg(test)]
mod tests;
