//! The smallest machine there is: one value in memory. It shows what [`Machine`] asks for, and tests use it.
//!
//! A command replaces the value and is answered with the one before; an empty command is refused. Any query is answered with the
//! value. Nothing survives the process, so its durable index stays 0 and raft feeds it from its own snapshot and log after each start.

use std::io::{Cursor, Read};

use bytes::Bytes;

use crate::entries::{Entry, EntryKind};
use crate::machine::{LogId, Machine, MachineError, RestoreFailure};
use crate::rpc::{CommandResult, Verdict};

/// One value.
#[derive(Debug, Default)]
pub struct Register {
    value: Bytes,
    applied: LogId,
    restoring: Option<Vec<u8>>,
}

impl Register {
    /// The empty value.
    pub fn new() -> Register {
        Register::default()
    }

    fn run(&mut self, command: &Bytes) -> CommandResult {
        match self.validate(command) {
            Verdict::Accepted => {
                // A copy of its own: a slice would keep the whole batch in memory.
                let new = Bytes::copy_from_slice(command);
                CommandResult::Done(std::mem::replace(&mut self.value, new))
            }
            Verdict::Refused(reason) => CommandResult::Refused(reason.into()),
        }
    }
}

impl Machine for Register {
    fn name(&self) -> &'static str {
        "register"
    }

    fn applied(&self) -> LogId {
        self.applied
    }

    fn durable_index(&self) -> u64 {
        0
    }

    fn apply(&mut self, entries: &[Entry]) -> Result<Vec<CommandResult>, MachineError> {
        let results = entries.iter().map(|entry| {
            self.applied = LogId { term: entry.header.term, index: self.applied.index + 1 };
            match entry.header.kind {
                EntryKind::Skip => CommandResult::Skipped,
                EntryKind::Command => self.run(&entry.command),
            }
        });
        Ok(results.collect())
    }

    fn query(&self, _query: &Bytes) -> Result<CommandResult, MachineError> {
        Ok(CommandResult::Done(self.value.clone()))
    }

    fn sync(&mut self) -> Result<(), MachineError> {
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Read + Send>, MachineError> {
        Ok(Box::new(Cursor::new(self.value.clone())))
    }

    fn begin_restore(&mut self) -> Result<(), RestoreFailure> {
        self.restoring = Some(Vec::new());
        Ok(())
    }

    fn write_restore(&mut self, bytes: &[u8]) -> Result<(), RestoreFailure> {
        self.restoring.get_or_insert_default().extend_from_slice(bytes);
        Ok(())
    }

    fn finish_restore(&mut self, applied: LogId) -> Result<(), RestoreFailure> {
        self.value = self.restoring.take().unwrap_or_default().into();
        self.applied = applied;
        Ok(())
    }

    fn abandon_restore(&mut self) {
        self.restoring = None;
    }

    fn digest(&self) -> Option<[u8; 32]> {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&crc32c::crc32c(&self.value).to_le_bytes());
        Some(digest)
    }

    fn validate(&self, command: &Bytes) -> Verdict {
        if command.is_empty() {
            return Verdict::Refused("an empty command has no value to write".to_owned());
        }
        Verdict::Accepted
    }
}
