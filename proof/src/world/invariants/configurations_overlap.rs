//! Two configurations that follow each other in the committed log never have disjoint majorities: the voters change only
//! through a joint configuration that holds both sides (paper §6).

use raft::consensus::Membership;

pub(super) fn check(current: &Membership, next: &Membership) {
    let overlap = match (current.outgoing.is_empty(), next.outgoing.is_empty()) {
        (true, false) => next.outgoing == current.voters,
        (_, true) => next.voters == current.voters,
        (false, false) => false,
    };
    assert!(overlap, "disjoint majorities: {current:?} then {next:?}");
}
