//! Who is elected holds everything that was committed in earlier terms (paper §5.4.3).

use raft::consensus::RoleName;

use super::{Before, World};

/// Entries that are looked at; those before them are as sure as these.
const NEWEST: usize = 64;

impl World {
    pub(super) fn check_completeness(&self, slot: usize, before: &Before) {
        let Some(raft) = &self.slots[slot].raft else { return };
        let core = raft.entries.raft();
        let term = core.hard_state().term;
        let was = before.role == RoleName::Leader && before.hard_state.term == term;
        if core.role() != RoleName::Leader || was {
            return;
        }
        for (index, one) in self.invariants.committed.newest(NEWEST) {
            let known = core.term_at(index) == Some(one.term);
            let compacted = index < core.first_index();
            assert!(
                one.committed_in >= term || known || compacted,
                "slot {slot} leads term {term} without entry {index} of term {}",
                one.committed_in
            );
        }
    }
}
