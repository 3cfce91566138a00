//! What must hold after every step, one file each. They see messages, disks and machines, never the core's own bookkeeping alone.
//!
//! | file | of the list of properties |
//! |---|---|
//! | `one_leader_per_term`, `one_vote_per_term` | a term has one leader; a vote never changes, also across restarts |
//! | `committed_stays` | what is committed stays as it is, on every node; what is acknowledged is committed |
//! | `log_matching`, `leader_completeness` | logs that agree once agree before; who leads has all that was committed; no leader rewrites its log |
//! | `promises_are_durable` | votes and acknowledgements leave after their sync; what is committed is on a majority of disks |
//! | `machines_agree` | every machine is fed what is committed, in order, and comes to the same state |
//! | `machine_is_ours` | a machine lets in nobody but the node of the cluster whose data it holds |
//! | `nothing_goes_back` | term, commit and disk never go back, also across restarts; the log is dropped only below a durable snapshot |
//! | `configurations_overlap` | majorities of successive configurations meet |

mod committed_stays;
mod configurations_overlap;
mod leader_completeness;
mod log_matching;
mod machine_is_ours;
mod machines_agree;
mod nothing_goes_back;
mod one_leader_per_term;
#[path = "../../../../raft/tests/simulation/invariants/one_vote_per_term.rs"]
mod one_vote_per_term;
mod promises_are_durable;

use std::sync::Arc;

use raft::consensus::{
    Envelope, Event as CoreEvent, HardState, Index, Membership, Restored, RoleName, SnapshotMeta,
};
use raft::pipeline::digest_entries::EntriesActions;
use state_machine::entries::EntryBlob;

use super::World;
use super::raft_process::RaftProcess;

pub use committed_stays::Committed;
pub use machine_is_ours::check_let_in;

/// All that was seen so far and must not be contradicted.
#[derive(Debug, Default)]
pub struct Invariants {
    leaders: one_leader_per_term::Leaders,
    votes: one_vote_per_term::Votes,
    logs: log_matching::Logs,
    /// What is committed.
    pub committed: Committed,
    states: machines_agree::States,
}

/// A node before it digested what waited.
#[derive(Debug)]
pub struct Before {
    role: RoleName,
    hard_state: HardState,
    commit_index: Index,
    membership: Arc<Membership>,
}

impl Before {
    /// As it is now.
    pub fn of(raft: &RaftProcess) -> Self {
        let core = raft.entries.raft();
        Self {
            role: core.role(),
            hard_state: core.hard_state(),
            commit_index: core.commit_index(),
            membership: Arc::clone(&raft.membership),
        }
    }
}

impl Invariants {
    /// The newest configuration that is committed.
    pub fn newest_membership(&self) -> Option<&Membership> {
        self.committed.newest_membership()
    }

    /// Terms that had a leader.
    pub fn terms_led(&self) -> usize {
        self.leaders.count()
    }
}

impl World {
    /// The first stage of a node has digested what waited.
    pub fn check_step(&mut self, slot: usize, before: &Before, actions: &EntriesActions) {
        self.check_nothing_went_back(slot, before);
        self.check_leader(slot);
        self.check_logs(slot, before, actions);
        self.check_compaction(slot, actions);
        self.check_commit(slot, before, actions);
        self.check_completeness(slot, before);
        self.check_handed_on(slot, actions);
    }

    /// A message leaves a node.
    pub fn check_sent(&mut self, slot: usize, envelope: &Envelope) {
        self.invariants.votes.check(envelope);
        self.check_promise(slot, envelope);
    }

    /// A snapshot is described as the log has it.
    pub fn check_described(&self, meta: &SnapshotMeta) {
        self.invariants.committed.check_id(meta.last);
    }

    /// A client is told that its command stands at this index.
    pub fn check_acknowledged(&self, index: u64) {
        assert!(
            index <= self.invariants.committed.last().0,
            "index {index} is acknowledged and not committed"
        );
    }

    /// A machine is given a batch.
    pub fn check_fed(&self, slot: usize, first: Index, entries: &EntryBlob) {
        machines_agree::check_fed(&self.invariants.committed, slot, first, entries);
    }

    /// A machine has come to a state.
    pub fn check_state(&mut self, slot: usize, place: (u64, u64)) {
        self.invariants.states.check(slot, place);
    }

    /// Whether a node finds less than it promised, which is forgiven to disks that may forget.
    pub fn has_forgotten(&self, slot: usize, restored: &Restored) -> bool {
        let found = nothing_goes_back::is_what_was_durable(&self.slots[slot], restored);
        if !found {
            let here = &self.slots[slot];
            assert!(
                self.atlas.may_forget(self.slots[slot].node),
                "slot {slot} finds its log up to {} and {:?} on a sound disk, durable were {} and {:?}",
                restored.last,
                restored.hard_state,
                here.shadow.last(),
                here.shadow.hard_state
            );
        }
        !found
    }
}

/// Every configuration that was in force during a step.
fn configurations(before: &Before, actions: &EntriesActions) -> Vec<Membership> {
    let later = actions.events.iter().filter_map(|event| match event {
        CoreEvent::MembershipChanged { membership, .. } => Some(membership.clone()),
        CoreEvent::RoleChanged { .. }
        | CoreEvent::LeaderChanged { .. }
        | CoreEvent::Dropped { .. } => None,
    });
    std::iter::once((*before.membership).clone()).chain(later).collect()
}
