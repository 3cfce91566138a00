//! Entries on their way to the state machine: those that wait, and the batches in flight.

use std::collections::VecDeque;

use state_machine::entries::{EntryBlob, EntryBlobBuilder};
use state_machine::rpc::MAX_APPLIES_IN_FLIGHT;

use super::history::Prepared;
use crate::consensus::{Index, LogId};
use crate::session::Name;

/// A batch for the state machine is closed when it holds this many bytes.
const BATCH_BYTES: usize = 1024 * 1024;

/// An entry at the state machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) id: LogId,
    /// What its result is to be kept under; none when nobody can ask for it again.
    pub(super) name: Option<Name>,
}

/// Entries between the first stage and the machine.
#[derive(Debug, Default)]
pub(super) struct Flow {
    unsent: VecDeque<Prepared>,
    /// Ends of the batches of the first stage that are in `unsent` in part or whole.
    untaken: VecDeque<Index>,
    in_flight: VecDeque<Vec<Sent>>,
}

impl Flow {
    pub(super) fn push(&mut self, entry: Prepared) {
        self.unsent.push_back(entry);
    }

    /// A batch of the first stage, which ends here, was looked at.
    pub(super) fn took(&mut self, last: Index) {
        self.untaken.push_back(last);
    }

    /// Newest entry that the state machine is about to get, or has in flight.
    pub(super) fn last(&self) -> Option<Index> {
        let sent =
            || self.in_flight.back().and_then(|batch| batch.last()).map(|sent| sent.id.index);
        self.unsent.back().map(|entry| entry.id.index).or_else(sent)
    }

    pub(super) fn nothing_in_flight(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The next batch and where it starts, while the machine may have another one.
    pub(super) fn next_batch(&mut self) -> Option<(Index, EntryBlob)> {
        let first = self.unsent.front()?.id.index;
        if self.in_flight.len() >= MAX_APPLIES_IN_FLIGHT {
            return None;
        }
        let mut blob = EntryBlobBuilder::default();
        let mut batch = Vec::new();
        while blob.len_bytes() < BATCH_BYTES
            && let Some(entry) = self.unsent.pop_front()
        {
            blob.push(&entry.header, &entry.command);
            let name = Name::new(entry.header.session, entry.header.sequence);
            batch.push(Sent { id: entry.id, name });
        }
        self.in_flight.push_back(batch);
        Some((first, blob.finish()))
    }

    /// The oldest batch has come back.
    pub(super) fn returned(&mut self) -> Option<Vec<Sent>> {
        self.in_flight.pop_front()
    }

    /// Ends of the first stage's batches that are no longer held here.
    pub(super) fn released(&mut self) -> Vec<Index> {
        let held_from = self.unsent.front().map(|entry| entry.id.index);
        let held = |last: &Index| held_from.is_some_and(|held| *last >= held);
        let free = self.untaken.iter().take_while(|last| !held(last)).count();
        self.untaken.drain(..free).collect()
    }

    /// What was not sent is not to be sent.
    pub(super) fn stop(&mut self) {
        self.unsent.clear();
    }

    /// The machine is gone, and what it had in flight.
    pub(super) fn abandon(&mut self) {
        self.unsent.clear();
        self.in_flight.clear();
    }
}
