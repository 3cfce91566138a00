//! Failures as problem documents (RFC 9457): what is wrong, what is known of the command, what to do.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::headers::{INDEX, LEADER};
use crate::rpc::client::{QueryError, SubmitError};

/// What kind of failure, each with its own status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    CommittedNotApplied,
    BadRequest,
    CrossOrigin,
    NoSuchKey,
    NoSuchRoute,
    MethodNotAllowed,
    BodyTimeout,
    OutsideWindow,
    AlreadyAcknowledged,
    SessionExpired,
    TooLarge,
    NotTheLeader,
    RefusedByMachine,
    ForeignMachine,
    NoLeader,
    Busy,
    NotResponding,
    Unknown,
    Unavailable,
}

impl Kind {
    /// Last part of its type, title for people, status.
    fn describe(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            Self::CommittedNotApplied => {
                ("committed-not-applied", "Committed, but not applied yet", StatusCode::ACCEPTED)
            }
            Self::BadRequest => {
                ("bad-request", "The request is not as it should be", StatusCode::BAD_REQUEST)
            }
            Self::CrossOrigin => {
                ("cross-origin", "A web page of another site asked for this", StatusCode::FORBIDDEN)
            }
            Self::NoSuchKey => ("no-such-key", "There is no such key", StatusCode::NOT_FOUND),
            Self::NoSuchRoute => ("no-such-route", "There is nothing here", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => (
                "method-not-allowed",
                "This route does not take this method",
                StatusCode::METHOD_NOT_ALLOWED,
            ),
            Self::BodyTimeout => {
                ("body-timeout", "The body did not arrive in time", StatusCode::REQUEST_TIMEOUT)
            }
            Self::OutsideWindow => (
                "outside-window",
                "The sequence number is outside of the session's window",
                StatusCode::CONFLICT,
            ),
            Self::AlreadyAcknowledged => (
                "already-acknowledged",
                "The sequence number was declared answered before",
                StatusCode::CONFLICT,
            ),
            Self::SessionExpired => {
                ("session-expired", "The session is unknown or expired", StatusCode::GONE)
            }
            Self::TooLarge => {
                ("too-large", "The body is over the limit", StatusCode::PAYLOAD_TOO_LARGE)
            }
            Self::NotTheLeader => {
                ("not-the-leader", "This node does not lead", StatusCode::MISDIRECTED_REQUEST)
            }
            Self::RefusedByMachine => (
                "refused-by-machine",
                "The state machine's rules refuse it",
                StatusCode::UNPROCESSABLE_ENTITY,
            ),
            Self::ForeignMachine => (
                "foreign-machine",
                "The state machine's answer is not a key-value machine's",
                StatusCode::BAD_GATEWAY,
            ),
            Self::NoLeader => {
                ("no-leader", "No leader can be reached", StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::Busy => ("busy", "Too much is under way", StatusCode::SERVICE_UNAVAILABLE),
            Self::NotResponding => {
                ("not-responding", "This node does not answer", StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::Unknown => {
                ("unknown", "It may have been applied, or not", StatusCode::GATEWAY_TIMEOUT)
            }
            Self::Unavailable => {
                ("unavailable", "The read was not answered in time", StatusCode::GATEWAY_TIMEOUT)
            }
        }
    }

    /// What is known of the command of a request that ends so, unless it is said otherwise.
    fn usual_outcome(self) -> Outcome {
        match self {
            Self::CommittedNotApplied => Outcome::Committed,
            // Of a repeated command, an earlier attempt may have been applied; whether this is one, nobody can tell any more.
            Self::Unknown | Self::AlreadyAcknowledged | Self::SessionExpired => Outcome::Unknown,
            Self::BadRequest
            | Self::CrossOrigin
            | Self::NoSuchKey
            | Self::NoSuchRoute
            | Self::MethodNotAllowed
            | Self::BodyTimeout
            | Self::OutsideWindow
            | Self::TooLarge
            | Self::NotTheLeader
            | Self::RefusedByMachine
            | Self::ForeignMachine
            | Self::NoLeader
            | Self::Busy
            | Self::NotResponding
            | Self::Unavailable => Outcome::Refused,
        }
    }

    /// Whether the same request may succeed in a moment.
    fn is_passing(self) -> bool {
        matches!(self, Self::NoLeader | Self::Busy | Self::NotResponding)
    }
}

/// What is known of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Applied,
    Refused,
    Committed,
    Unknown,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Committed => "committed",
            Self::Unknown => "unknown",
        }
    }
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    outcome: Outcome,
    index: Option<u64>,
    leader: Option<String>,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (detail, outcome) = (detail.into(), kind.usual_outcome());
        Self { kind, detail, outcome, index: None, leader: None }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    /// The command is applied all the same.
    pub(super) fn after_effect(self) -> Self {
        Self { outcome: Outcome::Applied, ..self }
    }

    /// Where the command stands, or up to where the read saw the log.
    pub(super) fn at(self, index: u64) -> Self {
        Self { index: Some(index), ..self }
    }

    /// The leader's HTTP port is there.
    pub(super) fn with_leader(self, address: &str) -> Self {
        Self { leader: Some(format!("http://{address}")), ..self }
    }

    #[cfg(test)]
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (name, title, status) = self.kind.describe();
        let mut document = json!({
            "type": format!("urn:outrigger:problem:{name}"),
            "title": title,
            "status": status.as_u16(),
            "detail": self.detail,
            "outcome": self.outcome.name(),
        });
        if let Some(index) = self.index {
            document["index"] = json!(index);
        }
        if let Some(leader) = &self.leader {
            document["leader"] = json!(leader);
        }
        let mut response = (status, format!("{document}\n")).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(index) = self.index {
            headers.insert(INDEX, index.into());
        }
        if self.kind.is_passing() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // An address that is no header value is left to the document.
        if let Some(Ok(leader)) = self.leader.map(HeaderValue::try_from) {
            headers.insert(LEADER, leader);
        }
        response
    }
}

/// The machine's rules said no: nothing was changed.
pub(super) fn refused_by_machine(index: u64, reason: &[u8]) -> Problem {
    Problem::new(Kind::RefusedByMachine, String::from_utf8_lossy(reason)).at(index)
}

/// A command's failure; `forward` says whether it could have been passed on.
pub(super) fn submit_problem(error: &SubmitError, forward: bool) -> Problem {
    let kind = match error {
        SubmitError::NotLeader { .. } if forward => Kind::NoLeader,
        SubmitError::NotLeader { .. } => Kind::NotTheLeader,
        SubmitError::Busy => Kind::Busy,
        SubmitError::TooLarge { .. } => Kind::TooLarge,
        SubmitError::SessionExpired { .. } => Kind::SessionExpired,
        SubmitError::OutsideWindow { .. } => Kind::OutsideWindow,
        SubmitError::AlreadyAcknowledged { .. } => Kind::AlreadyAcknowledged,
        SubmitError::CommittedNotApplied { .. } => Kind::CommittedNotApplied,
        SubmitError::Unknown { .. } => Kind::Unknown,
    };
    let problem = Problem::new(kind, error.to_string());
    if let SubmitError::CommittedNotApplied { index } = error {
        problem.at(*index)
    } else {
        problem
    }
}

/// A read's failure; `forward` says whether it could have been passed on.
pub(super) fn query_problem(error: &QueryError, forward: bool) -> Problem {
    let kind = match error {
        QueryError::NotLeader { .. } if forward => Kind::NoLeader,
        QueryError::NotLeader { .. } => Kind::NotTheLeader,
        QueryError::Busy => Kind::Busy,
        QueryError::TooLarge { .. } => Kind::TooLarge,
        QueryError::Unavailable { .. } => Kind::Unavailable,
    };
    Problem::new(kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::client::LeaderHint;

    fn hint() -> LeaderHint {
        LeaderHint { node: 1, address: "host:6004".to_owned() }
    }

    fn unknown() -> SubmitError {
        SubmitError::Unknown { reason: "the link to the leader ended".to_owned() }
    }

    #[test]
    fn every_failure_of_a_command_says_whether_it_may_have_happened() {
        for (error, forward, status, outcome) in [
            (SubmitError::NotLeader { hint: Some(hint()) }, true, 503, Outcome::Refused),
            (SubmitError::NotLeader { hint: Some(hint()) }, false, 421, Outcome::Refused),
            (SubmitError::NotLeader { hint: None }, false, 421, Outcome::Refused),
            (SubmitError::Busy, true, 503, Outcome::Refused),
            (SubmitError::TooLarge { bytes: 2, limit: 1 }, true, 413, Outcome::Refused),
            (SubmitError::SessionExpired { session: 1 }, true, 410, Outcome::Unknown),
            (SubmitError::OutsideWindow { sequence: 1 }, true, 409, Outcome::Refused),
            (SubmitError::AlreadyAcknowledged { sequence: 1 }, true, 409, Outcome::Unknown),
            (SubmitError::CommittedNotApplied { index: 9 }, true, 202, Outcome::Committed),
            (unknown(), true, 504, Outcome::Unknown),
            (unknown(), false, 504, Outcome::Unknown),
        ] {
            let problem = submit_problem(&error, forward);
            assert_eq!(problem.outcome, outcome, "{error}");
            assert_eq!(problem.detail, error.to_string());
            assert_eq!(problem.into_response().status(), status, "{error}");
        }
    }

    #[test]
    fn a_read_that_fails_has_changed_nothing() {
        let unavailable = QueryError::Unavailable { reason: "no quorum".to_owned() };
        for (error, forward, status) in [
            (QueryError::NotLeader { hint: Some(hint()) }, true, 503),
            (QueryError::NotLeader { hint: Some(hint()) }, false, 421),
            (QueryError::Busy, true, 503),
            (QueryError::TooLarge { bytes: 2, limit: 1 }, true, 413),
            (unavailable, true, 504),
        ] {
            let problem = query_problem(&error, forward);
            assert_eq!(problem.outcome, Outcome::Refused, "{error}");
            assert_eq!(problem.into_response().status(), status, "{error}");
        }
    }

    #[test]
    fn what_passes_says_when_to_come_back_and_hints_are_urls() {
        let problem = Problem::new(Kind::NotTheLeader, "").with_leader("host:6003");
        let response = problem.into_response();
        assert_eq!(response.headers()[LEADER], "http://host:6003");
        assert!(!response.headers().contains_key(RETRY_AFTER));
        let busy = Problem::new(Kind::Busy, "").into_response();
        assert_eq!(busy.headers()[RETRY_AFTER], "1");
        let committed = submit_problem(&SubmitError::CommittedNotApplied { index: 9 }, true);
        assert_eq!(committed.into_response().headers()[INDEX], "9");
    }
}
