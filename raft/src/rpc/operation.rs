//! What operators may want of nodes, and what comes of it; part of the contract for clients.

use serde::{Deserialize, Serialize};

use super::client::LeaderHint;

/// An operator's wish. May be sent to any node, which passes it on where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// The leader hands leadership to this voter, or to the best one where `node` is zero. Answered with
    /// [`Operated::Leads`] once it leads. A leader whose target does not take over within the shortest election timeout goes
    /// on.
    Transfer {
        /// Node id, or zero.
        node: u64,
    },
    /// The node becomes the leader: the present one hands over to it; where there is none it stands for election. Answered
    /// as a transfer.
    Campaign {
        /// Node id; zero means the node that is asked.
        node: u64,
    },
    /// The node leaves the configuration and ends with exit code 0. Answered with [`Operated::Left`] once it is out. It comes
    /// back by being started again.
    Leave {
        /// Node id; zero means the node that is asked.
        node: u64,
    },
    /// The node takes a snapshot of its state machine and makes its log shorter. Answered with [`Operated::Snapshot`] once it
    /// is durable.
    Snapshot {
        /// Node id; zero means the node that is asked.
        node: u64,
    },
}

/// A wish, and whether it may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operate {
    /// The wish.
    pub operation: Operation,
    /// Whether a node that it does not belong to passes it on (one hop).
    pub forward: bool,
}

/// The wish is fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operated {
    /// This node leads now.
    Leads(LeaderHint),
    /// This node is no longer in the configuration.
    Left {
        /// Its id.
        node: u64,
    },
    /// This node holds a snapshot of everything that its state machine had applied when the wish reached it.
    Snapshot {
        /// Its id.
        node: u64,
        /// Last entry that the snapshot includes.
        index: u64,
        /// Size of its file.
        bytes: u64,
    },
}

/// Why a wish is not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum OperationError {
    /// Nothing was begun: no leader is known here, or it could not be reached.
    #[error("not the leader{}", hint.as_ref().map(|h| format!("; the leader is at {}", h.address)).unwrap_or_default())]
    NotLeader {
        /// Where to ask, if known.
        hint: Option<LeaderHint>,
    },
    /// Nothing was begun: leadership is being handed to another node already.
    #[error("busy: leadership is being handed over already; try again")]
    Busy,
    /// Nothing was begun: the node is not in the configuration.
    #[error("node {node:016x} is not in the configuration")]
    UnknownNode {
        /// Its id.
        node: u64,
    },
    /// Nothing was begun: the node does not vote, so it cannot lead.
    #[error("node {node:016x} is a learner: it does not vote, so it cannot lead")]
    Learner {
        /// Its id.
        node: u64,
    },
    /// Nothing was begun: the node leads already.
    #[error("node {node:016x} leads already")]
    AlreadyLeads {
        /// Its id.
        node: u64,
    },
    /// Nothing was begun: no other voter is there to lead.
    #[error("there is no other voter that answers and could lead")]
    NoSuccessor,
    /// The target did not take over in time. The old leader goes on, unless the target wins the election after all.
    #[error("node {node:016x} did not take over in time; the leader goes on")]
    Abandoned {
        /// The target's id.
        node: u64,
    },
    /// Leadership is with another node than the wanted one.
    #[error("node {:016x} leads, at {}", leader.node, leader.address)]
    Elsewhere {
        /// Who leads.
        leader: LeaderHint,
    },
    /// The node stays in the configuration.
    #[error("it stays: {reason}")]
    MayNotLeave {
        /// Why.
        reason: String,
    },
    /// There is no new snapshot; the one before stays.
    #[error("no snapshot: {reason}")]
    NoSnapshot {
        /// Why.
        reason: String,
    },
    /// It may have happened, or may happen still.
    #[error("unknown what came of it: {reason}")]
    Unknown {
        /// What went wrong.
        reason: String,
    },
}
