//! What a caller learns when a request has no result. Every error of a write says whether it may have happened.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use raft::rpc::operation::OperationError;
use raft::rpc::wire::Endpoint;

use crate::session::Stamp;

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Surely not applied: every attempt was refused.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// Surely not applied: no node that leads, or knows who does, was found in time.
    #[error(
        "no leader found within {} ms, so nothing was applied ({tried}); check that a majority of the nodes is running \
         and that these endpoints are theirs",
        waited.as_millis()
    )]
    NoLeader {
        /// How long it was tried.
        waited: Duration,
        /// The last word of each endpoint.
        tried: Tried,
    },
    /// It may have been applied, or may be later. Sent again under the same stamp, it is applied once in all.
    #[error(
        "unknown whether it was applied: no answer that settles it within {} ms ({tried}); {}",
        waited.as_millis(), how_to_retry(*stamp)
    )]
    Unknown {
        /// How long it was tried.
        waited: Duration,
        /// The last word of each endpoint.
        tried: Tried,
        /// What a safe retry must carry.
        stamp: Stamp,
    },
    /// It is in the log for good and will be applied, but the state machine of the leader's node does not answer.
    #[error(
        "committed at index {index}, but not yet applied: the state machine beside the leader does not answer; it will \
         be applied when that process is back, so do not send it again as a new command; {}",
        how_to_retry(*stamp)
    )]
    CommittedNotApplied {
        /// Where it stands in the log, as far as the answers tell: an attempt without an answer may stand before it.
        index: u64,
        /// What a safe retry must carry.
        stamp: Stamp,
    },
    /// The answer is none of the machine that the verb is for. A command was carried out, whatever it means there.
    #[error("the answer makes no sense: {what}")]
    Misunderstood {
        /// What is wrong with it.
        what: String,
    },
    /// What an operator wanted may have happened, or may happen still. It is not asked for twice: ask for the status first.
    #[error("unknown what came of it ({tried}); the status of the nodes tells")]
    Undecided {
        /// The last word of each endpoint.
        tried: Tried,
    },
    /// A read, which changes nothing, got no answer in time.
    #[error("no answer within {} ms ({tried}); the read changed nothing and may be asked again", waited.as_millis())]
    NoAnswer {
        /// How long it was tried.
        waited: Duration,
        /// The last word of each endpoint.
        tried: Tried,
    },
}

/// Why a request was refused. Nothing was applied, and the same request will be refused again, [`Refusal::Busy`] and
/// [`Refusal::WindowFull`] excepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The state machine's own rules; the text is the machine's.
    #[error("{}", String::from_utf8_lossy(_0))]
    Machine(Bytes),
    /// What an operator wanted is not possible, or did not come about.
    #[error("{0}")]
    Operation(OperationError),
    /// The command or query is longer than every node accepts.
    #[error(
        "{bytes} bytes are more than the limit of {limit} bytes; split the value or store it elsewhere"
    )]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The cluster had too much under way all the time.
    #[error("the cluster was busy for {} ms; try again later, or with fewer commands at once", waited.as_millis())]
    Busy {
        /// How long it was tried.
        waited: Duration,
    },
    /// This client had too many commands of one session under way all the time.
    #[error("too many commands of this client are under way; wait for some of them")]
    WindowFull,
    /// The session that the caller named is not known, or no longer.
    #[error("session {session:016x} is unknown or expired; take a new one")]
    SessionExpired {
        /// The session.
        session: u64,
    },
    /// The sequence number that the caller named does not fit its session.
    #[error(
        "sequence number {sequence} is outside of the window of its session; use the next free number"
    )]
    OutsideWindow {
        /// The number.
        sequence: u64,
    },
    /// The sequence number that the caller named was declared answered by a later command of its session.
    #[error(
        "sequence number {sequence} was declared answered by a later command; use the next free number"
    )]
    AlreadyAcknowledged {
        /// The number.
        sequence: u64,
    },
    /// Another cluster answers there.
    #[error(
        "{endpoint} belongs to cluster {theirs:032x}, but cluster {ours:032x} is wanted; check the endpoints, or the \
         pinned cluster id if the cluster was founded anew"
    )]
    ForeignCluster {
        /// Where.
        endpoint: Endpoint,
        /// The pinned cluster.
        ours: u128,
        /// The one that answers.
        theirs: u128,
    },
    /// The log filter is none.
    #[error("{reason}")]
    LogFilter {
        /// What is wrong with it.
        reason: String,
    },
    /// Something else than a raft process of a fitting version answers there.
    #[error("{what}; check that this is the raft port of a node, and the versions of both sides")]
    WrongService {
        /// Where, and what is wrong.
        what: String,
    },
}

/// The last word of each endpoint that was tried, in the order of the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried(pub Vec<(Endpoint, String)>);

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing could be asked");
        }
        for (at, (endpoint, word)) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{endpoint}: {word}")?;
        }
        Ok(())
    }
}

fn how_to_retry(stamp: Stamp) -> String {
    format!(
        "to make sure of it, send it again under session {:016x} and sequence number {}",
        stamp.session, stamp.sequence
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_where_and_what_to_do() {
        let endpoint: Endpoint = "127.0.0.1:6004".parse().unwrap();
        let tried = Tried(vec![(endpoint.clone(), "connection refused".to_owned())]);
        let waited = Duration::from_millis(250);
        let stamp = Stamp { session: 0xab, sequence: 7 };
        let foreign = Refusal::ForeignCluster { endpoint, ours: 0x1, theirs: 0x2 };
        for (error, parts) in [
            (Error::from(foreign), &["127.0.0.1:6004", "0001", "0002", "check the endpoints"][..]),
            (
                Error::NoLeader { waited, tried: tried.clone() },
                &["250 ms", "127.0.0.1:6004: connection refused", "nothing was applied"],
            ),
            (
                Error::Unknown { waited, tried, stamp },
                &["unknown", "session 00000000000000ab and sequence number 7"],
            ),
            (
                Error::CommittedNotApplied { index: 9, stamp },
                &["index 9", "do not send it again as a new command"],
            ),
            (
                Refusal::TooLarge { bytes: 20, limit: 10 }.into(),
                &["refused", "20 bytes", "limit of 10 bytes"],
            ),
        ] {
            let text = error.to_string();
            for part in parts {
                assert!(text.contains(part), "{part:?} is missing in: {text}");
            }
        }
    }
}
