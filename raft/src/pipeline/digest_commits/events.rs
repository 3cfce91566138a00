//! What the second stage hears and says.

use std::sync::Arc;

use bytes::Bytes;
use state_machine::entries::EntryBlob;
use state_machine::rpc::CommandResult;

use super::super::{FromCommits, Reply, ToCommits};
use crate::consensus::{Index, LogId, SnapshotMeta};
use crate::session::Image;

/// What can happen to this stage.
#[derive(Debug)]
pub enum CommitsEvent {
    /// From the first stage.
    FromEntries(ToCommits),
    /// From the link to the state machine.
    Machine(MachineEvent),
    /// Somebody takes a snapshot and wants the session table for it.
    Capture(Capture),
}

/// A wish for the session table.
#[derive(Debug)]
pub struct Capture {
    /// The machine's snapshot ends here: the table must be at least as new.
    pub at_least: Index,
    /// Gets it, as soon as it is.
    pub reply: Reply<Result<Image, CaptureRefused>>,
}

/// Why there is no session table for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureRefused {
    /// The machine is ahead of what is committed here, and that did not change in time.
    #[error(
        "only entries up to {folded} have passed in time, the machine's snapshot ends at {at_least}"
    )]
    Late {
        /// How far the table is.
        folded: Index,
        /// How far it must be.
        at_least: Index,
    },
    /// Another wish came: one snapshot is taken at a time.
    #[error("another snapshot was begun")]
    Superseded,
}

/// What the link to the state machine tells.
#[derive(Debug)]
pub enum MachineEvent {
    /// A state machine is there and has applied this much.
    Attached {
        /// Counts attachments: calls meant for another one are not carried out.
        attachment: u64,
        /// Its newest applied entry; zeros when there is none.
        applied: LogId,
    },
    /// It is gone, hung or refuses us; the link goes on trying.
    Detached {
        /// Why, for people.
        reason: String,
    },
    /// The oldest batch in flight is applied.
    Applied {
        /// One for each of its entries.
        results: Vec<CommandResult>,
    },
    /// A query is answered.
    Answered {
        /// Which.
        query: u64,
        /// The machine's word.
        result: CommandResult,
    },
    /// It has loaded the snapshot that it was given.
    Restored {
        /// The snapshot's last entry.
        applied: LogId,
    },
}

/// What the link to the state machine is to do, under one attachment.
#[derive(Debug, PartialEq, Eq)]
pub struct MachineCall {
    /// Which attachment it is meant for.
    pub attachment: u64,
    /// What to do.
    pub task: MachineTask,
}

/// What is asked of a state machine.
#[derive(Debug, PartialEq, Eq)]
pub enum MachineTask {
    /// Apply a batch; batches are answered in order.
    Apply {
        /// Index of its first entry.
        first: Index,
        /// The entries.
        entries: EntryBlob,
    },
    /// Answer a query.
    Query {
        /// Names it in the answer.
        query: u64,
        /// The state must hold everything up to here.
        read_index: Index,
        /// The query.
        bytes: Bytes,
    },
    /// Load this snapshot of ours; no batch is in flight, and none is sent before the answer.
    Restore(SnapshotMeta),
    /// This state machine must not be used: let go of it, and try again later.
    Refuse(String),
}

/// What to do, in this order.
#[derive(Debug, Default)]
pub struct CommitsActions {
    /// For the link to the state machine.
    pub calls: Vec<MachineCall>,
    /// For the first stage.
    pub to_entries: Vec<FromCommits>,
}

/// What others may know of this stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitsStatus {
    /// Highest applied index.
    pub applied: Index,
    /// `attached`, or why not.
    pub machine: Arc<str>,
}

pub(super) const ATTACHED: &str = "attached";

impl CommitsStatus {
    /// Whether the state machine is at hand.
    pub fn is_attached(&self) -> bool {
        &*self.machine == ATTACHED
    }
}
