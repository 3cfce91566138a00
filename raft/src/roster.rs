//! From gossip to the configuration: what the member daemon sees, and what the leader makes of it.
//!
//! Gossip suggests, the log decides: whatever is read here becomes a *proposal* for a change of the configuration at
//! most. [`next_change`] is pure, so it is tested by table.

use std::collections::{BTreeMap, BTreeSet};

use crate::consensus::{Membership, NodeId, NodeInfo, RoleName, Status};

/// Someone that gossip knows and that runs a raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its node.
    pub node: NodeId,
    /// Its cluster, once it has one.
    pub cluster: Option<u128>,
    /// Whether gossip takes it for alive.
    pub alive: bool,
    /// Name and addresses.
    pub info: NodeInfo,
}

/// What the autopilot aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Voters to aim at; an odd number of them is kept, because one more would tolerate no more deaths.
    pub target_voters: usize,
    /// Learners to admit.
    pub max_learners: usize,
    /// A learner must have been caught up and alive for this many ticks.
    pub promote_after_ticks: u64,
}

/// What the leader knows beyond log and gossip: since when each learner could become a voter.
#[derive(Debug)]
pub struct Autopilot {
    policy: Policy,
    candidates: BTreeMap<NodeId, Candidate>,
    fit_since: BTreeMap<NodeId, u64>,
}

impl Autopilot {
    /// Begins knowing nobody.
    pub fn new(policy: Policy) -> Self {
        Self { policy, candidates: BTreeMap::new(), fit_since: BTreeMap::new() }
    }

    /// Gossip knows these now.
    pub fn candidates(&mut self, candidates: &[Candidate]) {
        self.candidates = candidates.iter().map(|c| (c.node, c.clone())).collect();
    }

    /// The next change that this node, if it leads, should propose. `now` is in ticks.
    pub fn next_change(&mut self, status: &Status, now: u64) -> Option<Membership> {
        if status.role != RoleName::Leader {
            self.fit_since.clear();
            return None;
        }
        self.note_fitness(status, now);
        let stable = |since: u64| now - since >= self.policy.promote_after_ticks;
        let fit =
            self.fit_since.iter().filter(|(_, since)| stable(**since)).map(|(id, _)| *id).collect();
        next_change(&self.candidates, status, &fit, self.policy)
    }

    fn note_fitness(&mut self, status: &Status, now: u64) {
        let caught_up: BTreeSet<_> =
            status.peers.iter().filter(|(_, peer)| peer.caught_up).map(|(id, _)| *id).collect();
        let alive = |id: &NodeId| self.candidates.get(id).is_some_and(|candidate| candidate.alive);
        let fit = |id: &NodeId| caught_up.contains(id) && alive(id);
        let learners = &status.membership.learners;
        let fit: BTreeSet<NodeId> = learners.iter().copied().filter(fit).collect();
        self.fit_since.retain(|id, _| fit.contains(id));
        for id in fit {
            self.fit_since.entry(id).or_insert(now);
        }
    }
}

/// The next configuration to propose, if the present one leaves something to wish for: first a new address, then
/// learners to admit, then learners to promote, all that are fit at once.
///
/// `fit` are the learners that may become voters.
pub fn next_change(
    candidates: &BTreeMap<NodeId, Candidate>,
    status: &Status,
    fit: &BTreeSet<NodeId>,
    policy: Policy,
) -> Option<Membership> {
    let present = &status.membership;
    if !status.leader_ready || !status.membership_committed || !present.outgoing.is_empty() {
        return None;
    }
    let alive = candidates.values().filter(|candidate| candidate.alive);
    let mut target = present.clone();
    for candidate in alive.clone() {
        if let Some(known) = target.nodes.get_mut(&candidate.node) {
            known.clone_from(&candidate.info);
        }
    }
    let room = policy.max_learners.saturating_sub(present.learners.len());
    let strangers = alive.filter(|candidate| !present.nodes.contains_key(&candidate.node));
    for candidate in strangers.take(room) {
        target.learners.insert(candidate.node);
        target.nodes.insert(candidate.node, candidate.info.clone());
    }
    if target == *present {
        let promoted: Vec<NodeId> =
            fit.iter().copied().take(promotions(present, fit, policy)).collect();
        for id in promoted {
            target.learners.remove(&id);
            target.voters.insert(id);
        }
    }
    (target != *present).then_some(target)
}

/// How many of the fit learners become voters: as many as lead to the largest odd number of voters within the target.
fn promotions(present: &Membership, fit: &BTreeSet<NodeId>, policy: Policy) -> usize {
    let voters = present.voters.len();
    let reachable = (voters + fit.len()).min(policy.target_voters);
    let odd = if reachable.is_multiple_of(2) { reachable.saturating_sub(1) } else { reachable };
    odd.saturating_sub(voters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{Index, LogId, PeerStatus, Term};

    const POLICY: Policy = Policy { target_voters: 5, max_learners: 2, promote_after_ticks: 10 };

    fn info(id: u64) -> NodeInfo {
        NodeInfo { raft_address: format!("host{id}:6004"), ..NodeInfo::default() }
    }

    fn membership(voters: &[u64], learners: &[u64]) -> Membership {
        let ids = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect::<BTreeSet<_>>();
        let nodes = voters.iter().chain(learners).map(|id| (NodeId(*id), info(*id))).collect();
        Membership { voters: ids(voters), outgoing: ids(&[]), learners: ids(learners), nodes }
    }

    fn status(membership: Membership, caught_up: &[u64]) -> Status {
        let peer = |id: &u64| {
            (NodeId(*id), PeerStatus { match_index: Index(1), silent_ticks: 0, caught_up: true })
        };
        Status {
            id: NodeId(1),
            role: RoleName::Leader,
            term: Term(1),
            leader: Some(NodeId(1)),
            commit_index: Index(1),
            last: LogId::default(),
            membership,
            membership_index: Index(1),
            membership_committed: true,
            leader_ready: true,
            peers: caught_up.iter().map(peer).collect(),
        }
    }

    fn alive(ids: &[u64]) -> Vec<Candidate> {
        let candidate =
            |id: &u64| Candidate { node: NodeId(*id), cluster: None, alive: true, info: info(*id) };
        ids.iter().map(candidate).collect()
    }

    fn decide(candidates: &[u64], present: Membership, fit: &[u64]) -> Option<Membership> {
        let candidates = alive(candidates).into_iter().map(|c| (c.node, c)).collect();
        let fit = fit.iter().map(|id| NodeId(*id)).collect();
        next_change(&candidates, &status(present, &[]), &fit, POLICY)
    }

    #[test]
    fn strangers_become_learners_as_long_as_there_is_room() {
        assert_eq!(decide(&[1, 2], membership(&[1], &[]), &[]), Some(membership(&[1], &[2])));
        assert_eq!(
            decide(&[1, 2, 3, 4], membership(&[1], &[]), &[]),
            Some(membership(&[1], &[2, 3]))
        );
        assert_eq!(decide(&[1, 2, 3, 4], membership(&[1], &[2, 3]), &[]), None);
    }

    #[test]
    fn voters_stay_odd_and_come_several_at_once() {
        for (voters, learners, fit, expected) in [
            (&[1][..], &[2][..], &[2][..], None),
            (&[1], &[2, 3], &[2], None),
            (&[1], &[2, 3], &[2, 3], Some(membership(&[1, 2, 3], &[]))),
            (&[1], &[2, 3, 4], &[2, 3, 4], Some(membership(&[1, 2, 3], &[4]))),
            (&[1, 2, 3], &[4], &[4], None),
            (&[1, 2, 3], &[4, 5], &[4, 5], Some(membership(&[1, 2, 3, 4, 5], &[]))),
            (&[1, 2, 3, 4, 5], &[6, 7], &[6, 7], None),
            (&[1, 2], &[3], &[3], Some(membership(&[1, 2, 3], &[]))),
        ] {
            assert_eq!(
                decide(&[], membership(voters, learners), fit),
                expected,
                "{voters:?} {learners:?} {fit:?}"
            );
        }
    }

    #[test]
    fn new_address_is_followed_before_anything_else() {
        let mut moved = alive(&[1, 2]);
        moved[1].info.raft_address = "elsewhere:1".to_owned();
        let candidates = moved.into_iter().map(|c| (c.node, c)).collect();
        let present = status(membership(&[1, 2, 3], &[]), &[]);
        let target = next_change(&candidates, &present, &BTreeSet::new(), POLICY).unwrap();
        assert_eq!(target.nodes[&NodeId(2)].raft_address, "elsewhere:1");
        assert_eq!(target.voters, present.membership.voters);
    }

    #[test]
    fn nothing_is_proposed_while_something_is_under_way_or_gossip_sees_only_the_dead() {
        let candidates: BTreeMap<_, _> = alive(&[2]).into_iter().map(|c| (c.node, c)).collect();
        let dead =
            candidates.clone().into_values().map(|c| (c.node, Candidate { alive: false, ..c }));
        let dead: BTreeMap<_, _> = dead.collect();
        let present = status(membership(&[1], &[]), &[]);
        let none = BTreeSet::new();
        assert_eq!(next_change(&dead, &present, &none, POLICY), None);
        let not_ready = Status { leader_ready: false, ..present.clone() };
        let uncommitted = Status { membership_committed: false, ..present.clone() };
        let mut joint = present.clone();
        joint.membership.outgoing = [NodeId(9)].into();
        for status in [not_ready, uncommitted, joint] {
            assert_eq!(next_change(&candidates, &status, &none, POLICY), None);
        }
        assert!(next_change(&candidates, &present, &none, POLICY).is_some());
    }

    #[test]
    fn learner_must_stay_fit_for_a_while_and_starts_anew_after_a_lapse() {
        let mut autopilot = Autopilot::new(POLICY);
        autopilot.candidates(&alive(&[1, 2, 3]));
        let present = membership(&[1], &[2, 3]);
        let fit = status(present.clone(), &[2, 3]);
        assert_eq!(autopilot.next_change(&fit, 100), None);
        assert_eq!(autopilot.next_change(&fit, 109), None);
        assert_eq!(autopilot.next_change(&status(present.clone(), &[2]), 109), None, "3 lapsed");
        assert_eq!(autopilot.next_change(&fit, 110), None, "3 starts anew");
        assert_eq!(autopilot.next_change(&fit, 120), Some(membership(&[1, 2, 3], &[])));
    }

    #[test]
    fn only_a_leader_steers() {
        let mut autopilot = Autopilot::new(POLICY);
        autopilot.candidates(&alive(&[1, 2]));
        let follower = Status { role: RoleName::Follower, ..status(membership(&[1], &[]), &[]) };
        assert_eq!(autopilot.next_change(&follower, 0), None);
    }
}
