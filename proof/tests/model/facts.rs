//! What the properties are told of replicas and messages.

use raft::consensus::{
    Envelope, Index, Membership, Message, NodeId, Payload, RoleName, VoteResponse,
};

use crate::identity::hash;
use crate::support::node::Node;

/// An entry, as far as others could tell it from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    pub term: u64,
    pub content: u64,
}

/// What properties are told of a replica.
#[derive(Clone, Debug)]
pub struct Facts {
    pub role: RoleName,
    pub term: u64,
    pub commit_index: usize,
    /// The log from its first entry on.
    pub log: Vec<Slot>,
    /// How many of the log's entries a crash would leave.
    pub durable: usize,
    pub membership: Membership,
    /// Writes under way.
    pub pending: u8,
    /// Whom it holds for the leader.
    pub follows: Option<NodeId>,
}

/// A vote that a message is witness of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vote {
    pub voter: NodeId,
    pub term: u64,
    pub candidate: NodeId,
}

impl Facts {
    pub fn of(node: &Node) -> Self {
        let status = node.raft().status();
        let entries = node.disk.read(Index(1), status.last.index);
        let slot = |payload: &Payload| hash(&format!("{payload:?}"), 0);
        Self {
            role: status.role,
            term: status.term.0,
            commit_index: place(status.commit_index),
            durable: entries.iter().take_while(|entry| node.disk.holds(entry.id)).count(),
            log: entries
                .iter()
                .map(|entry| Slot { term: entry.id.term.0, content: slot(&entry.payload) })
                .collect(),
            membership: status.membership,
            pending: u8::try_from(node.disk.pending_writes()).expect("few writes"),
            follows: status.leader,
        }
    }
}

/// The vote that a message is witness of: one that was given, or the candidate's own.
pub fn vote(envelope: &Envelope) -> Option<Vote> {
    match &envelope.body {
        Message::VoteResponse(VoteResponse { asked_term, granted: true }) => {
            Some(Vote { voter: envelope.from, term: asked_term.0, candidate: envelope.to })
        }
        Message::Vote(_) => {
            Some(Vote { voter: envelope.from, term: envelope.term.0, candidate: envelope.from })
        }
        Message::VoteResponse(_)
        | Message::PreVote(_)
        | Message::PreVoteResponse(_)
        | Message::Append(_)
        | Message::AppendResponse(_)
        | Message::InstallSnapshot(_)
        | Message::SnapshotResponse(_)
        | Message::TimeoutNow => None,
    }
}

/// Whether a message is an answer, or an invitation, in or for a term below `term`.
pub fn answers_for_less_than(envelope: &Envelope, term: u64) -> bool {
    let sent = envelope.term.0;
    match &envelope.body {
        Message::VoteResponse(response) => response.asked_term.0 < term && sent <= term,
        Message::PreVoteResponse(response) => response.asked_term.0 <= term && sent <= term,
        Message::AppendResponse(_) | Message::SnapshotResponse(_) | Message::TimeoutNow => {
            sent < term
        }
        Message::Vote(_)
        | Message::PreVote(_)
        | Message::Append(_)
        | Message::InstallSnapshot(_) => false,
    }
}

/// An index as a position.
pub fn place(index: Index) -> usize {
    usize::try_from(index.0).expect("short logs")
}
