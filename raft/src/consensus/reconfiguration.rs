//! How a leader changes the configuration (paper §6, thesis §4): one change at a time, through a joint configuration
//! whenever the voters differ, and out of it without being asked.

use super::Raft;
use super::io::{MembershipChange, Refusal};
use super::leader::Leader;
use super::progress::Progress;
use super::replica::Replica;
use super::types::{LogId, Membership, Payload};

impl Replica<Leader> {
    pub(super) fn on_change_membership(mut self, change: &MembershipChange) -> Raft {
        if let Some(refusal) = self.objection(change) {
            self.common.output.refuse(change.id, refusal);
            return self.into();
        }
        let next = self.common.membership().step_towards(&change.target);
        let log_id = self.append_membership(next);
        self.common.output.accepted.push((change.id, log_id));
        self.into()
    }

    /// Why a change cannot begin now. Without an entry of our own term committed, a change that another leader began
    /// might still win over ours.
    fn objection(&self, change: &MembershipChange) -> Option<Refusal> {
        if self.is_transferring() || !self.is_ready() {
            return Some(Refusal::NotReady);
        }
        if !self.common.memberships.is_committed() || self.common.membership().is_joint() {
            return Some(Refusal::ChangeInProgress);
        }
        if change.based_on != self.common.memberships.index() {
            return Some(Refusal::StaleChange);
        }
        let well_formed = !change.target.is_joint() && change.target.check().is_ok();
        (!well_formed).then_some(Refusal::InvalidChange)
    }

    /// Once the joint configuration is committed, both sides agree that the incoming one follows.
    pub(super) fn leave_joint_when_committed(&mut self) {
        if self.common.memberships.is_committed() && self.common.membership().is_joint() {
            let target = self.common.membership().leave_joint();
            self.append_membership(target);
        }
    }

    /// Whether the committed configuration has us vote no longer (paper §6: such a leader manages the change to its end
    /// and then steps down).
    pub(super) fn is_retired(&self) -> bool {
        self.common.memberships.is_committed()
            && !self.common.membership().is_voter(self.common.id())
    }

    fn append_membership(&mut self, membership: Membership) -> LogId {
        let log_id = self.append(Payload::Membership(Box::new(membership)));
        self.follow_membership();
        log_id
    }

    /// New members are probed; those who left are told for a while, so that they learn it.
    fn follow_membership(&mut self) {
        let (id, last) = (self.common.id(), self.common.log.last().index.prev());
        let members = self.common.membership().members();
        let election_ticks = self.common.config.election_ticks_max;
        for (peer, progress) in &mut self.role.progress {
            progress.departing_ticks = (!members.contains(peer)).then_some(election_ticks);
        }
        for peer in members.into_iter().filter(|&peer| peer != id) {
            self.role.progress.entry(peer).or_insert_with(|| Progress::unknown(last));
        }
    }

    /// Forgets those who left, an election timeout after that was committed.
    pub(super) fn dismiss_departed(&mut self) {
        if self.common.memberships.is_committed() {
            self.role.progress.retain(|_, progress| progress.stays());
        }
    }
}
