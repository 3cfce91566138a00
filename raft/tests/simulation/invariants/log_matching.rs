//! Two logs that hold an entry with the same index and term hold the same entry there and the same one before it
//! (paper §5.3); and a leader never truncates its own log.

use std::collections::BTreeMap;

use raft::consensus::{Entry, LogId, Payload, RoleName, Term};

use super::Step;

/// Every entry that was ever written, with the term of the one before it.
#[derive(Debug, Default)]
pub struct Logs {
    entries: BTreeMap<LogId, (Term, Payload)>,
}

impl Logs {
    pub fn check(&mut self, step: &Step<'_>) {
        let Some(persist) = &step.output.persist else { return };
        if step.before.role == RoleName::Leader && step.is_leader() {
            assert_eq!(persist.truncate_from, None, "leader {} truncates its own log", step.id);
        }
        let Some(first) = persist.append.first() else { return };
        let mut before = step
            .node()
            .raft()
            .term_at(first.id.index.prev())
            .expect("the entry before an append is known");
        for Entry { id, payload } in &persist.append {
            let known = self.entries.entry(*id).or_insert_with(|| (before, payload.clone()));
            assert_eq!(known, &(before, payload.clone()), "{} holds another entry {id}", step.id);
            before = id.term;
        }
    }
}
