//! What operators want of nodes: leadership that moves, nodes that leave, snapshots.

use std::time::Duration;

use raft::rpc::client::{ClientServiceClient, LeaderHint};
use raft::rpc::operation::{Operate, Operated, Operation};
use tokio::time::Instant;

use crate::client::Client;
use crate::error::Error;

/// A node may take so long to leave, or to find out that it cannot, with the defaults.
pub const LEAVE_PATIENCE: Duration = Duration::from_secs(20);

/// A snapshot may wait for its turn, and take, so long.
pub const SNAPSHOT_PATIENCE: Duration = Duration::from_mins(10);

/// A snapshot that a node holds durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotTaken {
    /// Last entry that it includes.
    pub index: u64,
    /// Size of its file.
    pub bytes: u64,
}

impl Client {
    /// Has the leader hand leadership to a voter, or to the one that is best caught up. Returns who leads then.
    ///
    /// # Errors
    /// Refused: leadership is where it was, or with another node than the wanted one, as the error says.
    /// [`Error::Undecided`]: it may have moved.
    pub async fn transfer(&self, node: Option<u64>) -> Result<LeaderHint, Error> {
        self.lead(Operation::Transfer { node: node.unwrap_or_default() }).await
    }

    /// Has a node become the leader: by a handover, or where nobody leads by an election.
    ///
    /// # Errors
    /// As [`transfer`](Client::transfer).
    pub async fn campaign(&self, node: u64) -> Result<LeaderHint, Error> {
        self.lead(Operation::Campaign { node }).await
    }

    /// Has a node leave the configuration, and its raft process end. Waits for it longer than for other requests
    /// ([`LEAVE_PATIENCE`] at least).
    ///
    /// # Errors
    /// Refused: it stays a member. [`Error::Undecided`]: it may leave still.
    pub async fn leave(&self, node: u64) -> Result<(), Error> {
        let patience = self.pursuer.options.timeout.max(LEAVE_PATIENCE);
        match self.operate(Operation::Leave { node }, patience).await? {
            Operated::Left { .. } => Ok(()),
            other @ (Operated::Leads(_) | Operated::Snapshot { .. }) => Err(misunderstood(&other)),
        }
    }

    /// Has a node take a snapshot of its state machine, when it is its turn: one node of a cluster at a time. It makes its
    /// log shorter then. Waits for it longer than for other requests ([`SNAPSHOT_PATIENCE`] at least).
    ///
    /// # Errors
    /// Refused: the snapshot before stays. [`Error::Undecided`]: it may be taken still.
    pub async fn snapshot(&self, node: u64) -> Result<SnapshotTaken, Error> {
        let patience = self.pursuer.options.timeout.max(SNAPSHOT_PATIENCE);
        match self.operate(Operation::Snapshot { node }, patience).await? {
            Operated::Snapshot { index, bytes, .. } => Ok(SnapshotTaken { index, bytes }),
            other @ (Operated::Leads(_) | Operated::Left { .. }) => Err(misunderstood(&other)),
        }
    }

    async fn lead(&self, operation: Operation) -> Result<LeaderHint, Error> {
        match self.operate(operation, self.pursuer.options.timeout).await? {
            Operated::Leads(leader) => Ok(leader),
            other @ (Operated::Left { .. } | Operated::Snapshot { .. }) => {
                Err(misunderstood(&other))
            }
        }
    }

    async fn operate(&self, operation: Operation, patience: Duration) -> Result<Operated, Error> {
        let request = Operate { operation, forward: self.pursuer.options.forward };
        let ask = |client: ClientServiceClient, context| async move {
            client.operate(context, request).await
        };
        let outcome = self.pursuer.pursue_alone(Instant::now() + patience, ask).await;
        outcome.map_err(crate::verdict::GivenUp::of_operation)
    }
}

fn misunderstood(answer: &Operated) -> Error {
    Error::Misunderstood { what: format!("{answer:?}") }
}
