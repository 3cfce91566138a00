//! Load from many clients, and what it met: throughput, latencies and errors, second by second.
//!
//! The loop is *closed*: each client has one request under way and sends the next when the answer is there. So a pause of
//! the system is one slow request per client, not as many as would have come meanwhile; the seconds show it.
//!
//! What is loaded is a [`Target`], so that the same harness, clocks and histograms measure other systems, too.
//!
//! The harness shares the machine with what it measures and must be cheap: one thread, requests encoded beforehand, one
//! histogram for all clients.

mod cluster;
mod data;
mod load;
mod plan;
mod report;
mod tally;

pub use cluster::{Aim, Cluster, ClusterClient, Way};
pub use data::Data;
pub use load::run;
pub use plan::Plan;
pub use report::{Latency, Report, Second};

/// One client of the system under load: one request at a time.
pub trait Target: Send + 'static {
    /// Writes a key; the number is its place in [`Data`].
    ///
    /// # Errors
    /// There was no answer, or another one than that it is written. The harness pauses shortly and goes on.
    fn put(&mut self, key: usize) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Reads a key that was written before, linearizably.
    ///
    /// # Errors
    /// There was no answer, or it had no value. The harness pauses shortly and goes on.
    fn get(&mut self, key: usize) -> impl Future<Output = Result<(), Trouble>> + Send;
}

/// A request without the answer that was wished.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", kind.name())]
pub struct Trouble {
    /// What it is counted as.
    pub kind: Kind,
    /// In words.
    pub message: String,
}

/// What errors are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// No connection, or it broke.
    Connection,
    /// No answer in time.
    Timeout,
    /// The node does not lead.
    NotLeader,
    /// Too much was under way.
    Busy,
    /// Surely not done, for another reason.
    Refused,
    /// It may have been done.
    Unknown,
    /// Another answer than one can be to this request.
    WrongAnswer,
}

impl Kind {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::NotLeader => "not-leader",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::WrongAnswer => "wrong-answer",
        }
    }
}

impl Trouble {
    /// Of a kind, in the words of its cause.
    pub fn new(kind: Kind, message: &impl ToString) -> Self {
        Self { kind, message: message.to_string() }
    }
}
