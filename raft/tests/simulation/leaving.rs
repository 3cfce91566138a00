//! Nodes that leave and come back, and leaders that hand over: the real autopilot in a world where questions get lost, gossip
//! is wrong, and every process may die at any moment.

use std::collections::{BTreeMap, BTreeSet};

use raft::consensus::{Input, Membership, MembershipChange, NodeId, NodeInfo, RoleName, Status};
use raft::roster::{Autopilot, Candidate, Policy};
use rand::RngExt;

use crate::world::{Later, World};

const POLICY: Policy = Policy {
    target_voters: 5,
    max_learners: 3,
    min_voters: 3,
    promote_after_ticks: 4,
    dead_after_ticks: 60,
    wish_ticks: 12,
    settle_ticks: 3,
    silent_ticks: 6,
};
/// How often gossip takes the living for dead, and a question to the leader gets lost.
const GOSSIP_IS_WRONG: f64 = 0.05;
const QUESTION_IS_LOST: f64 = 0.5;
/// How often one that cannot leave gives up, per tick.
const GIVES_UP: f64 = 0.005;

/// Who leaves, who has left, and what each leader knows of it.
#[derive(Debug, Default)]
pub struct Departures {
    autopilots: BTreeMap<NodeId, Autopilot>,
    leaving: BTreeSet<NodeId>,
    left: BTreeSet<NodeId>,
}

impl Departures {
    /// The process is gone, and with it what only it knew.
    pub fn forget(&mut self, node: NodeId) {
        self.autopilots.remove(&node);
        self.leaving.remove(&node);
    }
}

impl World {
    /// One tick of nodes that leave, and of the leaders' autopilots.
    pub fn leave_and_return(&mut self) {
        if self.rng.random_bool(self.climate.leave) {
            let several = self.rng.random_range(1..=4);
            for _ in 0..several {
                let id = self.any_node();
                if self.nodes[&id].is_up() {
                    self.departures.leaving.insert(id);
                }
            }
        }
        for id in self.up() {
            if self.nodes[&id].raft().status().role != RoleName::Leader {
                self.departures.autopilots.remove(&id);
            } else if self.rng.random_bool(self.climate.steer) {
                self.steer(id);
            }
        }
        for id in self.departures.leaving.clone() {
            self.end_if_out(id);
        }
    }

    fn steer(&mut self, leader: NodeId) {
        let status = self.nodes[&leader].raft().status();
        let candidates = self.candidates();
        let asking: Vec<NodeId> = self.departures.leaving.iter().copied().collect();
        let asking: Vec<NodeId> =
            asking.into_iter().filter(|_| !self.rng.random_bool(QUESTION_IS_LOST)).collect();
        let autopilot =
            self.departures.autopilots.entry(leader).or_insert_with(|| Autopilot::new(POLICY));
        autopilot.candidates(&candidates);
        for node in asking {
            autopilot.leave(node, &status, self.now);
        }
        let target = autopilot.next_change(&status, self.now);
        let successor = autopilot.successor(&status, &BTreeSet::new());
        let successor = successor.filter(|_| autopilot.is_leaving(leader));
        if let Some(successor) = successor {
            self.coverage.handovers += 1;
            self.step(leader, Input::Transfer(successor));
        } else if let Some(target) = target {
            assert_is_safe(&status, &target);
            self.propose_change(leader, &status, target);
        }
    }

    fn propose_change(&mut self, leader: NodeId, status: &Status, target: Membership) {
        let gone = status.membership.voters.iter().any(|id| !target.contains(*id));
        let back = self
            .departures
            .left
            .iter()
            .any(|id| target.voters.contains(id) && !status.membership.voters.contains(id));
        let change = MembershipChange {
            id: self.clients.proposal_id(),
            based_on: status.membership_index,
            target,
        };
        let before = self.nodes[&leader].raft().last();
        self.step(leader, Input::ChangeMembership(change));
        if self.nodes[&leader].raft().last() != before {
            self.coverage.changes += 1;
            self.coverage.releases += u64::from(gone);
            self.coverage.returns += u64::from(back);
        }
    }

    /// What gossip says, which may be wrong.
    fn candidates(&mut self) -> Vec<Candidate> {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let candidate = |node: NodeId| Candidate {
            node,
            cluster: None,
            alive: self.nodes[&node].is_up() != self.rng.random_bool(GOSSIP_IS_WRONG),
            left: self.departures.left.contains(&node) && !self.nodes[&node].is_up(),
            detached: false,
            info: NodeInfo { name: format!("n{}", node.0), ..NodeInfo::default() },
        };
        ids.into_iter().map(candidate).collect()
    }

    /// One that knows that it is out ends, and is started again some time later.
    fn end_if_out(&mut self, id: NodeId) {
        let status = self.nodes[&id].raft().status();
        if status.membership_committed && !status.membership.contains(id) {
            let node = self.nodes.get_mut(&id).expect("a known node");
            let everything = node.disk.pending_writes();
            node.crash(everything);
            self.clients.forget(id);
            self.departures.forget(id);
            self.departures.left.insert(id);
            self.coverage.leaves += 1;
            let away = self.rng.random_range(5..60);
            self.later(id, away, Later::Restart);
        } else if self.rng.random_bool(GIVES_UP) {
            self.departures.leaving.remove(&id);
        }
    }
}

/// Never fewer voters than a cluster keeps, and of those a majority that the leader hears.
fn assert_is_safe(status: &Status, target: &Membership) {
    let present = &status.membership.voters;
    assert!(
        target.voters.len() >= POLICY.min_voters.min(present.len()),
        "{present:?} → {target:?}"
    );
    if target.voters != *present {
        let heard = |id: &&NodeId| {
            **id == status.id
                || status.peers.iter().any(|(peer, of)| peer == *id && of.silent_ticks < 60)
        };
        let heard = target.voters.iter().filter(heard).count();
        assert!(heard > target.voters.len() / 2, "{present:?} → {target:?}");
    }
}
