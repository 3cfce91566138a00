//! A term has at most one leader (paper §5.2).

use std::collections::BTreeMap;

use raft::consensus::{NodeId, RoleName, Term};

use super::World;

/// Who led.
#[derive(Debug, Default)]
pub struct Leaders(BTreeMap<Term, NodeId>);

impl Leaders {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

impl World {
    pub(super) fn check_leader(&mut self, slot: usize) {
        let Some(raft) = &self.slots[slot].raft else { return };
        let core = raft.entries.raft();
        if core.role() == RoleName::Leader {
            let (term, node) = (core.hard_state().term, self.slots[slot].node);
            let known = *self.invariants.leaders.0.entry(term).or_insert(node);
            assert_eq!(known, node, "two leaders in term {term}");
        }
    }
}
