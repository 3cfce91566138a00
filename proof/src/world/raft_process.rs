//! One run of raft: both stages, the log, the snapshots, and what the tasks around them remember.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft::consensus::{Envelope, Membership, NodeId, Token};
use raft::metrics::Metrics;
use raft::pipeline::digest_commits::{CommitsEvent, DigestCommits};
use raft::pipeline::digest_entries::{DigestEntries, EntriesEvent};
use raft::pipeline::handover::HandoverOutcome;
use raft::shelf::Shelf;
use raft::snapshot::Store;
use raft::tasks::{LogFailure, Synced};
use raft::wal::{Request, Worker};
use tokio::sync::{mpsc, oneshot, watch};

use super::callers::{Caller, Whom};
use super::event::Call;
use super::keeper::Keeping;
use super::link::Link;
use super::receiving::Reception;
use super::sending::Sending;
use super::shadow::Shadow;

/// A peer's question and where its answer goes.
pub struct Asked {
    /// From which machine.
    pub slot: usize,
    /// Of which start of the process there.
    pub start: u64,
    /// What the asker calls it.
    pub token: Token,
    /// Of a snapshot's transfer: which attempt.
    pub install: Option<u64>,
    /// The answer, when it is there.
    pub answer: oneshot::Receiver<Envelope>,
}

/// The log's thread, as far as a world without threads has one.
pub struct Log {
    /// Owns the log.
    pub worker: Worker,
    /// Handed over, not begun.
    pub waiting: Vec<Request>,
    /// Being written and synced.
    pub under_way: Vec<Request>,
    /// What it reads and says.
    pub said: mpsc::Receiver<EntriesEvent>,
    /// What it has made durable.
    pub synced: watch::Receiver<Synced>,
    /// Why it has ended.
    pub failures: mpsc::Receiver<LogFailure>,
}

/// The process.
pub struct RaftProcess {
    /// First stage.
    pub entries: DigestEntries,
    /// Its events.
    pub inbox: Vec<EntriesEvent>,
    /// Whether it is about to wake.
    pub is_awake: bool,
    /// Second stage.
    pub commits: DigestCommits,
    /// Its events.
    pub commits_inbox: Vec<CommitsEvent>,
    /// Whether it is about to wake.
    pub commits_awake: bool,
    /// The log.
    pub log: Log,
    /// The log as it will be when all that was handed over is durable.
    pub planned: Shadow,
    /// The configuration in force.
    pub membership: Arc<Membership>,
    /// Who leads, as this process knows.
    pub leader: Option<NodeId>,
    /// Snapshots.
    pub store: Store,
    /// The same, for reading.
    pub shelf: Shelf,
    /// What is counted; some tasks decide by it.
    pub metrics: Arc<Metrics>,
    /// Peers that wait for answers.
    pub asked: Vec<Asked>,
    /// Others that do.
    pub callers: Vec<Caller>,
    /// Requests that were passed on.
    pub forwarded: BTreeMap<u64, (Whom, Call)>,
    /// Numbers them.
    pub last_forward: u64,
    /// The link to the state machine.
    pub link: Link,
    /// A snapshot that is being taken.
    pub keeping: Keeping,
    /// Snapshots on their way to peers.
    pub sendings: BTreeMap<NodeId, Sending>,
    /// One that arrives.
    pub reception: Option<Reception>,
    /// Operators who wait for leadership to move.
    pub handovers: Vec<oneshot::Receiver<HandoverOutcome>>,
    /// Whether this node wants to leave.
    pub leaves: bool,
    /// What gossip was told, and the view that was read last.
    pub told: Option<(u64, Option<u128>, bool)>,
    /// Version of that view.
    pub seen: u64,
}
