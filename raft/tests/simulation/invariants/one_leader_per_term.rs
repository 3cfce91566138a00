//! At most one process leads a term (paper §5.2), also across restarts.

use std::collections::BTreeMap;

use raft::consensus::{NodeId, Term};

use super::Step;

/// Who led: which node, in which of its lives.
#[derive(Debug, Default)]
pub struct Leaders {
    by_term: BTreeMap<Term, (NodeId, u64)>,
}

impl Leaders {
    pub fn check(&mut self, step: &Step<'_>) {
        if !step.is_leader() {
            return;
        }
        let term = step.node().raft().status().term;
        let me = (step.id, step.node().incarnation);
        let leader = *self.by_term.entry(term).or_insert(me);
        assert_eq!(leader, me, "two leaders in term {term}");
    }

    pub fn seen(&self) -> u64 {
        self.by_term.len() as u64
    }
}
