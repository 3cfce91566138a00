//! Elections: a pre-candidate asks whether it could win, which raises nobody's term (thesis §9.6); a candidate asks for
//! votes (paper §5.2).

use super::Raft;
use super::follower::Follower;
use super::io::RoleName;
use super::leader::Leader;
use super::message::{Message, VoteRequest, VoteResponse};
use super::quorum::{Tally, Verdict};
use super::replica::{Origin, Replica, Role};
use super::types::{HardState, NodeId};

/// The data of a pre-candidate.
#[derive(Clone, Debug)]
pub struct PreCandidate {
    votes: Tally,
    elapsed_ticks: u32,
    timeout_ticks: u32,
}

/// The data of a candidate.
#[derive(Clone, Debug)]
pub struct Candidate {
    votes: Tally,
    elapsed_ticks: u32,
    timeout_ticks: u32,
}

impl Role for PreCandidate {
    const NAME: RoleName = RoleName::PreCandidate;
}

impl Role for Candidate {
    const NAME: RoleName = RoleName::Candidate;
}

impl<R: Role> Replica<R> {
    /// Stands for election, by a pre-vote first. Who may not stand, or cannot write, waits for another timeout.
    pub(super) fn campaign(self, reason: &'static str) -> Raft {
        let may_campaign = self.common.memberships.may_campaign(self.common.id());
        if may_campaign && !self.common.is_disk_stalled() {
            return PreCandidate::begin(self, reason);
        }
        let term = self.common.term();
        self.into_follower(term, None, "it may not stand for election").into()
    }
}

impl PreCandidate {
    /// Asks everyone; alone, it has won already.
    fn begin<R: Role>(mut replica: Replica<R>, reason: &'static str) -> Raft {
        let mut votes = Tally::default();
        votes.record(replica.common.id(), true);
        let timeout_ticks = replica.common.random_election_ticks();
        let request = VoteRequest { last: replica.common.log.last(), transfer: false };
        for peer in other_voters(&replica) {
            replica.common.send(peer, Message::PreVote(request));
        }
        let role = Self { votes, elapsed_ticks: 0, timeout_ticks };
        replica.with_role(role, None, reason).decide()
    }
}

impl Replica<PreCandidate> {
    pub(super) fn on_message(self, origin: Origin, message: Message) -> Raft {
        match message {
            Message::PreVote(request) => self.on_pre_vote(origin, request),
            Message::PreVoteResponse(response) => self.on_pre_vote_response(origin, response),
            Message::Vote(request) => self.on_vote(origin, request),
            Message::Append(_) | Message::InstallSnapshot(_) => {
                self.follow(origin.from).on_message(origin, message)
            }
            // Answers to a role that has ended, and a transfer from somebody whom we do not follow.
            Message::VoteResponse(_)
            | Message::AppendResponse(_)
            | Message::SnapshotResponse(_)
            | Message::TimeoutNow => self.into(),
        }
    }

    pub(super) fn on_tick(mut self) -> Raft {
        self.role.elapsed_ticks += 1;
        if self.role.elapsed_ticks < self.role.timeout_ticks {
            return self.into();
        }
        self.campaign("the pre-vote found no quorum")
    }

    /// Several who notice a dead leader at the same moment would let each other pass and then split the votes. So the one
    /// with the longer log, then the higher id, goes first: it refuses the others, who stand back for it. After a heartbeat's
    /// time, or once the other has refused us, nobody stands in anybody's way.
    fn on_pre_vote(mut self, origin: Origin, request: VoteRequest) -> Raft {
        let crossing = !self.role.votes.has_refused(origin.from)
            && self.role.elapsed_ticks < self.common.config.heartbeat_ticks;
        let rank = (request.last, origin.from);
        let we_go_first = (self.common.log.last(), self.common.id()) > rank;
        let granted = self.common.answer_pre_vote(origin, request, !(crossing && we_go_first));
        if !granted || we_go_first {
            return self.into();
        }
        let term = self.common.term();
        let mut follower = self.into_follower(term, None, "stood back for another");
        follower.favour(rank);
        follower.into()
    }

    fn on_pre_vote_response(mut self, origin: Origin, response: VoteResponse) -> Raft {
        if response.asked_term != self.common.term().next() {
            return self.into();
        }
        if self.common.membership().is_voter(origin.from) {
            self.role.votes.record(origin.from, response.granted);
        }
        self.decide()
    }

    fn on_vote(mut self, origin: Origin, request: VoteRequest) -> Raft {
        if self.common.decide_vote(origin, request) {
            let term = self.common.term();
            return self.into_follower(term, None, "voted for another").into();
        }
        self.into()
    }

    fn decide(self) -> Raft {
        match self.role.votes.verdict(self.common.membership()) {
            Verdict::Won => Candidate::begin(self, false, "the pre-vote was won"),
            Verdict::Open => self.into(),
            Verdict::Lost => {
                let term = self.common.term();
                self.into_follower(term, None, "the pre-vote was lost").into()
            }
        }
    }

    fn follow(self, leader: NodeId) -> Replica<Follower> {
        let term = self.common.term();
        self.into_follower(term, Some(leader), "the term has a leader")
    }
}

impl Candidate {
    /// Takes the next term, votes for itself and asks everyone for theirs once that is on disk. Its own vote counts from
    /// then on too.
    pub(super) fn begin<R: Role>(
        mut replica: Replica<R>,
        transfer: bool,
        reason: &'static str,
    ) -> Raft {
        let (id, term) = (replica.common.id(), replica.common.term().next());
        replica.common.set_hard_state(HardState { term, vote: Some(id) });
        for peer in other_voters(&replica) {
            replica.common.ask_for_vote(peer, transfer);
        }
        let timeout_ticks = replica.common.random_election_ticks();
        let role = Self { votes: Tally::default(), elapsed_ticks: 0, timeout_ticks };
        replica.with_role(role, None, reason).into()
    }
}

impl Replica<Candidate> {
    pub(super) fn on_message(mut self, origin: Origin, message: Message) -> Raft {
        match message {
            Message::PreVote(request) => {
                self.common.answer_pre_vote(origin, request, true);
                self.into()
            }
            Message::Vote(request) => {
                // Refused: the vote of this term is our own.
                self.common.decide_vote(origin, request);
                self.into()
            }
            Message::VoteResponse(response) => self.on_vote_response(origin, response),
            Message::Append(_) | Message::InstallSnapshot(_) => {
                self.follow(origin.from).on_message(origin, message)
            }
            // Answers to a role that has ended, and a transfer from somebody whom we do not follow.
            Message::PreVoteResponse(_)
            | Message::AppendResponse(_)
            | Message::SnapshotResponse(_)
            | Message::TimeoutNow => self.into(),
        }
    }

    /// An election that ends in a split is followed by another after a random time.
    pub(super) fn on_tick(mut self) -> Raft {
        self.role.elapsed_ticks += 1;
        if self.role.elapsed_ticks < self.role.timeout_ticks {
            return self.into();
        }
        self.campaign("the election found no quorum")
    }

    /// Our own vote may have become durable.
    pub(super) fn on_synced(mut self) -> Raft {
        if self.common.durability.hard_state() == self.common.hard_state() {
            self.role.votes.record(self.common.id(), true);
        }
        self.decide()
    }

    fn on_vote_response(mut self, origin: Origin, response: VoteResponse) -> Raft {
        if response.asked_term != self.common.term() {
            return self.into();
        }
        if self.common.membership().is_voter(origin.from) {
            self.role.votes.record(origin.from, response.granted);
        }
        self.decide()
    }

    fn decide(self) -> Raft {
        match self.role.votes.verdict(self.common.membership()) {
            Verdict::Won => Leader::begin(self),
            Verdict::Open => self.into(),
            Verdict::Lost => {
                let term = self.common.term();
                self.into_follower(term, None, "the election was lost").into()
            }
        }
    }

    fn follow(self, leader: NodeId) -> Replica<Follower> {
        let term = self.common.term();
        self.into_follower(term, Some(leader), "the term has a leader")
    }
}

fn other_voters<R>(replica: &Replica<R>) -> Vec<NodeId> {
    let (id, membership) = (replica.common.id(), replica.common.membership());
    membership
        .members()
        .into_iter()
        .filter(|&peer| peer != id && membership.is_voter(peer))
        .collect()
}
