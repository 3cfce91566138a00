//! The contract for clients: submit (write), query (read), sessions, status.
//!
//! Every answer says whether the command may have happened. *Refused* means surely not applied; *unknown* means that
//! it may have been, or may still be; a retry under the same session and sequence number never applies twice.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tarpc::client::NewClient;

use super::operation::{Operate, Operated, OperationError};
use super::wire::{self, Endpoint, Hello, HelloError, Io, Service};

/// Most bytes of one command or query, without its header.
pub const MAX_COMMAND_BYTES: usize = 1024 * 1024;
/// Sequence numbers that a session may have open at once: from `acked_below` to `acked_below + SESSION_WINDOW`, exclusive.
pub const SESSION_WINDOW: u64 = 1024;

/// What a raft process does for clients. All calls may be made to any node.
#[tarpc::service]
pub trait ClientService {
    /// Opens a session: its number makes retries safe. Costs one log entry. A session lives until it was not used for its
    /// time to live, or is the least recently used of too many.
    async fn open_session(request: OpenSession) -> Result<SessionOpened, SubmitError>;
    /// Appends a command and waits until it is applied on the node that led when it was committed.
    async fn submit(request: Submit) -> Result<Submitted, SubmitError>;
    /// Linearizable read: sees every command that was answered before the query was sent.
    async fn query(request: Query) -> Result<Answer, QueryError>;
    /// What this node knows of itself and the cluster. Never waits for others.
    async fn status() -> NodeStatus;
    /// Members as gossip sees them, joined with the configuration. Never waits for others.
    async fn members() -> Vec<MemberStatus>;
    /// Fulfils an operator's wish, as far as it can be, and waits for what came of it.
    async fn operate(request: Operate) -> Result<Operated, OperationError>;
    /// Tells what this raft process logs, and changes it first if a filter is given: until the process ends, or reads its
    /// settings again. The error says why the filter cannot be used; then nothing was changed.
    async fn log_filter(filter: Option<String>) -> Result<LogFilter, String>;
    /// Renews or closes a session. Costs one log entry. May be repeated: closing one that is closed is no error.
    async fn change_session(request: ChangeSession) -> Result<(), SubmitError>;
}

/// Asks for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Whether a node that does not lead passes the request on; otherwise it answers [`SubmitError::NotLeader`].
    pub forward: bool,
    /// How long it shall live unused, in milliseconds by the stamps of the log's commands; zero = an hour.
    pub ttl_ms: u64,
}

/// A fresh session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpened {
    /// Its number; never used again.
    pub session: u64,
    /// How long it lives unused, in milliseconds: what was asked for, but a day at most.
    pub ttl_ms: u64,
}

/// What to do with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionChange {
    /// Counts as a use, as a command would: it lives on for its time to live.
    Renew,
    /// Ends it: no command is taken under its number any more. What was submitted under it has to be settled before.
    Close,
}

/// Renews or closes a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeSession {
    /// From [`SessionOpened`].
    pub session: u64,
    /// What to do.
    pub change: SessionChange,
    /// Whether a node that does not lead passes the request on; otherwise it answers [`SubmitError::NotLeader`].
    pub forward: bool,
}

/// A command with what makes its retry safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submit {
    /// From [`SessionOpened`]; zero = no session, so a retry may apply twice.
    pub session: u64,
    /// Chosen by the client, each number for one command; from 1.
    pub sequence: u64,
    /// The client has the answers of all commands with a lower sequence number: their results may be forgotten.
    pub acked_below: u64,
    /// Opaque, at most [`MAX_COMMAND_BYTES`].
    pub command: Bytes,
    /// Whether a node that does not lead passes the command on (one hop).
    pub forward: bool,
}

/// The command is applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// Where it stands in the log. For a repeated command, where it stood first.
    pub index: u64,
    /// What the state machine said.
    pub outcome: Outcome,
}

/// The state machine's word on a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done; the result is the machine's.
    Done(Bytes),
    /// The machine's rules refused it (a counter that is no number); the text is the machine's. Nothing was changed.
    Refused(Bytes),
    /// It was applied before, under this session and number, and its result is no longer kept.
    AlreadyApplied,
}

/// Where to ask instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderHint {
    /// The leader's node id.
    pub node: u64,
    /// `host:port` of its raft port.
    pub address: String,
}

impl LeaderHint {
    /// As JSON, with the id in hexadecimal.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "id": format!("{:016x}", self.node), "address": self.address })
    }
}

/// Why a submit has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum SubmitError {
    /// Surely not applied: this node does not lead (and could not pass the command on).
    #[error("not the leader{}", hint.as_ref().map(|h| format!("; the leader is at {}", h.address)).unwrap_or_default())]
    NotLeader {
        /// Where to ask, if known.
        hint: Option<LeaderHint>,
    },
    /// Surely not applied: too much is under way.
    #[error("busy: too many commands under way; try again")]
    Busy,
    /// Surely not applied: the command is longer than the limit.
    #[error("command of {bytes} bytes is longer than the limit of {limit} bytes")]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// [`MAX_COMMAND_BYTES`].
        limit: u64,
    },
    /// Surely not applied *by this attempt*: the session is not known (any more).
    #[error(
        "session {session} is unknown or expired: whether an earlier attempt was applied can no longer be told"
    )]
    SessionExpired {
        /// The session.
        session: u64,
    },
    /// Surely not applied: the number is not within [`SESSION_WINDOW`] of `acked_below`.
    #[error("sequence number {sequence} is outside of the session's window")]
    OutsideWindow {
        /// The number.
        sequence: u64,
    },
    /// Not applied by this attempt: the client itself said that it has this command's answer.
    #[error("sequence number {sequence} was declared answered before")]
    AlreadyAcknowledged {
        /// The number.
        sequence: u64,
    },
    /// It is in the log for good, and will be applied; the state machine did not answer in time.
    #[error("committed at index {index}, but not yet applied: the state machine does not answer")]
    CommittedNotApplied {
        /// Where.
        index: u64,
    },
    /// It may have been applied, or may be later.
    #[error("unknown whether it was applied: {reason}")]
    Unknown {
        /// What went wrong.
        reason: String,
    },
}

/// A read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Opaque, at most [`MAX_COMMAND_BYTES`].
    pub query: Bytes,
    /// Whether a node that does not lead passes the query on (one hop).
    pub forward: bool,
}

/// The state machine's answer to a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The answer holds all commands up to here, maybe more.
    pub read_index: u64,
    /// `Done` or `Refused`; never `AlreadyApplied`.
    pub outcome: Outcome,
}

/// Why a query has no answer. A query changes nothing, so it may always be asked again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum QueryError {
    /// This node does not lead (and could not pass the query on).
    #[error("not the leader{}", hint.as_ref().map(|h| format!("; the leader is at {}", h.address)).unwrap_or_default())]
    NotLeader {
        /// Where to ask, if known.
        hint: Option<LeaderHint>,
    },
    /// Too much is under way.
    #[error("busy: too many queries under way; try again")]
    Busy,
    /// The query is longer than the limit.
    #[error("query of {bytes} bytes is longer than the limit of {limit} bytes")]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// [`MAX_COMMAND_BYTES`].
        limit: u64,
    },
    /// No answer in time, for this reason.
    #[error("no answer: {reason}")]
    Unavailable {
        /// What went wrong.
        reason: String,
    },
}

/// A node's view of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Human name.
    pub name: String,
    /// Node id, 16 hexadecimal digits.
    pub id: String,
    /// Cluster id, 32 hexadecimal digits; none before the node belongs to one.
    pub cluster: Option<String>,
    /// `follower`, `pre-candidate`, `candidate`, `leader` or `learner`.
    pub role: String,
    /// Process id.
    pub pid: u32,
    /// Boot counter of the data directory.
    pub boot: u64,
    /// Current term.
    pub term: u64,
    /// Whom this node believes to lead.
    pub leader: Option<LeaderHint>,
    /// Highest committed index known here.
    pub commit_index: u64,
    /// Highest index that the local state machine has applied.
    pub applied_index: u64,
    /// End of the log.
    pub last_index: u64,
    /// Voters of the configuration in force, ids in hexadecimal.
    pub voters: Vec<String>,
    /// Voters that a joint change is about to replace.
    pub outgoing: Vec<String>,
    /// Learners.
    pub learners: Vec<String>,
    /// Whether that configuration is committed.
    pub membership_committed: bool,
    /// `attached` or why the state machine is not.
    pub state_machine: String,
    /// `connected` or why the member daemon is not.
    pub member: String,
    /// False under `--unsafe-no-fsync`: then an acknowledged write may be lost.
    pub fsync: bool,
    /// Program version.
    pub version: String,
    /// `host:port` of its HTTP port.
    pub http_address: String,
    /// First entry that its log holds.
    pub first_index: u64,
    /// Last entry of its newest snapshot; zero without one.
    pub snapshot_index: u64,
    /// Size of that snapshot's file.
    pub snapshot_bytes: u64,
    /// Size of the log's files.
    pub log_bytes: u64,
}

impl NodeStatus {
    /// As JSON: its fields by name, every id in hexadecimal.
    pub fn to_json(&self) -> serde_json::Value {
        let mut value = serde_json::json!(self);
        if let Some(leader) = &self.leader {
            value["leader"] = leader.to_json();
        }
        value
    }
}

/// One node, as gossip and the configuration see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Human name.
    pub name: String,
    /// Node id, 16 hexadecimal digits; empty while its raft has not registered.
    pub id: String,
    /// `alive`, `suspect`, `dead`, `left`, or `unseen` when only the configuration knows it.
    pub state: String,
    /// `voter`, `outgoing`, `learner`, or `none` when only gossip knows it.
    pub configured: String,
    /// `host:port` of its raft port.
    pub raft_address: String,
    /// `host:port` of its gossip port; empty when unseen.
    pub gossip_address: String,
    /// `host:port` of its HTTP port.
    pub http_address: String,
}

/// What a process logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFilter {
    /// Human name of the node.
    pub node: String,
    /// A level, and levels of modules, as `--log` takes them.
    pub filter: String,
}

/// Why a client has no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("cannot connect to {endpoint}: {source}")]
    Io {
        /// Where.
        endpoint: Endpoint,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody answers, but not as wished.
    #[error("{endpoint}: {source}")]
    Hello {
        /// Where.
        endpoint: Endpoint,
        /// What was wrong.
        source: HelloError,
    },
}

/// Connects to a raft process as a client. `cluster` pins the cluster id; zero takes any. Returns what the node says
/// of itself, too. Must be called within a tokio runtime: the connection is driven by a task.
///
/// # Errors
/// Nothing was sent but the hello.
pub async fn connect(
    endpoint: &Endpoint,
    cluster: u128,
    limit: Duration,
) -> Result<(ClientServiceClient, Hello), ConnectError> {
    let mut io = endpoint
        .connect(limit)
        .await
        .map_err(|source| ConnectError::Io { endpoint: endpoint.clone(), source })?;
    let theirs = Hello::new(Service::Client, cluster, 0, 0)
        .open(&mut io)
        .await
        .map_err(|source| ConnectError::Hello { endpoint: endpoint.clone(), source })?;
    let NewClient { client, dispatch } =
        ClientServiceClient::new(tarpc::client::Config::default(), wire::client_transport(io));
    // The task ends with the connection; why it ended reaches every call that waits.
    tokio::spawn(async move { drop(dispatch.await) });
    Ok((client, theirs))
}

/// Serves one client connection whose hellos are done.
///
/// # Errors
/// Why it ended, if not by an orderly close.
pub async fn serve<S: ClientService + Clone>(io: Io, service: S) -> io::Result<()> {
    wire::serve_connection(io, service.serve()).await
}
