//! The nouns of consensus: small values with one meaning each. No bare `u64` crosses a function of this crate.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// An election term (paper §5.1). Zero is "before any election"; real terms start at one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Term(pub u64);

/// A position in the log (paper §5.3). Zero is "before the first entry"; real entries start at one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Index(pub u64);

impl Term {
    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Index {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position before this one; zero stays zero.
    #[must_use]
    pub fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of one data directory: random and never zero, made at first start. A wiped disk is a new node, so it
/// can never vote twice. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names one entry: where it is and which term's leader created it. Two logs that hold the same `LogId` agree up to
/// it (paper §5.3, Log Matching). The order (term, then index) is "at least as up to date" of paper §5.4.1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LogId {
    /// Term of the leader that created the entry.
    pub term: Term,
    /// Position of the entry.
    pub index: Index,
}

impl LogId {
    /// The id of the entry created in `term` at `index`.
    pub fn new(term: Term, index: Index) -> Self {
        Self { term, index }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// What a node must never forget besides its log (paper Figure 2, "Persistent state").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// Latest term this node has seen; never goes back.
    pub term: Term,
    /// Whom this node voted for in `term`; once given it does not change within the term.
    pub vote: Option<NodeId>,
}

/// Where a node can be reached, as the log knows it. Gossip may know a newer address; who *votes* is never read from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// For people only; not unique.
    pub name: String,
    /// `host:port` of `PeerService` and `ClientService`.
    pub raft_address: String,
    /// `host:port` of the HTTP API; empty when it serves none.
    pub http_address: String,
}

/// The configuration: who votes, who only listens. It is decided by log entries alone and is in force from the moment
/// the entry is appended (thesis §4.1).
///
/// Invariant: `outgoing` is not empty exactly while a joint change is under way (paper §6); then a decision needs a
/// majority of `voters` *and* of `outgoing`. No learner is in `voters`; one that is in `outgoing` votes until the joint
/// state is left, and only listens from then on. `nodes` has an entry for each id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The voters; in a joint configuration the incoming set.
    pub voters: BTreeSet<NodeId>,
    /// The voters that a joint change is about to replace.
    pub outgoing: BTreeSet<NodeId>,
    /// Receive the log, do not count.
    pub learners: BTreeSet<NodeId>,
    /// Addresses of all of the above.
    pub nodes: BTreeMap<NodeId, NodeInfo>,
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// First entry of each leader: commits what came before it (paper §8).
    Noop,
    /// For the state machine; opaque to consensus.
    Command(Bytes),
    /// A configuration, in force as soon as it is appended. Rare and large: boxed, so that an entry stays small.
    Membership(Box<Membership>),
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub id: LogId,
    /// Its content.
    pub payload: Payload,
}

impl Entry {
    /// What an entry takes in memory beside its payload, about: itself, and what the allocator and the sharing of the
    /// payload cost.
    pub const OVERHEAD_BYTES: usize = 96;

    /// Bytes that this entry counts for in windows, caches and batches: payload and a fixed overhead.
    pub fn weight_bytes(&self) -> usize {
        const MEMBER_BYTES: usize = 128;
        Self::OVERHEAD_BYTES
            + match &self.payload {
                Payload::Noop => 0,
                Payload::Command(command) => command.len(),
                Payload::Membership(membership) => membership.nodes.len() * MEMBER_BYTES,
            }
    }
}

/// Describes a snapshot, which replaces the log up to and including `last`; or a place in the log in the same words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// Last entry that the snapshot includes.
    pub last: LogId,
    /// The configuration in force at `last`.
    pub membership: Membership,
    /// Where that configuration stands in the log (≤ `last.index`).
    pub membership_index: Index,
}

/// Numbers what is handed to the log writer, from 1, without gaps, per run of the process. An index alone could name an
/// entry that has been replaced since ("append ABA").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchNo(pub u64);

/// Names a proposal of this process; chosen by the caller, unique per run of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProposalId(pub u64);

/// Names a linearizable read of this process; chosen by the caller, unique per run of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// Lets the runtime match an answer with the RPC that waits for it: a request's token is repeated by its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);
