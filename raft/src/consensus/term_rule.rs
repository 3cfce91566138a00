//! The gate for messages: they are checked, then the term rule is applied once for all roles (paper §5.1), then the
//! role acts.

use std::cmp::Ordering;

use super::message::{
    AppendOutcome, AppendResponse, Envelope, Message, SnapshotResponse, VoteResponse,
};
use super::replica::{Origin, Promise};
use super::types::{Index, NodeId, Term};
use super::{Raft, admission};

/// What to do with a message because of its term.
enum TermRule {
    Dispatch,
    Adopt,
    Refuse,
    Ignore,
}

impl Raft {
    /// The one gate for messages: checked first, then the term rule (paper §5.1), then the role.
    pub(super) fn receive(mut self, envelope: Envelope) -> Self {
        if let Err(reason) = admission::check(&envelope, self.common().id()) {
            self.common_mut().drop_message(envelope.from, reason);
            return self;
        }
        let Envelope { from, term, token, body, .. } = envelope;
        let origin = Origin { from, term, token };
        match self.judge_term(&origin, &body) {
            TermRule::Dispatch => self.dispatch(origin, body),
            TermRule::Adopt => {
                let leads = matches!(body, Message::Append(_) | Message::InstallSnapshot(_));
                let follower = self.into_follower(term, leads.then_some(from), "saw a higher term");
                follower.dispatch(origin, body)
            }
            TermRule::Refuse => self.refuse(origin, &body),
            TermRule::Ignore => self,
        }
    }

    /// What a message's term means for us. A higher term is adopted, with three exceptions: a pre-vote asks about a term
    /// that nobody has taken; a vote is refused without taking its term while a leader is heard (thesis §4.2.3), unless
    /// that leader wants it; and an answer counts only from a member.
    fn judge_term(&self, origin: &Origin, body: &Message) -> TermRule {
        let order = origin.term.cmp(&self.common().term());
        match body {
            Message::PreVote(_) => TermRule::Dispatch,
            Message::Vote(request) if self.has_lease() && !request.transfer => TermRule::Refuse,
            Message::Vote(_) | Message::Append(_) | Message::InstallSnapshot(_) => match order {
                Ordering::Less => TermRule::Refuse,
                Ordering::Equal => TermRule::Dispatch,
                Ordering::Greater => TermRule::Adopt,
            },
            Message::TimeoutNow if order.is_eq() => TermRule::Dispatch,
            Message::TimeoutNow => TermRule::Ignore,
            // Both name the term that they answer for; the sender's own may be lower.
            Message::PreVoteResponse(_) | Message::VoteResponse(_) if order.is_lt() => {
                TermRule::Dispatch
            }
            Message::PreVoteResponse(_)
            | Message::VoteResponse(_)
            | Message::AppendResponse(_)
            | Message::SnapshotResponse(_) => self.judge_answer(origin, order),
        }
    }

    fn judge_answer(&self, origin: &Origin, order: Ordering) -> TermRule {
        match order {
            Ordering::Equal => TermRule::Dispatch,
            Ordering::Greater if self.common().membership().contains(origin.from) => {
                TermRule::Adopt
            }
            Ordering::Greater | Ordering::Less => TermRule::Ignore,
        }
    }

    fn has_lease(&self) -> bool {
        match self {
            Self::Follower(replica) => replica.has_lease(),
            Self::PreCandidate(_) | Self::Candidate(_) => false,
            Self::Leader(_) => true,
        }
    }

    /// Answers a request from an old term, or a vote that comes too early, so that its sender learns our term.
    fn refuse(mut self, origin: Origin, body: &Message) -> Self {
        let last_index = self.last().index;
        let answer = match body {
            Message::Vote(_) => {
                Message::VoteResponse(VoteResponse { asked_term: origin.term, granted: false })
            }
            Message::Append(request) => Message::AppendResponse(AppendResponse {
                outcome: AppendOutcome::Rejected {
                    refused_prev: request.prev.index,
                    conflict_term: Term(0),
                    conflict_index: Index(0),
                    last_index,
                },
                // The request's round is of its own term, and the sender may lead ours by now with rounds of the same number.
                read_seq: 0,
            }),
            Message::InstallSnapshot(_) => {
                Message::SnapshotResponse(SnapshotResponse { installed: None })
            }
            Message::PreVote(_)
            | Message::PreVoteResponse(_)
            | Message::VoteResponse(_)
            | Message::AppendResponse(_)
            | Message::SnapshotResponse(_)
            | Message::TimeoutNow => return self,
        };
        self.common_mut().reply(origin, Promise::None, answer);
        self
    }

    fn into_follower(self, term: Term, leader: Option<NodeId>, reason: &'static str) -> Self {
        match self {
            Self::Follower(replica) => replica.into_follower(term, leader, reason).into(),
            Self::PreCandidate(replica) => replica.into_follower(term, leader, reason).into(),
            Self::Candidate(replica) => replica.into_follower(term, leader, reason).into(),
            Self::Leader(replica) => replica.into_follower(term, leader, reason).into(),
        }
    }

    fn dispatch(self, origin: Origin, body: Message) -> Self {
        match self {
            Self::Follower(replica) => replica.on_message(origin, body),
            Self::PreCandidate(replica) => replica.on_message(origin, body),
            Self::Candidate(replica) => replica.on_message(origin, body),
            Self::Leader(replica) => replica.on_message(origin, body),
        }
    }
}
