//! The contract between rafts. The caller's node id and boot counter come from the connection's hello.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tarpc::client::NewClient;
use tokio::task::JoinHandle;

use super::client::{Answer, ConnectError, Outcome, QueryError, SessionChange, SubmitError};
use super::operation::{Operated, Operation, OperationError};
use super::wire::{self, Endpoint, Hello, Io};
use crate::consensus::{
    AppendResponse, LogId, SnapshotMeta, SnapshotResponse, Term, VoteRequest, VoteResponse,
};

/// What rafts do for each other (paper Figure 2).
#[tarpc::service]
pub trait PeerService {
    /// Replicates entries; without entries, a heartbeat. Answered once what it acknowledges is durable.
    async fn append_entries(request: AppendEntries) -> AppendReply;
    /// "Would you vote for me?" (thesis §9.6).
    async fn pre_vote(request: Ballot) -> BallotReply;
    /// Asks for a vote; a granted one is durable.
    async fn request_vote(request: Ballot) -> BallotReply;
    /// Leadership transfer: campaign at once (thesis §3.10).
    async fn timeout_now(term: Term) -> ();
    /// Requests that reached a node which they do not belong to. Answered as soon as one of them has an answer, with all
    /// that have one by then, so that the slowest does not hold the others up; the rest is asked for by `forward_rest`.
    async fn forward(batch: Vec<Forward>) -> Answers;
    /// More answers to a batch.
    async fn forward_rest(ticket: u64) -> Answers;
    /// Offers a snapshot to a node that is behind the log. Answers how many bytes of it are there already.
    async fn offer_snapshot(offer: SnapshotOffer) -> Result<u64, SnapshotRefusal>;
    /// Brings the next piece of it. Answers how many bytes are there now, so a repeated piece does no harm; with the last one the
    /// whole is durable.
    async fn write_snapshot(piece: SnapshotPiece) -> Result<u64, SnapshotRefusal>;
    /// Installs the snapshot that has arrived (paper Figure 13).
    async fn install_snapshot(request: InstallSnapshot) -> InstallReply;
}

/// A snapshot that the sender holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotOffer {
    /// Leader's term.
    pub term: Term,
    /// Names the very file: what is there of another one is of no use.
    pub id: u128,
    /// What it replaces.
    pub meta: SnapshotMeta,
    /// Size of the file.
    pub bytes: u64,
}

/// A piece of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPiece {
    /// From the offer.
    pub term: Term,
    /// From the offer.
    pub id: u128,
    /// Where the piece starts in the file.
    pub offset: u64,
    /// The piece; what it holds is checked by the file's own checksums.
    pub bytes: Bytes,
}

/// Why a snapshot, or a piece of it, is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum SnapshotRefusal {
    /// Another transfer has begun since, by this or another leader.
    #[error("another transfer has taken its place")]
    Superseded,
    /// The piece does not start where the last one ended.
    #[error("{have} bytes are there, the piece starts at {got}")]
    WrongOffset {
        /// Bytes that are there.
        have: u64,
        /// As in the request.
        got: u64,
    },
    /// What has arrived is not what was offered; it was thrown away.
    #[error("thrown away: {reason}")]
    Bad {
        /// What is wrong, and where.
        reason: String,
    },
    /// It cannot be stored, now.
    #[error("cannot be stored: {reason}")]
    Storage {
        /// What the system says.
        reason: String,
    },
    /// There is no space for it, and there will not be any at once.
    #[error("no room: {reason}")]
    NoRoom {
        /// What is needed, and what there is.
        reason: String,
    },
}

/// Arguments of `install_snapshot`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallSnapshot {
    /// Leader's term.
    pub term: Term,
    /// The snapshot that has arrived.
    pub meta: SnapshotMeta,
}

/// Answer to `install_snapshot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallReply {
    /// Answerer's term.
    pub term: Term,
    /// Outcome.
    pub response: SnapshotResponse,
}

/// What a node wants of the leader about taking a snapshot of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TurnRequest {
    /// A turn.
    Wanted,
    /// To go on with the turn that it has.
    Held,
    /// Nothing more.
    Over,
}

/// Arguments of `append_entries`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendEntries {
    /// Leader's term.
    pub term: Term,
    /// Entry before the first one here.
    pub prev: LogId,
    /// Leader's commit index.
    pub commit_index: u64,
    /// Round of the leader's reads.
    pub read_seq: u64,
    /// Entries, encoded by [`crate::entries`].
    pub entries: Bytes,
}

/// Answer to `append_entries`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendReply {
    /// Answerer's term.
    pub term: Term,
    /// Outcome.
    pub response: AppendResponse,
}

/// Arguments of both votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// Candidate's term; a pre-vote asks for the one after it.
    pub term: Term,
    /// The rest.
    pub request: VoteRequest,
}

/// Answer to both votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BallotReply {
    /// Answerer's term.
    pub term: Term,
    /// The verdict.
    pub response: VoteResponse,
}

/// Something to do at the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forward {
    /// A command.
    Submit {
        /// Session, or zero.
        session: u64,
        /// Sequence number.
        sequence: u64,
        /// Answers below are known.
        acked_below: u64,
        /// Opaque.
        command: Bytes,
        /// Time that is left to answer, in milliseconds.
        remaining_ms: u32,
    },
    /// A new session.
    OpenSession {
        /// Time that is left to answer, in milliseconds.
        remaining_ms: u32,
        /// How long it shall live unused, in milliseconds; zero = the default.
        ttl_ms: u64,
    },
    /// A read.
    Query {
        /// Opaque.
        query: Bytes,
        /// Time that is left to answer, in milliseconds.
        remaining_ms: u32,
    },
    /// An operator's wish.
    Operate {
        /// The wish.
        operation: Operation,
        /// Time that is left to answer, in milliseconds.
        remaining_ms: u32,
    },
    /// The sender wants to leave: answered at once, and to be repeated for as long as it wants to.
    Leave,
    /// The sender wants to take a snapshot: answered at once.
    SnapshotTurn(TurnRequest),
    /// A session that is to be renewed or closed.
    ChangeSession {
        /// The session.
        session: u64,
        /// What to do with it.
        change: SessionChange,
        /// Time that is left to answer, in milliseconds.
        remaining_ms: u32,
    },
}

/// Answers to some requests of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Places of the answered requests in the batch, from zero.
    pub places: Vec<u32>,
    /// Their answers.
    pub outcomes: Vec<Forwarded>,
    /// Names those that have no answer yet; none when that is all, or when they are lost.
    pub rest: Option<u64>,
}

/// The leader's word to a node that wants to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaveAnswer {
    /// It is out: the configuration at this index, which is committed, does not name it.
    Out {
        /// Where that configuration stands in the log.
        index: u64,
    },
    /// It will be taken out as soon as may be, if it goes on asking.
    Pending,
    /// It keeps its seat, and waiting alone will not change that.
    Refused {
        /// For people.
        reason: String,
    },
}

/// Answer to a [`Forward`] of the same kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forwarded {
    /// To a command, a new session or a change of one: its index (a session's number is its index).
    Submit(Result<(u64, Outcome), SubmitError>),
    /// To a read.
    Query(Result<Answer, QueryError>),
    /// To a wish.
    Operate(Result<Operated, OperationError>),
    /// To a node that wants to leave.
    Leave(Result<LeaveAnswer, OperationError>),
    /// To a node that wants to take a snapshot: whether it may.
    SnapshotTurn(Result<bool, OperationError>),
}

/// A connection to a peer.
#[derive(Debug)]
pub struct Connection {
    /// To call it by.
    pub client: PeerServiceClient,
    /// What the peer said of itself.
    pub theirs: Hello,
    /// Ends when the connection does.
    pub closed: JoinHandle<()>,
}

/// Connects to a peer. Must be called within a tokio runtime: the connection is driven by a task.
///
/// # Errors
/// Nothing was sent but the hello.
pub async fn connect(
    endpoint: &Endpoint,
    hello: Hello,
    limit: Duration,
) -> Result<Connection, ConnectError> {
    let mut io = endpoint
        .connect(limit)
        .await
        .map_err(|source| ConnectError::Io { endpoint: endpoint.clone(), source })?;
    let theirs = hello
        .open(&mut io)
        .await
        .map_err(|source| ConnectError::Hello { endpoint: endpoint.clone(), source })?;
    let NewClient { client, dispatch } =
        PeerServiceClient::new(tarpc::client::Config::default(), wire::client_transport(io));
    // Why it ended reaches every call that waits.
    let closed = tokio::spawn(async move { drop(dispatch.await) });
    Ok(Connection { client, theirs, closed })
}

/// Serves one peer connection whose hellos are done.
///
/// # Errors
/// Why it ended, if not by an orderly close.
pub async fn serve<S: PeerService + Clone>(io: Io, service: S) -> io::Result<()> {
    wire::serve_connection(io, service.serve()).await
}
