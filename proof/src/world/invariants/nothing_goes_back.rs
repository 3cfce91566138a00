//! Term and commit index never go back while a process runs, what is on a disk never across its starts, and the log is dropped only
//! below a durable snapshot.

use raft::consensus::Restored;
use raft::pipeline::digest_entries::EntriesActions;

use super::super::shadow::Shadow;
use super::super::slot::Slot;
use super::{Before, World};

impl World {
    pub(super) fn check_nothing_went_back(&self, slot: usize, before: &Before) {
        let Some(raft) = &self.slots[slot].raft else { return };
        let core = raft.entries.raft();
        let (then, now) = (before.hard_state, core.hard_state());
        assert!(now.term >= then.term, "slot {slot}: term {} after {}", now.term, then.term);
        let vote_stays = now.term > then.term || then.vote.is_none() || now.vote == then.vote;
        assert!(vote_stays, "slot {slot} votes {:?} after {:?}", now.vote, then.vote);
        let (then, now) = (before.commit_index, core.commit_index());
        assert!(now >= then, "slot {slot}: commit index {now} after {then}");
        let last = core.last().index;
        assert!(now <= last, "slot {slot} commits {now} with a log up to {last}");
    }

    pub(super) fn check_compaction(&self, slot: usize, actions: &EntriesActions) {
        let Some(raft) = &self.slots[slot].raft else { return };
        for (_, base) in &actions.compact {
            let newest = raft.store.newest().map(|newest| newest.meta.last.index);
            assert!(
                newest.is_some_and(|newest| newest >= base.last.index),
                "slot {slot} drops its log up to {} with snapshots up to {newest:?}",
                base.last
            );
        }
    }
}

/// Whether a node finds on its disk what it knows to be durable, or what it was writing when it ended.
pub(super) fn is_what_was_durable(slot: &Slot, restored: &Restored) -> bool {
    let found = Shadow::of(restored);
    let candidates = || slot.perhaps.iter().chain([&slot.shadow]);
    let is_snapshot = |expected: &Shadow| {
        // A snapshot that was received stands in the place of the log.
        let base = restored.base.as_ref().map(|base| base.last);
        base == Some(restored.last)
            && found.hard_state == expected.hard_state
            && (found.last().index >= expected.last().index || !expected.holds(found.last()))
    };
    candidates().any(|expected| found.is_same(expected) || is_snapshot(expected))
}
