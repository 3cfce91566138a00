//! The next change of the configuration, decided without clock or I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::{Candidate, Policy};
use crate::consensus::{Membership, NodeId, Status};

/// All that a decision depends on.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// Whom gossip knows.
    pub candidates: &'a BTreeMap<NodeId, Candidate>,
    /// What the leader's core knows.
    pub status: &'a Status,
    /// Learners that may become voters.
    pub fit: BTreeSet<NodeId>,
    /// Nodes that want to leave.
    pub leaving: BTreeSet<NodeId>,
    /// Whether it is time to act upon these wishes.
    pub settled: bool,
    /// Members that neither gossip nor the leader has heard of for too long. A learner that returns is admitted again.
    pub lost: BTreeSet<NodeId>,
    /// What to aim at.
    pub policy: Policy,
}

/// The next configuration to propose, if the present one leaves something to wish for: first new addresses and nodes to
/// admit, then those who leave or are lost, then learners to promote; all at once that may go together.
pub fn next_change(situation: &Situation<'_>) -> Option<Membership> {
    let status = situation.status;
    let present = &status.membership;
    if !status.leader_ready || !status.membership_committed || !present.outgoing.is_empty() {
        return None;
    }
    let steps = [Situation::admit, Situation::release, Situation::promote];
    steps.iter().map(|step| step(situation)).find(|target| target != present)
}

impl Situation<'_> {
    fn present(&self) -> &Membership {
        &self.status.membership
    }

    /// Follows new addresses and lets strangers in as learners.
    fn admit(&self) -> Membership {
        let present = self.present();
        let alive = self.candidates.values().filter(|candidate| candidate.alive);
        let mut target = present.clone();
        for candidate in alive.clone() {
            if let Some(known) = target.nodes.get_mut(&candidate.node) {
                known.clone_from(&candidate.info);
            }
        }
        let room = self.policy.max_learners.saturating_sub(present.learners.len());
        let strangers = alive.filter(|candidate| {
            !present.nodes.contains_key(&candidate.node) && !self.leaving.contains(&candidate.node)
        });
        for candidate in strangers.take(room) {
            target.learners.insert(candidate.node);
            target.nodes.insert(candidate.node, candidate.info.clone());
        }
        target
    }

    /// Lets those go who leave, and gives up those who are lost. Learners just go; voters in one change, replaced by fit
    /// learners as far as there are any.
    fn release(&self) -> Membership {
        let mut target = self.present().clone();
        let said_goodbye = |id: &NodeId| self.candidates.get(id).is_some_and(|c| c.left);
        let leaves = |id: &NodeId| self.settled && self.leaving.contains(id);
        let goes = |id: &NodeId| leaves(id) || said_goodbye(id) || self.lost.contains(id);
        target.learners.retain(|id| !goes(id));
        if let Some(seats) = self.seats().filter(|seats| self.is_safe(seats)) {
            let dropped = self.present().voters.difference(&seats).copied();
            // Who gives a seat up only to keep the number odd stays as a learner.
            target.learners.extend(dropped.filter(|id| !self.going().contains(id)));
            target.learners.retain(|id| !seats.contains(id));
            target.voters = seats;
        }
        let Membership { voters, learners, nodes, .. } = &mut target;
        nodes.retain(|id, _| voters.contains(id) || learners.contains(id));
        target
    }

    /// Promotes fit learners as long as that leads to an odd number of voters.
    fn promote(&self) -> Membership {
        let mut target = self.present().clone();
        let candidates: Vec<NodeId> = self.fit.difference(&self.leaving).copied().collect();
        let reachable = (target.voters.len() + candidates.len()).min(self.policy.target_voters);
        let room = largest_odd(reachable).saturating_sub(target.voters.len());
        for id in candidates.into_iter().take(room) {
            target.learners.remove(&id);
            target.voters.insert(id);
        }
        target
    }

    /// Voters that are to go.
    fn going(&self) -> BTreeSet<NodeId> {
        let voters = self.present().voters.iter().copied();
        voters
            .filter(|id| self.lost.contains(id) || self.settled && self.leaving.contains(id))
            .collect()
    }

    /// Never fewer voters than this, nor fewer than there are.
    fn least(&self) -> usize {
        // Rounded up to an odd number: fewer than the setting says would never be right.
        let wanted = (self.policy.min_voters | 1).min(largest_odd(self.policy.target_voters));
        wanted.min(self.present().voters.len())
    }

    /// Who votes when those who go are gone: an odd number. Where too few would be left, as many of them as are needed keep
    /// their seats. None when nobody may go.
    fn seats(&self) -> Option<BTreeSet<NodeId>> {
        let going = self.going();
        if going.is_empty() {
            return None;
        }
        let mut ranked: Vec<NodeId> = self.present().voters.difference(&going).copied().collect();
        ranked.sort_by_key(|id| self.rank(*id));
        ranked.extend(self.fit.difference(&self.leaving));
        let most = ranked.len().min(self.policy.target_voters).min(self.present().voters.len());
        let mut kept: Vec<NodeId> = going.iter().copied().collect();
        kept.sort_by_key(|id| self.rank(*id));
        ranked.extend(kept);
        let size = largest_odd(most).max(self.least());
        let seats: BTreeSet<NodeId> = ranked.into_iter().take(size).collect();
        (!going.is_subset(&seats)).then_some(seats)
    }

    /// The lower, the more a voter is worth its seat: the leader first, then whoever is heard, then whose log lacks least.
    fn rank(&self, id: NodeId) -> (bool, bool, std::cmp::Reverse<u64>) {
        let peer = self.status.peers.iter().find(|(peer, _)| *peer == id);
        let matched = peer.map_or(0, |(_, peer)| peer.match_index.0);
        (id != self.status.id, !self.is_heard(id), std::cmp::Reverse(matched))
    }

    fn is_heard(&self, id: NodeId) -> bool {
        let mut peers = self.status.peers.iter();
        id == self.status.id
            || peers
                .any(|(peer, status)| *peer == id && status.silent_ticks < self.policy.silent_ticks)
    }

    /// Whether a majority of these is heard by the leader. Of the present voters it is: else it would not lead.
    fn is_safe(&self, voters: &BTreeSet<NodeId>) -> bool {
        voters.iter().filter(|id| self.is_heard(**id)).count() > voters.len() / 2
    }

    /// Why a member that wants to leave has to stay, if waiting alone does not help it.
    pub fn refusal(&self, node: NodeId) -> Option<String> {
        let present = self.present();
        if !present.voters.contains(&node) || present.is_joint() {
            return None;
        }
        let alive = self.candidates.values().filter(|candidate| candidate.alive);
        let mut staying: BTreeSet<NodeId> = alive.map(|candidate| candidate.node).collect();
        staying.extend(&present.voters);
        staying.retain(|id| !self.leaving.contains(id));
        let leaving = present.voters.intersection(&self.leaving).count();
        let lacking = self.least().saturating_sub(staying.len());
        (lacking >= leaving).then(|| {
            format!(
                "{} of {} voters want to leave and there is nobody to take their seats: at least {} keep voting",
                leaving,
                present.voters.len(),
                self.least()
            )
        })
    }
}

/// One more voter than an odd number tolerates no more deaths.
fn largest_odd(most: usize) -> usize {
    if most.is_multiple_of(2) { most.saturating_sub(1) } else { most }
}
