//! What a failed attempt tells: whether the command may have happened, and where to go on. Pure, one table per error.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::time::Duration;

use raft::rpc::client::{ConnectError, LeaderHint, QueryError, SubmitError};
use raft::rpc::operation::OperationError;
use raft::rpc::wire::{Endpoint, HelloError, Refusal as HelloRefusal};
use tarpc::client::RpcError;

use crate::error::{Error, Refusal, Tried};
use crate::session::Stamp;

/// What attempts tell of their command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// Surely not applied by this attempt.
    #[default]
    NotApplied,
    /// It may have been, or may be later.
    Unknown,
    /// It is in the log for good.
    Committed {
        /// Where.
        index: u64,
    },
}

impl Certainty {
    /// What two attempts of a command tell together.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            // Of several entries the first is applied; the others are found to be repetitions.
            (Self::Committed { index: a }, Self::Committed { index: b }) => {
                Self::Committed { index: a.min(b) }
            }
            (committed @ Self::Committed { .. }, _) | (_, committed @ Self::Committed { .. }) => {
                committed
            }
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::NotApplied, Self::NotApplied) => Self::NotApplied,
        }
    }
}

/// Where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Asking again is of no use.
    Stop(Refusal),
    /// Asking *there* again is of no use.
    SetAside(Refusal),
    /// The same node again, after a pause.
    Pause,
    /// Another node, the named one first.
    Elsewhere(Option<Endpoint>),
}

/// One attempt without a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) certainty: Certainty,
    pub(crate) next: Next,
    /// For people.
    pub(crate) reason: String,
}

impl Failure {
    fn not_applied(next: Next, reason: impl Into<String>) -> Self {
        Self { certainty: Certainty::NotApplied, next, reason: reason.into() }
    }

    fn unknown(reason: impl Into<String>) -> Self {
        let next = Next::Elsewhere(None);
        Self { certainty: Certainty::Unknown, next, reason: reason.into() }
    }

    /// No connection, so nothing was sent. `ours` is the pinned cluster.
    pub(crate) fn not_connected(error: &ConnectError, ours: u128) -> Self {
        let next = match error {
            ConnectError::Io { .. } => Next::Elsewhere(None),
            ConnectError::Hello { endpoint, source } => {
                after_bad_hello(error, endpoint, source, ours)
            }
        };
        Self::not_applied(next, plain_reason(error))
    }

    /// A node of another cluster than the pinned one answered.
    pub(crate) fn foreign(at: &Endpoint, ours: u128, theirs: u128) -> Self {
        let refusal = Refusal::ForeignCluster { endpoint: at.clone(), ours, theirs };
        let reason = refusal.to_string();
        Self::not_applied(Next::SetAside(refusal), reason)
    }

    /// Not even a hello came in time.
    pub(crate) fn not_connected_in_time() -> Self {
        Self::not_applied(Next::Elsewhere(None), "no connection in time")
    }

    /// It was sent, and nothing came back in time.
    pub(crate) fn silent() -> Self {
        Self::unknown("no answer in time")
    }
}

/// The endpoint stands beside the reason already.
fn plain_reason(error: &ConnectError) -> String {
    match error {
        ConnectError::Io { source, .. } => format!("cannot connect: {source}"),
        ConnectError::Hello { source, .. } => source.to_string(),
    }
}

fn after_bad_hello(error: &ConnectError, at: &Endpoint, hello: &HelloError, ours: u128) -> Next {
    match hello {
        HelloError::Refused { refusal, theirs } | HelloError::RefusedByPeer { refusal, theirs } => {
            match refusal {
                HelloRefusal::ForeignCluster => Next::SetAside(Refusal::ForeignCluster {
                    endpoint: at.clone(),
                    ours,
                    theirs: theirs.cluster,
                }),
                HelloRefusal::Version | HelloRefusal::Service => {
                    Next::SetAside(Refusal::WrongService { what: error.to_string() })
                }
                HelloRefusal::WrongNode | HelloRefusal::StaleBoot | HelloRefusal::Busy => {
                    Next::Elsewhere(None)
                }
            }
        }
        HelloError::NotOutrigger(_) => {
            Next::SetAside(Refusal::WrongService { what: error.to_string() })
        }
        HelloError::Io(_) | HelloError::Timeout | HelloError::Damaged => Next::Elsewhere(None),
    }
}

fn elsewhere(hint: Option<&LeaderHint>) -> Next {
    Next::Elsewhere(hint.and_then(|hint| hint.address.parse().ok()))
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        let next = match &error {
            SubmitError::NotLeader { hint } => elsewhere(hint.as_ref()),
            SubmitError::Busy => Next::Pause,
            SubmitError::TooLarge { bytes, limit } => {
                Next::Stop(Refusal::TooLarge { bytes: *bytes, limit: *limit })
            }
            SubmitError::SessionExpired { session } => {
                Next::Stop(Refusal::SessionExpired { session: *session })
            }
            SubmitError::OutsideWindow { sequence } => {
                Next::Stop(Refusal::OutsideWindow { sequence: *sequence })
            }
            SubmitError::AlreadyAcknowledged { sequence } => {
                Next::Stop(Refusal::AlreadyAcknowledged { sequence: *sequence })
            }
            SubmitError::CommittedNotApplied { index } => {
                let certainty = Certainty::Committed { index: *index };
                return Self { certainty, next: Next::Pause, reason: error.to_string() };
            }
            SubmitError::Unknown { reason } => return Self::unknown(reason.as_str()),
        };
        Self::not_applied(next, error.to_string())
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let next = match &error {
            QueryError::NotLeader { hint } => elsewhere(hint.as_ref()),
            QueryError::Busy => Next::Pause,
            QueryError::TooLarge { bytes, limit } => {
                Next::Stop(Refusal::TooLarge { bytes: *bytes, limit: *limit })
            }
            QueryError::Unavailable { reason } => return Self::unknown(reason.as_str()),
        };
        Self::not_applied(next, error.to_string())
    }
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Self {
        let next = match &error {
            OperationError::NotLeader { hint } => elsewhere(hint.as_ref()),
            OperationError::Busy => Next::Pause,
            OperationError::Unknown { reason } => return Self::unknown(reason.as_str()),
            // The target may have begun to stand for election, and is allowed to win.
            OperationError::Abandoned { .. } => return Self::unknown(error.to_string()),
            OperationError::UnknownNode { .. }
            | OperationError::Learner { .. }
            | OperationError::AlreadyLeads { .. }
            | OperationError::NoSuccessor
            | OperationError::Elsewhere { .. }
            | OperationError::MayNotLeave { .. }
            | OperationError::NoSnapshot { .. } => Next::Stop(Refusal::Operation(error.clone())),
        };
        Self::not_applied(next, error.to_string())
    }
}

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        match &error {
            RpcError::Server(refusal) if refusal.kind == io::ErrorKind::WouldBlock => {
                Self::not_applied(Next::Pause, "too many requests on one connection")
            }
            RpcError::DeadlineExceeded => Self::silent(),
            // Whether the request had left by then cannot be told.
            RpcError::Shutdown | RpcError::Send(_) | RpcError::Channel(_) | RpcError::Server(_) => {
                Self::unknown(format!("connection lost: {error}"))
            }
        }
    }
}

impl From<Infallible> for Failure {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// All attempts of one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    certainty: Certainty,
    latest: BTreeMap<Endpoint, String>,
    /// Whether the last attempt of all found too much under way.
    busy: bool,
}

impl History {
    pub(crate) fn add(&mut self, endpoint: &Endpoint, failure: &Failure) {
        self.certainty = self.certainty.and(failure.certainty);
        self.busy = failure.next == Next::Pause;
        self.latest.insert(endpoint.clone(), failure.reason.clone());
    }

    /// An attempt was sent and will not be waited for.
    pub(crate) fn abandon(&mut self, endpoint: &Endpoint) {
        self.certainty = self.certainty.and(Certainty::Unknown);
        self.latest.entry(endpoint.clone()).or_insert_with(|| "no answer yet".to_owned());
    }

    fn tried(self) -> Tried {
        Tried(self.latest.into_iter().collect())
    }
}

/// A request that ended without a result, and all that is known of it.
#[derive(Clone, Debug)]
pub(crate) struct GivenUp {
    pub(crate) history: History,
    /// A last word that more attempts would not change; none when time ran out.
    pub(crate) refusal: Option<Refusal>,
    pub(crate) waited: Duration,
}

impl GivenUp {
    /// The command was sent before, perhaps by another process: what came of that is not known here.
    #[must_use]
    pub(crate) fn after_another_attempt(mut self) -> Self {
        self.history.certainty = self.history.certainty.and(Certainty::Unknown);
        self
    }

    /// For a command: refused only if every attempt surely did nothing.
    pub(crate) fn of_write(self, stamp: Stamp) -> Error {
        match self.history.certainty {
            Certainty::NotApplied => self.of_nothing(),
            Certainty::Unknown => {
                Error::Unknown { waited: self.waited, tried: self.history.tried(), stamp }
            }
            Certainty::Committed { index } => Error::CommittedNotApplied { index, stamp },
        }
    }

    /// For a read.
    pub(crate) fn of_read(self) -> Error {
        match self.history.certainty {
            Certainty::NotApplied => self.of_nothing(),
            Certainty::Unknown | Certainty::Committed { .. } => {
                Error::NoAnswer { waited: self.waited, tried: self.history.tried() }
            }
        }
    }

    /// For an operator's wish.
    pub(crate) fn of_operation(self) -> Error {
        match self.history.certainty {
            Certainty::NotApplied => self.of_nothing(),
            Certainty::Unknown | Certainty::Committed { .. } => {
                Error::Undecided { tried: self.history.tried() }
            }
        }
    }

    /// For what went before a command was sent at all.
    pub(crate) fn of_nothing(self) -> Error {
        let waited = self.waited;
        match self.refusal {
            Some(refusal) => Error::Refused(refusal),
            None if self.history.busy => Error::Refused(Refusal::Busy { waited }),
            None => Error::NoLeader { waited, tried: self.history.tried() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::Tcp(format!("localhost:{port}"))
    }

    fn not_leader(address: &str) -> SubmitError {
        let hint = LeaderHint { node: 7, address: address.to_owned() };
        SubmitError::NotLeader { hint: Some(hint) }
    }

    #[test]
    fn every_answer_to_a_command_has_its_rule() {
        use Certainty::{Committed, NotApplied, Unknown};
        let stop = Next::Stop;
        for (error, certainty, next) in [
            (SubmitError::NotLeader { hint: None }, NotApplied, Next::Elsewhere(None)),
            (not_leader("localhost:9"), NotApplied, Next::Elsewhere(Some(endpoint(9)))),
            (not_leader("nonsense"), NotApplied, Next::Elsewhere(None)),
            (SubmitError::Busy, NotApplied, Next::Pause),
            (
                SubmitError::TooLarge { bytes: 3, limit: 2 },
                NotApplied,
                stop(Refusal::TooLarge { bytes: 3, limit: 2 }),
            ),
            (
                SubmitError::SessionExpired { session: 4 },
                NotApplied,
                stop(Refusal::SessionExpired { session: 4 }),
            ),
            (
                SubmitError::OutsideWindow { sequence: 5 },
                NotApplied,
                stop(Refusal::OutsideWindow { sequence: 5 }),
            ),
            (
                SubmitError::AlreadyAcknowledged { sequence: 6 },
                NotApplied,
                stop(Refusal::AlreadyAcknowledged { sequence: 6 }),
            ),
            (SubmitError::CommittedNotApplied { index: 8 }, Committed { index: 8 }, Next::Pause),
            (SubmitError::Unknown { reason: "lost".to_owned() }, Unknown, Next::Elsewhere(None)),
        ] {
            let failure = Failure::from(error.clone());
            assert_eq!((failure.certainty, failure.next), (certainty, next), "{error:?}");
        }
    }

    #[test]
    fn connection_that_broke_leaves_the_command_unknown_and_throttling_does_not() {
        assert_eq!(Failure::from(RpcError::Shutdown).certainty, Certainty::Unknown);
        assert_eq!(Failure::from(RpcError::DeadlineExceeded).certainty, Certainty::Unknown);
        let throttled = tarpc::ServerError::new(io::ErrorKind::WouldBlock, String::new());
        let failure = Failure::from(RpcError::Server(throttled));
        assert_eq!((failure.certainty, failure.next), (Certainty::NotApplied, Next::Pause));
    }

    fn given_up(attempts: &[Failure], refusal: Option<Refusal>) -> GivenUp {
        let mut history = History::default();
        for failure in attempts {
            history.add(&endpoint(1), failure);
        }
        GivenUp { history, refusal, waited: Duration::from_secs(1) }
    }

    #[test]
    fn refused_only_if_every_attempt_was() {
        let stamp = Stamp { session: 1, sequence: 1 };
        let expired = Refusal::SessionExpired { session: 1 };
        let unknown = Failure::unknown("lost");
        let refused = Failure::from(SubmitError::SessionExpired { session: 1 });
        let committed = Failure::from(SubmitError::CommittedNotApplied { index: 8 });
        let later = Failure::from(SubmitError::CommittedNotApplied { index: 9 });
        let nobody = Failure::from(SubmitError::NotLeader { hint: None });
        let busy = Failure::from(SubmitError::Busy);
        let end = |attempts: &[&Failure], refusal: Option<&Refusal>| {
            let attempts: Vec<_> = attempts.iter().copied().cloned().collect();
            given_up(&attempts, refusal.cloned()).of_write(stamp)
        };
        assert_eq!(end(&[&refused], Some(&expired)), Error::Refused(expired.clone()));
        assert!(matches!(end(&[&unknown, &refused], Some(&expired)), Error::Unknown { .. }));
        assert!(matches!(end(&[&unknown, &nobody], None), Error::Unknown { .. }));
        assert!(matches!(
            end(&[&unknown, &later, &committed, &unknown, &nobody], None),
            Error::CommittedNotApplied { index: 8, .. }
        ));
        assert!(matches!(end(&[&busy, &nobody], None), Error::NoLeader { .. }));
        assert!(matches!(end(&[&nobody, &busy], None), Error::Refused(Refusal::Busy { .. })));
        assert!(matches!(end(&[], None), Error::NoLeader { .. }));
    }

    #[test]
    fn read_that_got_no_answer_is_told_from_one_that_found_no_leader() {
        let lost = Failure::from(QueryError::Unavailable { reason: "lost".to_owned() });
        let nobody = Failure::from(QueryError::NotLeader { hint: None });
        assert!(matches!(given_up(&[lost], None).of_read(), Error::NoAnswer { .. }));
        assert!(matches!(given_up(&[nobody], None).of_read(), Error::NoLeader { .. }));
    }
}
