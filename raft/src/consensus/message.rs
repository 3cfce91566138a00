//! What replicas say to each other (paper Figure 2, thesis §9.6 for pre-vote, §3.10 for transfer).
//!
//! An answer is a message of its own. The runtime carries requests as RPCs and matches answers by [`Token`].

use serde::{Deserialize, Serialize};

use super::types::{Entry, Index, LogId, NodeId, SnapshotMeta, Term, Token};

/// A message with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Sender.
    pub from: NodeId,
    /// Receiver; anything addressed elsewhere is dropped.
    pub to: NodeId,
    /// Sender's current term. A pre-vote asks for `term.next()` without having taken it.
    pub term: Term,
    /// Set by the runtime on requests that arrive; repeated by the answer.
    pub token: Token,
    /// Content.
    pub body: Message,
}

/// The content of an [`Envelope`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// "Would you vote for me in the next term?" Changes nothing at the receiver.
    PreVote(VoteRequest),
    /// Answers `PreVote`.
    PreVoteResponse(VoteResponse),
    /// Asks for the vote of `term`.
    Vote(VoteRequest),
    /// Answers `Vote`.
    VoteResponse(VoteResponse),
    /// Replicates entries; without entries it is a heartbeat.
    Append(AppendRequest),
    /// Answers `Append`.
    AppendResponse(AppendResponse),
    /// "You are behind my log: take this snapshot". The runtime streams the bytes. It is sent once: a stream that breaks off
    /// or stays without answer has to be reported as [`Input::SnapshotFailed`](super::io::Input::SnapshotFailed).
    InstallSnapshot(SnapshotMeta),
    /// Answers `InstallSnapshot` once the snapshot is durable at the follower.
    SnapshotResponse(SnapshotResponse),
    /// Leadership transfer: campaign at once (thesis §3.10).
    TimeoutNow,
}

impl Message {
    /// Whether it answers a request, and goes to whoever waits for that.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::PreVoteResponse(_)
            | Self::VoteResponse(_)
            | Self::AppendResponse(_)
            | Self::SnapshotResponse(_) => true,
            Self::PreVote(_)
            | Self::Vote(_)
            | Self::Append(_)
            | Self::InstallSnapshot(_)
            | Self::TimeoutNow => false,
        }
    }
}

/// Content of a vote or pre-vote request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRequest {
    /// End of the candidate's log.
    pub last: LogId,
    /// The current leader asked for this election: leader stickiness does not apply.
    pub transfer: bool,
}

/// Answer to a vote or pre-vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteResponse {
    /// The term that was asked for; an answer to an older question is ignored.
    pub asked_term: Term,
    /// Whether the vote is (or would be) given.
    pub granted: bool,
}

/// Entries and what goes with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendRequest {
    /// The entry before the first of `entries`.
    pub prev: LogId,
    /// Consecutive, starting at `prev.index + 1`.
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub commit_index: Index,
    /// Round of the leader's reads; an answer that repeats it confirms leadership for reads queued before it
    /// (thesis §6.4).
    pub read_seq: u64,
}

/// Answer to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendResponse {
    /// Whether the entries fit.
    pub outcome: AppendOutcome,
    /// Repeated from the request; zero when that was of an older term, whose rounds were numbered anew.
    pub read_seq: u64,
}

/// Outcome of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendOutcome {
    /// The follower's log is durable and equal to the leader's up to this index: the last index that *this request*
    /// proves, not the end of the follower's log.
    Accepted {
        /// Proven equal up to here.
        match_index: Index,
    },
    /// `prev` is not in the follower's log (paper §5.3, fast backtracking).
    Rejected {
        /// `prev.index` of the refused request; an answer to an older probe is recognised by it.
        refused_prev: Index,
        /// Term of the follower's entry at `prev.index`, or of its last entry when its log is shorter.
        conflict_term: Term,
        /// First index of that term in the follower's log; the leader need not look above it.
        conflict_index: Index,
        /// End of the follower's log.
        last_index: Index,
    },
}

/// Answer to an install.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotResponse {
    /// Last entry of the snapshot that is durable; `None` when it was refused or broken off.
    pub installed: Option<LogId>,
}
