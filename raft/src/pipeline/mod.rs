//! The two stages that every command passes, forward only, each the single owner of one thing.
//!
//! ```text
//!  clients ──┐                       ┌─▶ log thread ── Synced ───┐
//!  peers   ──┼─▶ digest_entries ─────┤                           ├─▶ back in as events
//!  ticks   ──┘   owns the core and   ├─▶ peers ── their answers ─┘
//!                the waiting callers └─▶ digest_commits ═══▶ state machine
//!                                        owns the session table; answers the callers
//! ```
//!
//! Both stages are plain structs: an event in, actions out. They await nothing, so the simulator can run the same code
//! as production; the tasks around them are in [`crate::tasks`].

pub mod digest_commits;
pub mod digest_entries;
mod feed;
pub mod handover;
mod outbox;
pub mod pending;
mod turns;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::consensus::{Entry, Index, LogId, NodeId, SnapshotMeta};
use crate::rpc::client::{Answer, Outcome};
use crate::session::Image;
use pending::Waiting;

/// A handle that answers one caller. It travels with the request and is used once.
pub type Reply<T> = oneshot::Sender<T>;

/// What a command's caller gets: where the command stands, and the state machine's word.
pub type SubmitOutcome = Result<(Index, Outcome), SubmitRefused>;

/// What a reader gets.
pub type QueryOutcome = Result<Answer, QueryRefused>;

/// Why a command has no result; the contract's words are in [`crate::rpc::client::SubmitError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitRefused {
    /// Surely not applied.
    NotLeader {
        /// Who may lead.
        leader: Option<NodeId>,
    },
    /// Surely not applied.
    Busy,
    /// Surely not applied: leadership is being handed over, which is over soon.
    NotReady,
    /// Surely not applied by this attempt.
    SessionExpired,
    /// Surely not applied.
    OutsideWindow,
    /// Not applied by this attempt.
    AlreadyAcknowledged,
    /// Will be applied.
    CommittedNotApplied {
        /// Where it stands.
        index: Index,
    },
    /// May be applied.
    Unknown {
        /// Why that is not known.
        reason: String,
    },
}

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryRefused {
    /// Ask the leader.
    NotLeader {
        /// Who may lead.
        leader: Option<NodeId>,
    },
    /// Too many wait.
    Busy,
    /// Not in time.
    Unavailable {
        /// For this reason.
        reason: String,
    },
}

/// Counts callers through both stages: each carries a [`Ticket`] until it is answered.
#[derive(Debug, Default)]
pub struct Tickets(Arc<()>);

/// One caller that waits.
#[derive(Debug, Default)]
pub struct Ticket {
    _counted: Arc<()>,
}

impl Tickets {
    /// Counts one more caller.
    pub fn issue(&self) -> Ticket {
        Ticket { _counted: Arc::clone(&self.0) }
    }

    /// Callers that wait.
    pub fn outstanding(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// A linearizable read and its caller.
#[derive(Debug)]
pub struct Read {
    /// Opaque.
    pub query: Bytes,
    /// Whom to answer.
    pub reply: Reply<QueryOutcome>,
    /// Tick at which the caller is told that there is no answer.
    pub expires: u64,
    /// Counts it as waiting until it is answered.
    pub ticket: Ticket,
}

impl Read {
    /// Answers. A caller that is gone by now does not mind.
    pub fn answer(self, outcome: QueryOutcome) {
        drop(self.reply.send(outcome));
    }
}

/// A committed, durable entry and the caller that waits for it here.
#[derive(Debug)]
pub struct Committed {
    /// The entry.
    pub entry: Entry,
    /// Its caller, if it came in here.
    pub waiting: Option<Waiting>,
}

/// From `digest_entries` to `digest_commits`, in this order.
#[derive(Debug)]
pub enum ToCommits {
    /// Consecutive committed entries.
    Committed(Vec<Committed>),
    /// The state machine's place in the log is right: what follows starts there, even if it was sent before.
    FeedStarted {
        /// Which attachment.
        attachment: u64,
    },
    /// The state machine cannot belong to this log.
    MachineRefused {
        /// Which attachment.
        attachment: u64,
        /// For people.
        reason: String,
    },
    /// The state machine lacks entries that the log no longer holds: it has to load this snapshot first.
    MachineBehind {
        /// Which attachment.
        attachment: u64,
        /// The newest snapshot that we hold.
        snapshot: SnapshotMeta,
    },
    /// A snapshot from the leader has replaced the log up to its last entry; what follows starts right after it.
    Install {
        /// The snapshot.
        meta: SnapshotMeta,
        /// The session table that came with it, which may be of a later entry than the machine's part.
        image: Box<Image>,
        /// Callers whose entries stood where the snapshot stands now.
        callers: Vec<Waiting>,
    },
    /// The log no longer holds the entries up to here: no state machine will be fed them.
    Compacted(Index),
    /// A read that may be answered once `read_index` is applied.
    Query {
        /// The state must hold everything up to here.
        read_index: Index,
        /// The read.
        read: Read,
    },
    /// A tick of time has passed.
    Tick(u64),
}

/// From `digest_commits` back to `digest_entries`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromCommits {
    /// Entries up to here have left the queue between the stages: there is room for more.
    Taken(Index),
    /// The state machine has applied everything up to here.
    Applied(Index),
    /// A state machine that has applied this much is there; it wants to be fed from `from`.
    Attach {
        /// Repeated in the answer: another machine may have come meanwhile.
        attachment: u64,
        /// Its newest applied entry; zeros when there is none.
        applied: LogId,
        /// First entry that is wanted: what the machine lacks, or what was not yet looked at.
        from: Index,
    },
}
