//! The order of everything, stated once. Checked after every step of a debug build, and by the simulator.
//!
//! ```text
//! base ≤ snapshot ≤ ready ≤ commit ≤ last        durable ≤ last        ready = min(commit, durable)
//! term of the last entry ≤ current term
//! peer:  match < next ≤ last + 1,  match ≤ last
//! ```

use super::Raft;
use super::leader::Leader;
use super::progress::Mode;
use super::replica::{Common, Replica};

/// # Panics
/// When one of the invariants does not hold.
pub(super) fn check(raft: &Raft) {
    check_common(raft.common());
    if let Raft::Leader(leader) = raft {
        check_leader(leader);
    }
}

fn check_common(common: &Common) {
    let (base, last) = (common.log.base(), common.log.last());
    assert!(base.index <= common.snapshot_index(), "base ≤ snapshot");
    assert!(common.snapshot_index() <= common.ready_index(), "snapshot ≤ ready");
    assert!(common.commit_index() <= last.index, "commit ≤ last");
    assert!(common.durability.index() <= last.index, "durable ≤ last");
    assert!(common.durability.hard_state().term <= common.term(), "durable term ≤ term");
    assert!(last.term <= common.term(), "term of entries ≤ term");
    assert!(common.log.runs_ascend(), "terms ascend along the log");
    assert!(common.log.first_cached() > base.index, "the cache lies above the base");
    assert!(common.memberships.index() <= last.index, "the configuration in force is in the log");
    assert!(
        common.memberships.at(base.index).0 <= base.index,
        "the configuration in force at the base is known"
    );
    if let Some(meta) = &common.snapshot {
        assert!(common.log.contains(meta.last), "the log goes on from the newest snapshot");
    }
}

fn check_leader(leader: &Replica<Leader>) {
    let common = &leader.common;
    let last = common.log.last().index;
    assert_eq!(common.leader(), Some(common.id()), "a leader follows itself");
    assert_eq!(common.hard_state().vote, Some(common.id()), "a leader has its own vote");
    assert_eq!(common.durability.hard_state(), common.hard_state(), "a leader's vote is durable");
    assert_eq!(
        common.log.term_at(leader.role.term_start),
        start_term(leader),
        "its term starts with its no-op"
    );
    for (peer, progress) in &leader.role.progress {
        assert_ne!(*peer, common.id(), "a leader is not its own peer");
        assert!(progress.match_index < progress.next_index, "match < next of {peer}");
        assert!(progress.next_index <= last.next(), "next ≤ last + 1 of {peer}");
        let known = matches!(progress.mode, Mode::Snapshot { .. })
            || progress.next_index > common.log.base().index;
        assert!(known, "what is compacted is sent as a snapshot to {peer}");
        if let Mode::Snapshot { last: sent } = progress.mode {
            assert!(sent >= common.log.base().index, "the log goes on from what is sent to {peer}");
        }
    }
    for member in common.membership().members() {
        assert!(
            member == common.id() || leader.role.progress.contains_key(&member),
            "every member has progress"
        );
    }
}

/// The term of the leader's no-op, unless it is compacted by now.
fn start_term(leader: &Replica<Leader>) -> Option<super::types::Term> {
    let compacted = leader.role.term_start < leader.common.log.base().index;
    (!compacted).then_some(leader.common.term())
}
