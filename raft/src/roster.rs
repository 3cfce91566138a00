//! From gossip to the configuration: what the member daemon sees, and what the leader makes of it.
//!
//! Gossip suggests, the log decides: whatever is read here becomes a *proposal* for a change of the configuration at
//! most. [`next_change`] is pure, so it is tested by table.
//!
//! A node that is to leave asks the leader again and again; the leader remembers the *wish* for as long as it is renewed, and
//! takes all that come within a moment together.

mod change;

use std::collections::{BTreeMap, BTreeSet};

pub use change::{Situation, next_change};

use crate::consensus::{Membership, NodeId, NodeInfo, RoleName, Status};
use crate::rpc::peer::LeaveAnswer;

/// Someone that gossip knows and that runs a raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its node.
    pub node: NodeId,
    /// Its cluster, once it has one.
    pub cluster: Option<u128>,
    /// Whether gossip takes it for alive.
    pub alive: bool,
    /// Whether it has said goodbye to gossip.
    pub left: bool,
    /// Whether it says that its state machine is away.
    pub detached: bool,
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
    /// Fewer voters than this are not left behind when nodes leave or die, or fewer than there are.
    pub min_voters: usize,
    /// A learner must have been caught up and alive for this many ticks.
    pub promote_after_ticks: u64,
    /// A voter gives its seat away when neither gossip nor its leader has heard of it for this many ticks.
    pub dead_after_ticks: u64,
    /// The wish to leave is forgotten when it was not renewed for this many ticks.
    pub wish_ticks: u64,
    /// Wishes are acted upon this many ticks after the newest, so that those that come together go together.
    pub settle_ticks: u64,
    /// A peer that was silent for this many ticks counts as absent.
    pub silent_ticks: u32,
}

/// Most wishes to leave that are remembered; whoever comes later has to ask again.
const MAX_WISHES: usize = 256;

/// Since when a node wants to leave, and when it said so last, in ticks.
#[derive(Clone, Copy, Debug)]
struct Wish {
    first: u64,
    latest: u64,
}

/// What the leader knows beyond log and gossip: who could become a voter, who wants to leave, who is lost, and since when.
#[derive(Debug)]
pub struct Autopilot {
    policy: Policy,
    candidates: BTreeMap<NodeId, Candidate>,
    fit_since: BTreeMap<NodeId, u64>,
    lost_since: BTreeMap<NodeId, u64>,
    wishes: BTreeMap<NodeId, Wish>,
}

impl Autopilot {
    /// Begins knowing nobody.
    pub fn new(policy: Policy) -> Self {
        let (fit_since, lost_since) = (BTreeMap::new(), BTreeMap::new());
        Self { policy, candidates: BTreeMap::new(), fit_since, lost_since, wishes: BTreeMap::new() }
    }

    /// Gossip knows these now.
    pub fn candidates(&mut self, candidates: &[Candidate]) {
        self.candidates = candidates.iter().map(|c| (c.node, c.clone())).collect();
    }

    /// A node wants to leave, and asks this leader. `now` is in ticks.
    pub fn leave(&mut self, node: NodeId, status: &Status, now: u64) -> LeaveAnswer {
        if self.wishes.len() < MAX_WISHES || self.wishes.contains_key(&node) {
            let wish = self.wishes.entry(node).or_insert(Wish { first: now, latest: now });
            wish.latest = now;
        }
        let is_settled = status.leader_ready && status.membership_committed;
        if is_settled && !status.membership.contains(node) {
            return LeaveAnswer::Out { index: status.membership_index.0 };
        }
        match self.situation(status, now).refusal(node) {
            Some(reason) => LeaveAnswer::Refused { reason },
            None => LeaveAnswer::Pending,
        }
    }

    /// Whether this node wants to leave.
    pub fn is_leaving(&self, node: NodeId) -> bool {
        self.wishes.contains_key(&node)
    }

    /// The voter that should lead instead of this leader: present, not about to leave, not in `passed_over`, with its state
    /// machine at hand if there is such a one; of those the one whose log lacks least.
    pub fn successor(&self, status: &Status, passed_over: &BTreeSet<NodeId>) -> Option<NodeId> {
        let may_lead = |id: &NodeId| {
            status.membership.voters.contains(id)
                && !self.is_leaving(*id)
                && !passed_over.contains(id)
        };
        let present = status
            .peers
            .iter()
            .filter(|(id, peer)| may_lead(id) && peer.silent_ticks < self.policy.silent_ticks);
        let detached = |id| self.candidates.get(id).is_some_and(|candidate| candidate.detached);
        present.max_by_key(|(id, peer)| (!detached(id), peer.match_index)).map(|(id, _)| *id)
    }

    /// The next change that this node, if it leads, should propose. `now` is in ticks.
    pub fn next_change(&mut self, status: &Status, now: u64) -> Option<Membership> {
        self.wishes.retain(|_, wish| now - wish.latest < self.policy.wish_ticks);
        if status.role != RoleName::Leader {
            self.fit_since.clear();
            self.lost_since.clear();
            return None;
        }
        self.note_fitness(status, now);
        self.note_losses(status, now);
        next_change(&self.situation(status, now))
    }

    fn situation<'a>(&'a self, status: &'a Status, now: u64) -> Situation<'a> {
        let long_enough = |since: &BTreeMap<NodeId, u64>, ticks| -> BTreeSet<NodeId> {
            since.iter().filter(|(_, since)| now - **since >= ticks).map(|(id, _)| *id).collect()
        };
        Situation {
            candidates: &self.candidates,
            status,
            fit: long_enough(&self.fit_since, self.policy.promote_after_ticks),
            leaving: self.wishes.keys().copied().collect(),
            settled: self.wishes_are_settled(status, now),
            lost: long_enough(&self.lost_since, self.policy.dead_after_ticks),
            policy: self.policy,
        }
    }

    /// Nobody has asked for a moment, or somebody has waited for several.
    fn wishes_are_settled(&self, status: &Status, now: u64) -> bool {
        const MOST_SETTLINGS: u64 = 3;
        let still_in = |id: &NodeId| status.membership.contains(*id);
        let open = || self.wishes.iter().filter(|(id, _)| still_in(id)).map(|(_, wish)| wish.first);
        let quiet = open().max().is_none_or(|first| now - first >= self.policy.settle_ticks);
        let longest = self.policy.settle_ticks * MOST_SETTLINGS;
        quiet || open().min().is_some_and(|first| now - first >= longest)
    }

    fn note_fitness(&mut self, status: &Status, now: u64) {
        let caught_up: BTreeSet<_> =
            status.peers.iter().filter(|(_, peer)| peer.caught_up).map(|(id, _)| *id).collect();
        let fit = |id: &NodeId| caught_up.contains(id) && self.is_alive(*id);
        let learners = &status.membership.learners;
        let fit: BTreeSet<NodeId> = learners.iter().copied().filter(fit).collect();
        note_since(&mut self.fit_since, fit, now);
    }

    /// Whoever neither gossip nor we hear.
    fn note_losses(&mut self, status: &Status, now: u64) {
        let lost = status.peers.iter().filter(|(id, peer)| {
            peer.silent_ticks >= self.policy.silent_ticks
                && status.membership.contains(*id)
                && !self.is_alive(*id)
        });
        let lost = lost.map(|(id, _)| *id).collect();
        note_since(&mut self.lost_since, lost, now);
    }

    fn is_alive(&self, id: NodeId) -> bool {
        self.candidates.get(&id).is_some_and(|candidate| candidate.alive)
    }
}

/// Keeps since when something is true of each, and begins anew after a lapse.
fn note_since(since: &mut BTreeMap<NodeId, u64>, of: BTreeSet<NodeId>, now: u64) {
    since.retain(|id, _| of.contains(id));
    for id in of {
        since.entry(id).or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{Index, LogId, PeerStatus, Term};

    const POLICY: Policy = Policy {
        target_voters: 5,
        max_learners: 2,
        min_voters: 3,
        promote_after_ticks: 10,
        dead_after_ticks: 100,
        wish_ticks: 20,
        settle_ticks: 5,
        silent_ticks: 30,
    };

    fn info(id: u64) -> NodeInfo {
        NodeInfo { raft_address: format!("host{id}:6004"), ..NodeInfo::default() }
    }

    fn membership(voters: &[u64], learners: &[u64]) -> Membership {
        let nodes = voters.iter().chain(learners).map(|id| (NodeId(*id), info(*id))).collect();
        Membership { voters: ids(voters), outgoing: ids(&[]), learners: ids(learners), nodes }
    }

    fn status(membership: Membership, caught_up: &[u64]) -> Status {
        let peer = |id: &u64| {
            let (match_index, silent_ticks, caught_up) = (Index(1), 0, true);
            (NodeId(*id), PeerStatus { match_index, silent_ticks, caught_up, snapshot: None })
        };
        Status {
            id: NodeId(1),
            role: RoleName::Leader,
            term: Term(1),
            leader: Some(NodeId(1)),
            commit_index: Index(1),
            first_index: Index(1),
            last: LogId::default(),
            snapshot_index: Index(0),
            membership,
            membership_index: Index(1),
            membership_committed: true,
            leader_ready: true,
            peers: caught_up.iter().map(peer).collect(),
            transferring_to: None,
        }
    }

    fn alive(ids: &[u64]) -> Vec<Candidate> {
        let candidate = |id: &u64| Candidate {
            node: NodeId(*id),
            cluster: None,
            alive: true,
            left: false,
            detached: false,
            info: info(*id),
        };
        ids.iter().map(candidate).collect()
    }

    fn decide(candidates: &[u64], present: Membership, fit: &[u64]) -> Option<Membership> {
        let candidates = by_node(alive(candidates));
        next_change(&situation(&candidates, &status(present, &[]), fit))
    }

    fn by_node(candidates: Vec<Candidate>) -> BTreeMap<NodeId, Candidate> {
        candidates.into_iter().map(|candidate| (candidate.node, candidate)).collect()
    }

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    fn situation<'a>(
        candidates: &'a BTreeMap<NodeId, Candidate>,
        status: &'a Status,
        fit: &[u64],
    ) -> Situation<'a> {
        Situation {
            candidates,
            status,
            fit: ids(fit),
            leaving: ids(&[]),
            settled: true,
            lost: ids(&[]),
            policy: POLICY,
        }
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
        let candidates = by_node(moved);
        let present = status(membership(&[1, 2, 3], &[]), &[]);
        let target = next_change(&situation(&candidates, &present, &[])).unwrap();
        assert_eq!(target.nodes[&NodeId(2)].raft_address, "elsewhere:1");
        assert_eq!(target.voters, present.membership.voters);
    }

    #[test]
    fn nothing_is_proposed_while_something_is_under_way_or_gossip_sees_only_the_dead() {
        let candidates = by_node(alive(&[2]));
        let dead =
            candidates.clone().into_values().map(|c| (c.node, Candidate { alive: false, ..c }));
        let dead: BTreeMap<_, _> = dead.collect();
        let present = status(membership(&[1], &[]), &[]);
        assert_eq!(next_change(&situation(&dead, &present, &[])), None);
        let not_ready = Status { leader_ready: false, ..present.clone() };
        let uncommitted = Status { membership_committed: false, ..present.clone() };
        let mut joint = present.clone();
        joint.membership.outgoing = [NodeId(9)].into();
        for status in [not_ready, uncommitted, joint] {
            assert_eq!(next_change(&situation(&candidates, &status, &[])), None);
        }
        assert!(next_change(&situation(&candidates, &present, &[])).is_some());
    }

    /// Everybody is heard, with a log that is longer the higher its id, save for `silent`.
    fn heard(membership: &Membership, silent: &[u64]) -> Vec<(NodeId, PeerStatus)> {
        let peer = |id: &NodeId| {
            let silent_ticks = if silent.contains(&id.0) { 1_000 } else { 0 };
            let (match_index, caught_up) = (Index(id.0), true);
            (*id, PeerStatus { match_index, silent_ticks, caught_up, snapshot: None })
        };
        membership.members().iter().filter(|id| id.0 != 1).map(peer).collect()
    }

    #[test]
    fn those_who_leave_are_replaced_or_make_the_voters_fewer_but_never_too_few() {
        type Ids = &'static [u64];
        type Case = (Ids, Ids, Ids, Ids, Option<(Ids, Ids)>);
        let table: &[Case] = &[
            // voters, learners, fit, leaving → voters, learners
            (&[1, 2, 3], &[], &[], &[3], None),
            (&[1, 2, 3], &[4], &[4], &[3], Some((&[1, 2, 4], &[]))),
            (&[1, 2, 3], &[4], &[], &[3], None),
            (&[1, 2, 3], &[4, 5], &[4, 5], &[2, 3], Some((&[1, 4, 5], &[]))),
            (&[1, 2, 3], &[4, 5], &[4, 5], &[2, 4], Some((&[1, 3, 5], &[]))),
            (&[1, 2, 3], &[4], &[4], &[4], Some((&[1, 2, 3], &[]))),
            (&[1, 2, 3], &[], &[], &[1, 2, 3], None),
            // Five become three, and who gives its seat up for the odd number learns on.
            (&[1, 2, 3, 4, 5], &[], &[], &[5], Some((&[1, 3, 4], &[2]))),
            (&[1, 2, 3, 4, 5], &[], &[], &[4, 5], Some((&[1, 2, 3], &[]))),
            (&[1, 2, 3, 4, 5], &[6], &[6], &[4, 5], Some((&[1, 2, 3], &[6]))),
            (&[1, 2, 3, 4, 5], &[6, 7], &[6, 7], &[4, 5], Some((&[1, 2, 3, 6, 7], &[]))),
            (&[1, 2, 3, 4, 5], &[6], &[6], &[3, 4, 5, 6], Some((&[1, 2, 5], &[]))),
            // Some keep their seats: the leader, and those with the longest logs.
            (&[1, 2, 3, 4, 5], &[], &[], &[3, 4, 5], Some((&[1, 2, 5], &[]))),
            (&[1, 2, 3, 4, 5], &[], &[], &[1, 2, 3, 4, 5], Some((&[1, 4, 5], &[]))),
            (&[1], &[2], &[2], &[1], Some((&[2], &[]))),
            (&[1], &[], &[], &[1], None),
        ];
        for (voters, learners, fit, leaving, expected) in table {
            let present = membership(voters, learners);
            let peers = heard(&present, &[]);
            let status = Status { peers, ..status(present, &[]) };
            let none = BTreeMap::new();
            let situation = Situation { leaving: ids(leaving), ..situation(&none, &status, fit) };
            let expected = expected.map(|(voters, learners)| membership(voters, learners));
            let what = format!("{voters:?} {learners:?} {fit:?} {leaving:?}");
            assert_eq!(next_change(&situation), expected, "{what}");
            let hasty = Situation { settled: false, ..situation };
            let stay = |target: &Membership| target.voters.is_superset(&ids(voters));
            assert!(next_change(&hasty).is_none_or(|target| stay(&target)), "{what}");
        }
    }

    #[test]
    fn nobody_leaves_when_a_majority_of_the_rest_is_not_heard() {
        let present = membership(&[1, 2, 3, 4, 5], &[]);
        for (silent, expected) in [
            (&[][..], Some(membership(&[1, 2, 3], &[]))),
            (&[3], Some(membership(&[1, 2, 3], &[]))),
            (&[2, 3], None),
        ] {
            let peers = heard(&present, silent);
            let status = Status { peers, ..status(present.clone(), &[]) };
            let none = BTreeMap::new();
            let leaving = ids(&[4, 5]);
            let target = next_change(&Situation { leaving, ..situation(&none, &status, &[]) });
            assert_eq!(target, expected, "{silent:?}");
        }
    }

    #[test]
    fn lost_voters_give_their_seats_to_learners_or_up_as_long_as_enough_are_left() {
        type Ids = &'static [u64];
        type Case = (Ids, Ids, Ids, Option<(Ids, Ids)>);
        let table: &[Case] = &[
            // voters, fit learners, lost → voters, learners
            (&[1, 2, 3], &[], &[3], None),
            (&[1, 2, 3], &[4], &[3], Some((&[1, 2, 4], &[]))),
            (&[1, 2, 3, 4, 5], &[6], &[5], Some((&[1, 2, 3, 4, 6], &[]))),
            (&[1, 2, 3, 4, 5], &[], &[4, 5], Some((&[1, 2, 3], &[]))),
        ];
        for (voters, learners, lost, expected) in table {
            let present = membership(voters, learners);
            let peers = heard(&present, lost);
            let status = Status { peers, ..status(present, &[]) };
            let none = BTreeMap::new();
            let situation = Situation { lost: ids(lost), ..situation(&none, &status, learners) };
            let expected = expected.map(|(voters, learners)| membership(voters, learners));
            assert_eq!(next_change(&situation), expected, "{voters:?} {learners:?} {lost:?}");
        }
    }

    #[test]
    fn an_even_least_number_of_voters_is_rounded_up() {
        let none = BTreeMap::new();
        for (min_voters, expected) in
            [(1, Some(membership(&[1], &[2]))), (2, None), (3, None), (4, None)]
        {
            let present = membership(&[1, 2, 3], &[]);
            let peers = heard(&present, &[3]);
            let status = Status { peers, ..status(present, &[]) };
            let policy = Policy { min_voters, ..POLICY };
            let lost = ids(&[3]);
            let situation = Situation { lost, policy, ..situation(&none, &status, &[]) };
            assert_eq!(next_change(&situation), expected, "{min_voters}");
        }
    }

    #[test]
    fn lost_learner_makes_room_for_others() {
        let none = BTreeMap::new();
        let present = membership(&[1], &[2, 3]);
        let peers = heard(&present, &[2]);
        let status = Status { peers, ..status(present, &[]) };
        let situation = Situation { lost: ids(&[2]), ..situation(&none, &status, &[]) };
        assert_eq!(next_change(&situation), Some(membership(&[1], &[3])));
        let mut autopilot = Autopilot::new(POLICY);
        assert_eq!(autopilot.next_change(&status, 10), None, "not heard for a moment");
        assert_eq!(autopilot.next_change(&status, 110), Some(membership(&[1], &[3])));
    }

    #[test]
    fn wishes_come_together_and_are_forgotten_when_they_are_not_renewed() {
        let mut autopilot = Autopilot::new(POLICY);
        autopilot.candidates(&alive(&[1, 2, 3, 4, 5]));
        let present = membership(&[1, 2, 3, 4, 5], &[]);
        let status = Status { peers: heard(&present, &[]), ..status(present, &[]) };
        assert_eq!(autopilot.leave(NodeId(4), &status, 100), LeaveAnswer::Pending);
        assert_eq!(autopilot.next_change(&status, 104), None, "others may follow");
        assert_eq!(autopilot.leave(NodeId(5), &status, 104), LeaveAnswer::Pending);
        assert_eq!(autopilot.next_change(&status, 108), None);
        assert_eq!(autopilot.next_change(&status, 109), Some(membership(&[1, 2, 3], &[])));
        assert_eq!(autopilot.next_change(&status, 120), Some(membership(&[1, 3, 4], &[2])));
        assert_eq!(autopilot.next_change(&status, 124), None, "nobody asks any more");
    }

    #[test]
    fn one_that_has_left_is_told_and_not_let_in_again_while_it_wants_to_be_out() {
        let mut autopilot = Autopilot::new(POLICY);
        autopilot.candidates(&alive(&[1, 2, 3, 4]));
        let present = membership(&[1, 2, 3], &[]);
        let status = Status { peers: heard(&present, &[]), ..status(present, &[]) };
        assert_eq!(autopilot.leave(NodeId(4), &status, 100), LeaveAnswer::Out { index: 1 });
        assert_eq!(autopilot.next_change(&status, 110), None);
        assert_eq!(autopilot.next_change(&status, 120), Some(membership(&[1, 2, 3], &[4])));
        let unsure = Status { membership_committed: false, ..status };
        assert_eq!(autopilot.leave(NodeId(4), &unsure, 130), LeaveAnswer::Pending);
    }

    #[test]
    fn who_has_to_stay_is_told_why() {
        let mut autopilot = Autopilot::new(POLICY);
        let present = membership(&[1, 2, 3], &[]);
        let status = Status { peers: heard(&present, &[]), ..status(present, &[]) };
        autopilot.candidates(&alive(&[1, 2, 3]));
        let answer = autopilot.leave(NodeId(3), &status, 0);
        assert!(matches!(answer, LeaveAnswer::Refused { .. }), "{answer:?}");
        autopilot.candidates(&alive(&[1, 2, 3, 4]));
        assert_eq!(autopilot.leave(NodeId(3), &status, 0), LeaveAnswer::Pending, "4 may take over");
    }

    #[test]
    fn successor_is_present_not_leaving_and_lacks_least() {
        let mut autopilot = Autopilot::new(POLICY);
        let present = membership(&[1, 2, 3, 4], &[5]);
        let peers = heard(&present, &[4]);
        let status = Status { peers, ..status(present, &[]) };
        let none = BTreeSet::new();
        assert_eq!(autopilot.successor(&status, &none), Some(NodeId(3)));
        assert_eq!(autopilot.successor(&status, &ids(&[3])), Some(NodeId(2)));
        let mut seen = alive(&[2, 3]);
        seen[1].detached = true;
        autopilot.candidates(&seen);
        assert_eq!(autopilot.successor(&status, &none), Some(NodeId(2)), "3 has no machine");
        autopilot.leave(NodeId(2), &status, 0);
        assert_eq!(autopilot.successor(&status, &none), Some(NodeId(3)), "better than nobody");
        autopilot.leave(NodeId(3), &status, 0);
        assert_eq!(autopilot.successor(&status, &none), None);
    }

    #[test]
    fn learner_that_said_goodbye_is_forgotten() {
        let mut seen = alive(&[1, 2, 3]);
        (seen[2].alive, seen[2].left) = (false, true);
        let candidates = by_node(seen);
        let status = status(membership(&[1], &[2, 3]), &[]);
        let target = next_change(&situation(&candidates, &status, &[]));
        assert_eq!(target, Some(membership(&[1], &[2])));
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
