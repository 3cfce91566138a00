//! The flow of committed entries to `digest_commits`: a cursor with a window, so that memory stays bounded whatever a slow
//! state machine does, and so that one that comes back is fed from where it is.

use std::collections::VecDeque;

use crate::consensus::{Entry, Index};

/// Entries between the stages, in bytes of [`Entry::weight_bytes`]; one more entry may pass it.
pub(super) const FEED_WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// The cursor.
#[derive(Debug)]
pub(super) struct Feed {
    next: Index,
    /// Handed on and not taken yet: last index of each batch, and its weight.
    handed: VecDeque<(Index, usize)>,
    handed_bytes: usize,
    /// A read of the log is under way for this generation.
    fetching: bool,
    /// Counts restarts, so that a late answer of the log to an earlier cursor is not taken for ours.
    generation: u64,
}

impl Feed {
    /// Starts with `next`.
    pub(super) fn new(next: Index) -> Self {
        Self { next, handed: VecDeque::new(), handed_bytes: 0, fetching: false, generation: 0 }
    }

    /// Starts anew with `next`. What was handed on before still counts until it is taken.
    pub(super) fn restart(&mut self, next: Index) {
        self.next = next;
        self.fetching = false;
        self.generation += 1;
    }

    /// What stands before `first` is not in the log any more.
    pub(super) fn skip_to(&mut self, first: Index) {
        if self.next < first {
            self.restart(first);
        }
    }

    /// First entry that may be handed on now and the room for it in bytes; none when there is nothing to do.
    pub(super) fn wanted(&self, ready: Index) -> Option<(Index, usize)> {
        let room = FEED_WINDOW_BYTES.checked_sub(self.handed_bytes).filter(|room| *room > 0)?;
        (!self.fetching && self.next <= ready).then_some((self.next, room))
    }

    /// The wanted entries are not in memory: their payloads are being read. Returns what names this read.
    pub(super) fn begin_fetch(&mut self) -> u64 {
        self.fetching = true;
        self.generation
    }

    /// Whether a finished read is the one that this cursor waits for.
    pub(super) fn end_fetch(&mut self, generation: u64) -> bool {
        let ours = generation == self.generation;
        self.fetching &= !ours;
        ours
    }

    /// These entries were handed on.
    pub(super) fn handed(&mut self, entries: &[Entry]) {
        let Some(last) = entries.last() else { return };
        debug_assert_eq!(entries[0].id.index, self.next, "entries are fed without gaps");
        let bytes = entries.iter().map(Entry::weight_bytes).sum();
        self.next = last.id.index.next();
        self.handed.push_back((last.id.index, bytes));
        self.handed_bytes += bytes;
    }

    /// The oldest handed batch, which ends at `last`, was taken.
    pub(super) fn taken(&mut self, last: Index) {
        if let Some((index, bytes)) = self.handed.pop_front() {
            debug_assert_eq!(index, last, "batches are taken in order");
            self.handed_bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::consensus::{LogId, Payload, Term};

    fn entry(index: u64, bytes: usize) -> Entry {
        Entry {
            id: LogId::new(Term(1), Index(index)),
            payload: Payload::Command(Bytes::from(vec![0; bytes])),
        }
    }

    #[test]
    fn window_closes_and_opens() {
        let mut feed = Feed::new(Index(1));
        feed.handed(&[entry(1, FEED_WINDOW_BYTES)]);
        assert_eq!(feed.wanted(Index(9)), None);
        feed.taken(Index(1));
        assert_eq!(feed.wanted(Index(9)), Some((Index(2), FEED_WINDOW_BYTES)));
        assert_eq!(feed.wanted(Index(1)), None);
    }

    #[test]
    fn late_read_of_an_earlier_cursor_is_ignored() {
        let mut feed = Feed::new(Index(1));
        let first = feed.begin_fetch();
        assert_eq!(feed.wanted(Index(9)), None);
        feed.restart(Index(5));
        let second = feed.begin_fetch();
        assert!(!feed.end_fetch(first));
        assert_eq!(feed.wanted(Index(9)), None);
        assert!(feed.end_fetch(second));
        assert_eq!(feed.wanted(Index(9)), Some((Index(5), FEED_WINDOW_BYTES)));
    }
}
