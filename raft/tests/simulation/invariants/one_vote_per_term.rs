//! A vote that left a node never changes within its term, also across restarts (paper §5.2). Asking for votes is voting for
//! oneself.

use std::collections::BTreeMap;

use raft::consensus::{Envelope, Message, NodeId, Term};

/// Who voted for whom.
#[derive(Debug, Default)]
pub struct Votes {
    given: BTreeMap<(NodeId, Term), NodeId>,
}

impl Votes {
    pub(super) fn check(&mut self, envelope: &Envelope) {
        let vote = match &envelope.body {
            Message::Vote(_) => envelope.from,
            Message::VoteResponse(response) if response.granted => envelope.to,
            Message::VoteResponse(_)
            | Message::PreVote(_)
            | Message::PreVoteResponse(_)
            | Message::Append(_)
            | Message::AppendResponse(_)
            | Message::InstallSnapshot(_)
            | Message::SnapshotResponse(_)
            | Message::TimeoutNow => return,
        };
        let given = *self.given.entry((envelope.from, envelope.term)).or_insert(vote);
        assert_eq!(given, vote, "{} voted twice in term {}", envelope.from, envelope.term);
    }
}
