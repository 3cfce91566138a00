//! What must hold after every step, one file each. They see messages, disks and outputs, never the core's own bookkeeping
//! alone: a leader that believes that a majority holds an entry is not asked, the disks are.

mod committed_entries_never_change;
mod configurations_overlap;
mod leader_completeness;
mod log_matching;
mod nothing_goes_back;
mod one_leader_per_term;
mod one_vote_per_term;
mod promises_are_durable;
mod ready_is_durable;
mod the_log_goes_on_from_a_snapshot;

use std::collections::BTreeMap;

use raft::consensus::{
    Entry, Envelope, Index, LogId, NodeId, Output, RoleName, SnapshotMeta, Term,
};

use crate::support::node::Node;

/// All nodes with their disks.
pub type Nodes = BTreeMap<NodeId, Node>;

/// One step of one node, after it was carried out.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    pub id: NodeId,
    pub nodes: &'a Nodes,
    pub output: &'a Output,
    pub before: Before,
}

/// The node before the step.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    pub role: RoleName,
    pub term: Term,
    pub commit_index: Index,
    pub ready_index: Index,
}

impl Before {
    pub fn of(node: &Node) -> Self {
        let status = node.raft().status();
        Self {
            role: status.role,
            term: status.term,
            commit_index: status.commit_index,
            ready_index: node.raft().ready_index(),
        }
    }
}

impl<'a> Step<'a> {
    pub fn node(&self) -> &'a Node {
        &self.nodes[&self.id]
    }

    pub fn is_leader(&self) -> bool {
        self.node().raft().status().role == RoleName::Leader
    }

    /// Entries that this step committed at this node, as its log has them.
    fn newly_committed(&self) -> Vec<Entry> {
        let commit_index = self.node().raft().commit_index();
        if commit_index == self.before.commit_index {
            return Vec::new();
        }
        self.node().disk.read(self.before.commit_index.next(), commit_index)
    }
}

/// Everything that was committed so far, in the order of the log; shared by several invariants.
#[derive(Debug, Default)]
pub struct Committed {
    /// The entry, and the term of the first leader that knew it to be committed.
    entries: BTreeMap<Index, (Entry, Term)>,
}

impl Committed {
    pub fn last(&self) -> Index {
        self.entries.keys().next_back().copied().unwrap_or_default()
    }

    pub fn id(&self, index: Index) -> Option<LogId> {
        self.entries.get(&index).map(|(entry, _)| entry.id)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Invariants {
    pub committed: Committed,
    leaders: one_leader_per_term::Leaders,
    votes: one_vote_per_term::Votes,
    logs: log_matching::Logs,
    floors: the_log_goes_on_from_a_snapshot::Floors,
}

impl Invariants {
    pub fn check(&mut self, step: Step<'_>) {
        nothing_goes_back::check(&step);
        self.leaders.check(&step);
        self.logs.check(&step);
        leader_completeness::check(&step, &self.committed);
        promises_are_durable::check_commit(&step);
        committed_entries_never_change::check(&step, &mut self.committed);
        configurations_overlap::check(&step, &self.committed);
        ready_is_durable::check(&step, &self.committed);
        self.floors.check(&step);
        step.output.compact.iter().for_each(|base| self.check_described(base));
    }

    /// A snapshot, or the base of a log.
    pub fn check_described(&self, meta: &SnapshotMeta) {
        the_log_goes_on_from_a_snapshot::check_described(meta, &self.committed);
    }

    /// A message leaves a node, at once or after what it waited for was synced.
    pub fn check_sent(&mut self, nodes: &Nodes, envelope: &Envelope) {
        self.votes.check(envelope);
        promises_are_durable::check_sent(nodes, envelope);
    }

    pub fn leaders_seen(&self) -> u64 {
        self.leaders.seen()
    }
}
