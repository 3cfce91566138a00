//! The built-in key-value machine.
//!
//! [`command`] is its language, [`Kv`] its rules, an [`Engine`] its storage: [`DiskEngine`] for real,
//! [`MemoryEngine`] for tests and for data that need not stay. A batch of entries becomes one atomic write, or several where it
//! would take too much memory, and each holds the applied log id as well, so that after any crash the data and the applied index agree.

mod batch;
pub mod command;
mod disk;
mod dump;
mod engine;
pub mod list;
mod memory;
mod walk;

use std::io::Read;
use std::ops::Bound;

use bytes::Bytes;

use crate::entries::Entry;
use crate::host::{MAX_ANSWER_BYTES, result_bytes};
use crate::machine::{LogId, Machine, MachineError, RestoreFailure};
use crate::rpc::{CommandResult, Verdict};
use batch::{Batch, LIST_IN_LOG, refused};
use command::{Command, encode_value};
pub use disk::DiskEngine;
use dump::{DumpParser, DumpReader};
pub use engine::{Changes, Engine, Pair, Pairs};
pub use memory::MemoryEngine;

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
        let mut applied = self.engine.applied();
        let mut batch = Batch::new(&self.engine);
        let mut results = Vec::with_capacity(entries.len());
        let mut room_bytes = MAX_ANSWER_BYTES;
        for entry in entries {
            if batch.is_full() {
                let changes = batch.into_changes();
                self.engine.write(changes, applied)?;
                batch = Batch::new(&self.engine);
            }
            applied = LogId { term: entry.header.term, index: applied.index + 1 };
            // What the host would leave out is not even gathered: many short commands can have huge answers.
            let result = batch.run(entry)?;
            let left_bytes = room_bytes.checked_sub(result_bytes(&result));
            room_bytes = left_bytes.unwrap_or(room_bytes);
            results.push(if left_bytes.is_some() { result } else { CommandResult::Skipped });
        }
        if !entries.is_empty() {
            let changes = batch.into_changes();
            self.engine.write(changes, applied)?;
        }
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

    fn begin_restore(&mut self) -> Result<(), RestoreFailure> {
        self.restoring = Some(DumpParser::default());
        self.engine.begin_restore()
    }

    fn write_restore(&mut self, bytes: &[u8]) -> Result<(), RestoreFailure> {
        let pairs = self.restoring.get_or_insert_default().push(bytes)?;
        self.engine.write_restore(pairs)
    }

    fn finish_restore(&mut self, applied: LogId) -> Result<(), RestoreFailure> {
        self.restoring.take().unwrap_or_default().finish()?;
        self.engine.finish_restore(applied)
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

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;
