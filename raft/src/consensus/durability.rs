//! What is on this replica's disk. The core hands out numbered batches; the log writer answers by number.
//!
//! Only what is durable is promised to others: own votes, and entries up to [`Durability::index`].

use std::collections::VecDeque;

use super::types::{BatchNo, HardState, Index};

/// A batch that was handed out and is not known to be durable.
#[derive(Clone, Debug)]
struct Pending {
    batch: BatchNo,
    hard_state: HardState,
    /// End of that part of the log which this batch completes *and which no later batch truncates*.
    last: Index,
    handed_out_at: u64,
}

/// Invariant: `index` names a prefix of the *current* log that is durable. A truncation lowers it at once, and lowers what
/// batches under way can prove, so the late answer to an old batch never vouches for an entry that replaced another
/// at the same index ("append ABA").
#[derive(Clone, Debug)]
pub(super) struct Durability {
    newest: BatchNo,
    pending: VecDeque<Pending>,
    hard_state: HardState,
    index: Index,
}

impl Durability {
    /// Everything that was restored is durable.
    pub(super) fn new(hard_state: HardState, index: Index) -> Self {
        Self { newest: BatchNo(0), pending: VecDeque::new(), hard_state, index }
    }

    /// The log is durable up to here.
    pub(super) fn index(&self) -> Index {
        self.index
    }

    /// The hard state on disk.
    pub(super) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Number of the batch that the current step fills.
    pub(super) fn next_batch(&self) -> BatchNo {
        BatchNo(self.newest.0 + 1)
    }

    /// A batch leaves for the disk; after it the disk holds `hard_state` and the log up to `last`.
    pub(super) fn hand_out(
        &mut self,
        batch: BatchNo,
        hard_state: HardState,
        last: Index,
        now: u64,
    ) {
        assert_eq!(batch, self.next_batch(), "batches are numbered without gaps");
        self.newest = batch;
        self.pending.push_back(Pending { batch, hard_state, last, handed_out_at: now });
    }

    /// Everything up to `batch` is durable.
    ///
    /// # Panics
    /// When `batch` was never handed out: the log writer is wrong.
    pub(super) fn synced(&mut self, batch: BatchNo) {
        assert!(batch <= self.newest, "a batch is durable that was never handed out");
        while let Some(done) = self.pending.pop_front_if(|pending| pending.batch <= batch) {
            self.hard_state = done.hard_state;
            self.index = self.index.max(done.last);
        }
    }

    /// The log was truncated from here in memory.
    pub(super) fn truncate(&mut self, from: Index) {
        let end = from.prev();
        self.index = self.index.min(end);
        for pending in &mut self.pending {
            pending.last = pending.last.min(end);
        }
    }

    /// A durable snapshot stands for the log up to `last`; nothing that was written before reaches beyond it, unless
    /// the suffix was kept.
    pub(super) fn install(&mut self, last: Index, suffix_kept: bool) {
        if !suffix_kept {
            self.truncate(last.next());
        }
        self.index = self.index.max(last);
    }

    /// When the oldest batch that is still under way was handed out.
    pub(super) fn oldest_pending(&self) -> Option<u64> {
        self.pending.front().map(|pending| pending.handed_out_at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::{NodeId, Term};
    use super::*;

    fn state(term: u64) -> HardState {
        HardState { term: Term(term), vote: Some(NodeId(term)) }
    }

    fn disk(batches: &[(u64, u64)]) -> Durability {
        let mut disk = Durability::new(state(1), Index(3));
        for (at, &(term, last)) in batches.iter().enumerate() {
            disk.hand_out(disk.next_batch(), state(term), Index(last), at as u64);
        }
        disk
    }

    #[test]
    fn only_answered_batches_count() {
        let mut disk = disk(&[(1, 5), (2, 5), (2, 9)]);
        assert_eq!(
            (disk.index(), disk.hard_state(), disk.oldest_pending()),
            (Index(3), state(1), Some(0))
        );
        disk.synced(BatchNo(1));
        assert_eq!(
            (disk.index(), disk.hard_state(), disk.oldest_pending()),
            (Index(5), state(1), Some(1))
        );
        disk.synced(BatchNo(3));
        assert_eq!(
            (disk.index(), disk.hard_state(), disk.oldest_pending()),
            (Index(9), state(2), None)
        );
    }

    #[test]
    fn a_late_answer_does_not_vouch_for_a_replaced_entry() {
        let mut disk = disk(&[(1, 8)]);
        disk.truncate(Index(6));
        disk.hand_out(BatchNo(2), state(2), Index(8), 1); // other entries at 6, 7, 8
        disk.synced(BatchNo(1));
        assert_eq!(disk.index(), Index(5));
        disk.synced(BatchNo(2));
        assert_eq!(disk.index(), Index(8));
    }

    #[test]
    fn a_truncation_below_the_durable_end_lowers_it_at_once() {
        let mut disk = disk(&[]);
        disk.truncate(Index(2));
        assert_eq!(disk.index(), Index(1));
    }

    #[test]
    fn a_snapshot_vouches_for_its_prefix_only() {
        let mut replaced = disk(&[(1, 12)]);
        replaced.install(Index(7), false);
        replaced.synced(BatchNo(1));
        assert_eq!(replaced.index(), Index(7));
        let mut kept = disk(&[(1, 12)]);
        kept.install(Index(7), true);
        kept.synced(BatchNo(1));
        assert_eq!(kept.index(), Index(12));
    }

    #[test]
    #[should_panic(expected = "never handed out")]
    fn an_unknown_batch_is_a_bug_of_the_writer() {
        disk(&[(1, 5)]).synced(BatchNo(2));
    }
}
