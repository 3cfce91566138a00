//! Who is elected holds everything that was committed in earlier terms (paper §5.4.3).

use raft::consensus::RoleName;

use super::{Committed, Step};

pub fn check(step: &Step<'_>, committed: &Committed) {
    let raft = step.node().raft();
    let term = raft.status().term;
    let elected =
        step.is_leader() && (step.before.role != RoleName::Leader || step.before.term != term);
    if !elected {
        return;
    }
    for (entry, committed_in) in committed.entries.values().rev().take(64) {
        let index = entry.id.index;
        let known = raft.term_at(index).is_some_and(|term| term == entry.id.term);
        let compacted = raft.term_at(index).is_none() && index < raft.last().index;
        assert!(
            *committed_in >= term || known || compacted,
            "{} leads term {term} without {} of term {committed_in}",
            step.id,
            entry.id
        );
    }
}
