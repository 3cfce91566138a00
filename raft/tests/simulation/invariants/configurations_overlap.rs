//! Two configurations that follow each other in the committed log never have disjoint majorities: the voters change only
//! through a joint configuration that holds both sides (paper §6).

use raft::consensus::{Entry, Index, Membership, Payload};

use super::{Committed, Step};

pub fn check(step: &Step<'_>, committed: &Committed) {
    for entry in step.newly_committed() {
        if let Payload::Membership(next) = &entry.payload
            && let Some(current) = before(committed, entry.id.index)
        {
            assert!(overlap(current, next), "disjoint majorities: {current:?} then {next:?}");
        }
    }
}

fn before(committed: &Committed, index: Index) -> Option<&Membership> {
    let membership = |entry: &'_ Entry| matches!(entry.payload, Payload::Membership(_));
    let (_, (entry, _)) =
        committed.entries.range(..index).rev().find(|(_, (entry, _))| membership(entry))?;
    match &entry.payload {
        Payload::Membership(membership) => Some(membership),
        Payload::Noop | Payload::Command(_) => None,
    }
}

fn overlap(current: &Membership, next: &Membership) -> bool {
    match (current.is_joint(), next.is_joint()) {
        (false, true) => next.outgoing == current.voters,
        (_, false) => next.voters == current.voters,
        (true, true) => false,
    }
}
