//! Of every entry that a log has dropped there is a durable snapshot, and what describes a snapshot or the base of a log is
//! true. Nothing of this goes back, also across restarts; and what a state machine may have applied is never lost.

use std::collections::BTreeMap;

use raft::consensus::{Index, Membership, NodeId, Payload, SnapshotMeta, Term};

use super::{Committed, Step};

/// What each node has come to.
#[derive(Debug, Default)]
pub struct Floors {
    by_node: BTreeMap<NodeId, Floor>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    incarnation: u64,
    term: Term,
    base: Index,
    snapshot: Index,
    ready: Index,
}

impl Floors {
    pub fn check(&mut self, step: &Step<'_>) {
        let (id, node, raft) = (step.id, step.node(), step.node().raft());
        let status = raft.status();
        let (base, snapshot, ready) =
            (status.first_index.prev(), status.snapshot_index, raft.ready_index());
        let on_disk = node.disk.snapshot().map_or(Index(0), |meta| meta.last.index);
        assert!(base <= snapshot, "{id} dropped {base}, and its snapshot ends at {snapshot}");
        assert!(snapshot <= ready, "{id} has a snapshot of what is not committed and durable");
        assert!(snapshot <= on_disk, "{id} counts on a snapshot that is not on its disk");
        assert!(node.disk.log_base().index <= base, "the log of {id} lacks more than it should");
        assert!(base <= node.applied, "the state machine of {id} misses entries");

        let floor = self.by_node.entry(id).or_default();
        let term = node.disk.durable_hard_state().term;
        assert!(term >= floor.term, "the durable term of {id} fell");
        assert!(snapshot >= floor.snapshot, "{id} went back to an older snapshot");
        assert!(status.last.index >= floor.ready, "{id} lost what its state machine may have");
        let same_process = floor.incarnation == node.incarnation;
        assert!(!same_process || base >= floor.base, "the log of {id} holds again what it dropped");
        let (incarnation, ready) = (node.incarnation, floor.ready.max(ready));
        *floor = Floor { incarnation, term, base, snapshot, ready };
    }
}

pub fn check_described(meta: &SnapshotMeta, committed: &Committed) {
    let last = meta.last;
    assert_eq!(committed.id(last.index), Some(last), "a snapshot of what is not committed");
    if let Some((index, membership)) = membership_at(last.index, committed) {
        let described = (meta.membership_index, &meta.membership);
        assert_eq!(described, (index, membership), "a wrong configuration at {last}");
    }
}

fn membership_at(index: Index, committed: &Committed) -> Option<(Index, &Membership)> {
    committed.entries.range(..=index).rev().find_map(|(at, (entry, _))| match &entry.payload {
        Payload::Membership(membership) => Some((*at, &**membership)),
        Payload::Noop | Payload::Command(_) => None,
    })
}
