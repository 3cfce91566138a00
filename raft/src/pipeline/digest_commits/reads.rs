//! Reads: those that wait for the machine to be far enough, and those that it was asked.

use std::collections::BTreeMap;

use super::super::{QueryRefused, Read};
use super::events::MachineTask;
use crate::consensus::Index;
use crate::rpc::client::{Answer, Outcome};

/// The reads.
#[derive(Debug, Default)]
pub(super) struct Reads {
    waiting: BTreeMap<(Index, u64), Read>,
    asked: BTreeMap<u64, (Index, Read)>,
    newest: u64,
}

impl Reads {
    pub(super) fn wait(&mut self, read_index: Index, read: Read) {
        self.newest += 1;
        self.waiting.insert((read_index, self.newest), read);
    }

    /// The next read that a machine which has applied so much can answer. It counts as asked from now on.
    pub(super) fn next_ready(&mut self, applied: Index) -> Option<MachineTask> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= applied)?;
        let ((read_index, query), read) = first.remove_entry();
        let bytes = read.query.clone();
        self.asked.insert(query, (read_index, read));
        Some(MachineTask::Query { query, read_index, bytes })
    }

    pub(super) fn answer(&mut self, query: u64, outcome: Outcome) {
        if let Some((read_index, read)) = self.asked.remove(&query) {
            read.answer(Ok(Answer { read_index: read_index.0, outcome }));
        }
    }

    /// The machine is gone. Reads are asked again when one is back: they change nothing.
    pub(super) fn ask_again(&mut self) {
        for (query, (read_index, read)) in std::mem::take(&mut self.asked) {
            self.waiting.insert((read_index, query), read);
        }
    }

    pub(super) fn expire(&mut self, now: u64, machine: &str) {
        let reason = format!("the state machine did not answer in time ({machine})");
        let waiting = self.waiting.extract_if(.., |_, read| read.expires <= now);
        let asked = self.asked.extract_if(.., |_, (_, read)| read.expires <= now);
        let waiting = waiting.map(|(_, read)| read);
        for read in waiting.chain(asked.map(|(_, (_, read))| read)) {
            read.answer(Err(QueryRefused::Unavailable { reason: reason.clone() }));
        }
    }
}
