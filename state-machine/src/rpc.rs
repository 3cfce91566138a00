//! The contract between raft and the program it replicates: [`StateMachineService`], its types and its limits.
//!
//! The machine serves, raft calls. One raft at a time feeds a machine: every connection begins with
//! [`attach`](StateMachineService::attach), and from then on the newest boot of that raft wins ([`AccessError::Fenced`]).
//! On the wire it is postcard, which is not self-describing: variants are only ever added at the end, and a released
//! struct never changes. Whatever changes raises [`CONTRACT_VERSION`].
//!
//! Indexes and terms are those of the Raft log; 0 stands for "nothing yet".

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tarpc::client::NewClient;
use thiserror::Error;
use tokio::task::JoinHandle;

use crate::entries::{BlobError, EntryBlob};
use crate::wire::{self, Endpoint, Hello, HelloError, Io, Refusal, Service};

/// Version of everything in this file and of the batch format. Both sides must speak the same one.
pub const CONTRACT_VERSION: u16 = 1;

/// The most [`apply`](StateMachineService::apply) calls that raft has in flight.
pub const MAX_APPLIES_IN_FLIGHT: usize = 4;

/// The largest piece of a snapshot in one call, in bytes (256 KiB).
pub const MAX_CHUNK_BYTES: usize = 256 << 10;

/// The largest query, and the largest answer to a command or a query, in bytes (2 MiB).
pub const MAX_RESULT_BYTES: usize = 2 << 20;

/// What raft asks of a machine. Every call has a deadline; a call that ran into it may have been carried out.
#[tarpc::service]
pub trait StateMachineService {
    /// Begins a connection: stores durably who feeds this machine, and answers where the machine stands.
    async fn attach(request: Attach) -> Result<Info, AttachError>;

    /// Applies committed entries in order. A batch that arrives before its predecessor waits for it a moment; entries at or
    /// below the applied index are skipped; only a real gap is refused. Calls on one connection may be pipelined.
    async fn apply(request: Apply) -> Result<Applied, ApplyError>;

    /// Answers a read from the state as it is after every batch that arrived before.
    async fn query(request: Query) -> Result<CommandResult, QueryError>;

    /// Pins the state as it is; applying goes on meanwhile. A pinned snapshot before it is let go; so is this one when the connection
    /// that began it ends, a newer boot attaches, a restore takes its place, or nobody reads it for five minutes. Use
    /// a connection of its own for it: a second one that attaches with the same boot disturbs nothing on the first.
    async fn begin_snapshot(request: BeginSnapshot) -> Result<SnapshotInfo, SnapshotError>;

    /// Reads the pinned snapshot from its start to its end, beside whatever is applied; the last piece may be asked for again.
    async fn read_snapshot(request: ReadSnapshot) -> Result<SnapshotChunk, SnapshotError>;

    /// Prepares an empty new place. A restore that was begun before is thrown away.
    async fn begin_restore(request: BeginRestore) -> Result<Restoring, RestoreError>;

    /// Adds the next piece; the answer tells how many bytes are there, so a repeated piece does no harm.
    async fn write_restore(request: WriteRestore) -> Result<Restoring, RestoreError>;

    /// Checks the whole and puts it in the place of the old state, durably and at once; on an error the old state stays.
    async fn finish_restore(request: FinishRestore) -> Result<Info, RestoreError>;

    /// Tells what happened around the machine. Only information: nothing that is applied may depend on it.
    async fn notify(request: Notify) -> Result<(), AccessError>;

    /// Asks whether a command makes sense before it is proposed. A machine may let everything pass.
    async fn validate(request: Validate) -> Result<Verdict, AccessError>;
}

/// Who wants to feed this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The caller's [`CONTRACT_VERSION`].
    pub contract: u16,
    /// The cluster; made when it was founded.
    pub cluster: u128,
    /// The node within the cluster; never 0.
    pub node: u64,
    /// Counts the starts of that node's raft; it only ever grows.
    pub boot: u64,
}

/// Who the machine is and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// What kind of machine it is, `kv` for example.
    pub name: String,
    /// The machine's own version.
    pub version: String,
    /// The machine's [`CONTRACT_VERSION`].
    pub contract: u16,
    /// Term of the entry at `applied_index`; 0 when nothing is applied.
    pub applied_term: u64,
    /// The newest applied entry; 0 when nothing is applied. The next batch starts one above.
    pub applied_index: u64,
    /// The newest entry that survives a power failure of the machine: at most `applied_index`. Raft keeps what is above.
    pub durable_index: u64,
    /// A digest of the state at `applied_index`, for machines that have one: equal on all nodes at the same index.
    pub digest: Option<[u8; 32]>,
    /// The machine would like a snapshot to be taken. A hint: when it happens is the caller's choice.
    pub wants_snapshot: bool,
}

/// A batch of committed entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply {
    /// The boot that the caller attached with.
    pub boot: u64,
    /// Index of the first entry, at least 1.
    pub first_index: u64,
    /// The entries, in order and without gaps.
    pub entries: EntryBlob,
}

/// The answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// As in the request.
    pub first_index: u64,
    /// One result for each entry, in order.
    pub results: Vec<CommandResult>,
    /// The newest entry that survives a power failure of the machine.
    pub durable_index: u64,
    /// As in [`Info`].
    pub wants_snapshot: bool,
}

/// What came of a command or a query. It is data and the same on every node; a machine that is broken answers with no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandResult {
    /// Done; the bytes are the machine's answer.
    Done(Bytes),
    /// Refused by the machine's own rules, changing nothing; the bytes say why, in UTF-8.
    Refused(Bytes),
    /// The entry is applied and there is no result here: it holds no command, it was applied before this batch came, or the results of
    /// its batch would not fit into one answer.
    Skipped,
}

/// A read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The boot that the caller attached with.
    pub boot: u64,
    /// The state must hold at least this entry.
    pub min_applied_index: u64,
    /// Opaque to everything but the machine.
    pub query: Bytes,
}

/// Asks for a snapshot of the present state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginSnapshot {
    /// The boot that the caller attached with.
    pub boot: u64,
}

/// A pinned snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Names it in [`ReadSnapshot`].
    pub snapshot: u64,
    /// Term of the entry at `applied_index`.
    pub applied_term: u64,
    /// The newest entry that the snapshot holds.
    pub applied_index: u64,
}

/// Asks for the next piece of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadSnapshot {
    /// The boot that the caller attached with.
    pub boot: u64,
    /// From [`SnapshotInfo`].
    pub snapshot: u64,
    /// Bytes read so far; the offset of the piece read last asks for that piece again.
    pub offset: u64,
}

/// A piece of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// Where the piece starts.
    pub offset: u64,
    /// At most [`MAX_CHUNK_BYTES`]; empty only as the last piece.
    pub bytes: Bytes,
    /// CRC32C of `bytes`.
    pub checksum: u32,
    /// True for the last piece.
    pub last: bool,
}

/// Begins to load a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginRestore {
    /// The boot that the caller attached with.
    pub boot: u64,
    /// Term of the entry at `applied_index`.
    pub applied_term: u64,
    /// The newest entry that the snapshot holds. The snapshot says the same, or it is refused at the end.
    pub applied_index: u64,
}

/// How far a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoring {
    /// Names it in [`WriteRestore`] and [`FinishRestore`].
    pub restore: u64,
    /// Bytes taken so far: the offset of the next piece.
    pub offset: u64,
}

/// The next piece of the snapshot to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteRestore {
    /// The boot that the caller attached with.
    pub boot: u64,
    /// From [`Restoring`].
    pub restore: u64,
    /// Where the piece starts.
    pub offset: u64,
    /// At most [`MAX_CHUNK_BYTES`].
    pub bytes: Bytes,
    /// CRC32C of `bytes`.
    pub checksum: u32,
}

/// Ends a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishRestore {
    /// The boot that the caller attached with.
    pub boot: u64,
    /// From [`Restoring`].
    pub restore: u64,
    /// Size of the whole snapshot in bytes.
    pub snapshot_bytes: u64,
}

/// Something that happened around the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// The boot that the caller attached with.
    pub boot: u64,
    /// What happened.
    pub notice: Notice,
}

/// What a machine is told, at most once each and perhaps late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// Another leader, or none.
    Leader {
        /// The present term.
        term: u64,
        /// The leader's node id, as far as it is known.
        leader: Option<u64>,
        /// True when this machine's own node leads.
        here: bool,
    },
    /// The committed membership changed.
    Membership {
        /// Index of the entry.
        index: u64,
        /// Node ids of the voters, ascending.
        voters: Vec<u64>,
        /// Node ids of the learners, ascending.
        learners: Vec<u64>,
    },
}

/// A command that somebody wants to propose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validate {
    /// The boot that the caller attached with.
    pub boot: u64,
    /// The command.
    pub command: Bytes,
}

/// A machine's word on a command that is not proposed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Go on.
    Accepted,
    /// It would be refused whenever it is applied; the text says why.
    Refused(String),
}

/// Why a call was turned away. Save for `Stopping`, the machine never saw it, and the same call may be made again after what
/// the error asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum AccessError {
    /// This connection did not attach, or with another boot than the call names. Attach first.
    #[error("this connection is not attached with that boot: attach first")]
    NotAttached,
    /// A newer start of the same raft feeds the machine; the caller is out of date for good.
    #[error("fenced: boot {newest} of this node feeds the machine now")]
    Fenced {
        /// The highest boot that attached.
        newest: u64,
    },
    /// The machine's queue is full. Wait for an answer, then send again.
    #[error("the machine's queue is full")]
    Busy,
    /// The process ends, by order or after a failure; what was asked for may have been done. Connect and attach again: the answer
    /// to `attach` tells.
    #[error("the machine is stopping")]
    Stopping,
}

/// Why a raft may not feed this machine.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum AttachError {
    /// The two sides speak different versions.
    #[error(
        "this machine speaks contract version {ours}, the caller {theirs}: upgrade the older one"
    )]
    Contract {
        /// The machine's.
        ours: u16,
        /// The caller's.
        theirs: u16,
    },
    /// The machine's data belong to another cluster.
    #[error(
        "this machine's data belong to cluster {ours:032x}, the caller is of cluster {theirs:032x}: give each its own data directory"
    )]
    ForeignCluster {
        /// The machine's.
        ours: u128,
        /// The caller's.
        theirs: u128,
    },
    /// The machine's data belong to another node of the cluster.
    #[error(
        "this machine's data belong to node {ours:016x}, the caller is node {theirs:016x}: give each its own data directory"
    )]
    ForeignNode {
        /// The machine's.
        ours: u64,
        /// The caller's.
        theirs: u64,
    },
    /// The machine holds applied entries and no record of whose they are.
    #[error(
        "this machine holds entries up to {applied_index} and no record of their cluster: its data directory is incomplete; empty it to have it rebuilt"
    )]
    NoRecord {
        /// The machine's newest entry.
        applied_index: u64,
    },
    /// Node 0 does not exist.
    #[error("node id 0 is not valid")]
    NoNode,
    /// A newer start of the same raft attached before.
    #[error("fenced: boot {newest} of this node attached before, this is boot {theirs}")]
    Fenced {
        /// The highest boot that attached.
        newest: u64,
        /// The caller's.
        theirs: u64,
    },
    /// Turned away at the door.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// Why a batch was not applied. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum ApplyError {
    /// Turned away at the door.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Entries are missing between the applied index and the batch, and they did not come while it waited.
    #[error("a gap in the log: the next entry is {expected}, the batch starts at {got}")]
    Gap {
        /// The entry after the applied index.
        expected: u64,
        /// Where the batch starts.
        got: u64,
    },
    /// The batch is not a sequence of whole records.
    #[error("malformed batch: {0}")]
    Malformed(#[from] BlobError),
    /// An index of 0, or one beyond the largest.
    #[error("no batch can start at index {first_index} and hold {entries} entries")]
    BadIndex {
        /// Where the batch starts.
        first_index: u64,
        /// Entries in it.
        entries: u64,
    },
}

/// Why a read was not answered.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum QueryError {
    /// Turned away at the door.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The state is older than asked for.
    #[error("the machine has applied {applied_index}, the query asks for {min_applied_index}")]
    Behind {
        /// The machine's newest entry.
        applied_index: u64,
        /// As in the request.
        min_applied_index: u64,
    },
    /// The query or its answer is over [`MAX_RESULT_BYTES`].
    #[error("{bytes} bytes are over the limit of {MAX_RESULT_BYTES} for a query or an answer")]
    TooLarge {
        /// Size of what is too large.
        bytes: u64,
    },
}

/// Why a snapshot cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum SnapshotError {
    /// Turned away at the door.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// There is no such snapshot, or no longer: begin again.
    #[error("no snapshot {snapshot} is pinned: begin again")]
    Unknown {
        /// As in the request.
        snapshot: u64,
    },
    /// The pieces are read in order.
    #[error("the next piece starts at byte {expected}, not at {got}")]
    BadOffset {
        /// Where the next piece starts.
        expected: u64,
        /// As in the request.
        got: u64,
    },
}

/// Why a restore did not go on. The old state is untouched.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum RestoreError {
    /// Turned away at the door.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// There is no such restore, or no longer: begin again.
    #[error("no restore {restore} is under way: begin again")]
    Unknown {
        /// As in the request.
        restore: u64,
    },
    /// The pieces come in order.
    #[error("the next piece starts at byte {expected}, not at {got}")]
    BadOffset {
        /// Bytes taken so far.
        expected: u64,
        /// As in the request.
        got: u64,
    },
    /// The piece does not match its checksum, or is over [`MAX_CHUNK_BYTES`]. Send it again.
    #[error("the piece at byte {offset} is damaged or too large: send it again")]
    BadChunk {
        /// Where the piece starts.
        offset: u64,
    },
    /// The snapshot as a whole is not one of this machine, or is damaged. The restore is thrown away.
    #[error("the snapshot is not valid: {reason}")]
    BadSnapshot {
        /// What is wrong with it.
        reason: String,
    },
    /// The snapshot is older than the machine's own state, which never goes back.
    #[error("the snapshot ends at {snapshot_index}, the machine has applied {applied_index}")]
    Behind {
        /// The newest entry of the snapshot.
        snapshot_index: u64,
        /// The machine's newest entry.
        applied_index: u64,
    },
    /// The snapshot cannot be stored beside the old state, for want of room most often. The restore is thrown away; the same one
    /// may be begun again when there is room.
    #[error("the snapshot cannot be stored: {reason}")]
    NoPlace {
        /// What the storage said.
        reason: String,
    },
}

/// A connection to a machine.
#[derive(Debug)]
pub struct Connection {
    /// To call it by.
    pub client: StateMachineServiceClient,
    /// Ends when the connection does, whether or not a call is under way.
    pub closed: JoinHandle<()>,
}

/// Connects to a machine as raft and says hello; [`attach`](StateMachineService::attach) is the caller's next step.
///
/// The machine introduces itself without cluster and node: whose data it holds is told by its answer to `attach`, where a
/// foreign caller learns more than a hello can say. A connection that broke does not come back: every later call fails, and
/// the caller connects again.
///
/// # Errors
/// [`HelloError`]; nothing was asked of the machine.
pub async fn connect(
    endpoint: &Endpoint,
    cluster: u128,
    node: u64,
    boot: u64,
    limit: Duration,
) -> Result<Connection, HelloError> {
    let mut io = endpoint.connect(limit).await?;
    Hello::new(Service::StateMachine, cluster, node, boot).open(&mut io).await?;
    let transport = wire::client_transport(io);
    let NewClient { client, dispatch } =
        StateMachineServiceClient::new(tarpc::client::Config::default(), transport);
    // Why it ended reaches every call that waits.
    let closed = tokio::spawn(async move { drop(dispatch.await) });
    Ok(Connection { client, closed })
}

/// Says hello on an accepted connection and serves it until the caller closes it or dies. With `room` false it is refused as one
/// too many.
///
/// # Errors
/// [`ServeError`]: why it was refused, or why it ended before its caller wanted.
pub async fn serve<S>(mut io: Io, room: bool, service: S) -> Result<(), ServeError>
where
    S: StateMachineService + Clone,
{
    let judge = |_: &Hello| if room { Ok(()) } else { Err(Refusal::Busy) };
    Hello::new(Service::StateMachine, 0, 0, 0).answer(&mut io, judge).await?;
    let end = wire::serve_connection(io, service.serve()).await;
    if wire::closed_by_other_end(&end) { Ok(()) } else { Ok(end?) }
}

/// Why a connection ended before its caller closed it.
#[derive(Debug, Error)]
pub enum ServeError {
    /// At its hello.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// Later: a malformed or oversized frame, or the connection broke.
    #[error("connection failed: {0}")]
    Connection(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_travels_as_one_byte_string() {
        let request = Apply {
            boot: 1,
            first_index: 2,
            entries: EntryBlob::from_bytes(Bytes::from_static(b"abc")),
        };
        assert_eq!(postcard::to_stdvec(&request).unwrap(), [1, 2, 3, b'a', b'b', b'c']);
        let back: Apply = postcard::from_bytes(&[1, 2, 3, b'a', b'b', b'c']).unwrap();
        assert_eq!(back, request);
    }

    #[test]
    fn messages_say_whose_data_it_is() {
        let error = AttachError::ForeignNode { ours: 0xa1, theirs: 0xb2 };
        assert_eq!(
            error.to_string(),
            "this machine's data belong to node 00000000000000a1, the caller is node 00000000000000b2: give each its own data directory"
        );
    }
}
