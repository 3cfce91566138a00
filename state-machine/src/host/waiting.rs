//! Batches that came before their predecessor: a few of them, each for a moment.

use std::collections::BTreeMap;
use std::time::Instant;

use super::MAX_WAITING_BATCHES;
use crate::entries::Entry;
use crate::rpc::{Applied, ApplyError};

/// A batch that was checked, and the ticket of its call.
#[derive(Debug)]
pub(super) struct Batch<T> {
    pub(super) first_index: u64,
    pub(super) entries: Vec<Entry>,
    pub(super) ticket: T,
}

impl<T> Batch<T> {
    /// Its answer when its predecessor is missing for good.
    pub(super) fn refuse_gap(self, expected: u64) -> (T, Result<Applied, ApplyError>) {
        (self.ticket, Err(ApplyError::Gap { expected, got: self.first_index }))
    }
}

/// At most [`MAX_WAITING_BATCHES`], by first index and then by arrival.
#[derive(Debug)]
pub(super) struct WaitingBatches<T> {
    batches: BTreeMap<(u64, u64), (Instant, Batch<T>)>,
    arrivals: u64,
}

impl<T> WaitingBatches<T> {
    pub(super) fn new() -> Self {
        WaitingBatches { batches: BTreeMap::new(), arrivals: 0 }
    }

    /// Keeps a batch until `expiry`; gives it back when there is no room.
    pub(super) fn push(&mut self, expiry: Instant, batch: Batch<T>) -> Result<(), Batch<T>> {
        if self.batches.len() >= MAX_WAITING_BATCHES {
            return Err(batch);
        }
        self.arrivals += 1;
        self.batches.insert((batch.first_index, self.arrivals), (expiry, batch));
        Ok(())
    }

    /// A batch that starts at or before the next entry.
    pub(super) fn pop_ready(&mut self, next_index: u64) -> Option<Batch<T>> {
        let first = self.batches.first_entry()?;
        (first.key().0 <= next_index).then(|| first.remove().1)
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.batches.values().map(|(expiry, _)| *expiry).min()
    }

    /// Takes out what waited too long.
    pub(super) fn expired(&mut self, now: Instant) -> impl Iterator<Item = Batch<T>> + use<T> {
        let expired = self.batches.extract_if(.., |_, (expiry, _)| *expiry <= now);
        expired.map(|(_, (_, batch))| batch).collect::<Vec<_>>().into_iter()
    }

    /// Takes out everything; only the tickets are still of use.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.batches).into_values().map(|(_, batch)| batch.ticket)
    }
}
