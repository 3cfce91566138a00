//! One request of a client, from its headers to the contract's words and back.

use std::time::{Duration, Instant};

use axum::extract::Query as Parameters;
use axum::http::request::Parts;
use bytes::Bytes;
use serde::Deserialize;
use tarpc::context::Context;

use super::headers::{self, Stamp};
use super::problem::{Problem, query_problem, refused_by_machine, submit_problem};
use crate::rpc::client::{
    Answer, ChangeSession, ClientService, OpenSession, Outcome, Query, QueryError, SessionChange,
    SessionOpened, Submit, SubmitError,
};
use crate::server::{ClientServer, Shared};
use crate::session::MAX_TTL_MS;

/// What the handlers need.
#[derive(Clone, Debug)]
pub(super) struct Api {
    pub(super) shared: Shared,
    pub(super) server: ClientServer,
}

/// How a request wants to be treated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    stamp: Stamp,
    forward: bool,
    timeout: Duration,
}

impl Wish {
    /// From now on: the body, which has a limit of its own, is here.
    fn context(self) -> Context {
        let mut context = tarpc::context::current();
        context.deadline = Instant::now() + self.timeout;
        context
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    timeout_ms: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Opening {
    timeout_ms: Option<u32>,
    ttl_ms: Option<u64>,
}

/// A command that is applied.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Applied {
    /// Where it stands.
    pub(super) index: u64,
    /// The machine's answer; none when it was applied before and its result is no longer kept.
    pub(super) result: Option<Bytes>,
}

/// A read that is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answered {
    /// Up to where it saw the log.
    pub(super) index: u64,
    /// The machine's answer.
    pub(super) result: Bytes,
}

impl Api {
    pub(super) fn new(shared: Shared) -> Self {
        let server = ClientServer::new(shared.clone());
        Self { shared, server }
    }

    /// Reads the headers and parameters that all requests of clients have in common.
    pub(super) fn wish(&self, head: &Parts) -> Result<Wish, Problem> {
        let Limits { timeout_ms } = parameters(head)?;
        self.wish_within(head, timeout_ms)
    }

    fn wish_within(&self, head: &Parts, timeout_ms: Option<u32>) -> Result<Wish, Problem> {
        let timeout = match timeout_ms {
            Some(0) => return Err(Problem::bad_request("timeout_ms = 0: give 1 or more")),
            Some(timeout_ms) => Duration::from_millis(timeout_ms.into()),
            None => self.shared.request_timeout,
        };
        Ok(Wish {
            stamp: headers::stamp(&head.headers)?,
            forward: headers::forward(&head.headers)?,
            // Whatever is more than the node's own limit is cut where every contract's requests are.
            timeout: timeout.min(MAX_TIMEOUT),
        })
    }

    pub(super) async fn open_session(&self, head: &Parts) -> Result<SessionOpened, Problem> {
        let Opening { timeout_ms, ttl_ms } = parameters(head)?;
        if let Some(ttl_ms) = ttl_ms.filter(|ttl_ms| !(1..=MAX_TTL_MS).contains(ttl_ms)) {
            let detail = format!("ttl_ms = {ttl_ms}: give 1 to {MAX_TTL_MS}");
            return Err(Problem::bad_request(detail));
        }
        let wish = self.wish_within(head, timeout_ms)?;
        let request = OpenSession { forward: wish.forward, ttl_ms: ttl_ms.unwrap_or_default() };
        let opened = self.server.clone().open_session(wish.context(), request).await;
        opened.map_err(|error| self.submit_problem(wish, &error))
    }

    pub(super) async fn change_session(
        &self,
        head: &Parts,
        session: u64,
        change: SessionChange,
    ) -> Result<(), Problem> {
        let wish = self.wish(head)?;
        let request = ChangeSession { session, change, forward: wish.forward };
        let changed = self.server.clone().change_session(wish.context(), request).await;
        changed.map_err(|error| self.submit_problem(wish, &error))
    }

    pub(super) async fn submit(&self, wish: Wish, command: Bytes) -> Result<Applied, Problem> {
        let Stamp { session, sequence, acked_below } = wish.stamp;
        let request = Submit { session, sequence, acked_below, command, forward: wish.forward };
        let submitted = self.server.clone().submit(wish.context(), request).await;
        let submitted = submitted.map_err(|error| self.submit_problem(wish, &error))?;
        let index = submitted.index;
        match submitted.outcome {
            Outcome::Done(result) => Ok(Applied { index, result: Some(result) }),
            Outcome::AlreadyApplied => Ok(Applied { index, result: None }),
            Outcome::Refused(reason) => Err(refused_by_machine(index, &reason)),
        }
    }

    pub(super) async fn query(&self, wish: Wish, query: Bytes) -> Result<Answered, Problem> {
        let request = Query { query, forward: wish.forward };
        let answer = self.server.clone().query(wish.context(), request).await;
        let Answer { read_index: index, outcome } =
            answer.map_err(|error| self.query_problem(wish, &error))?;
        match outcome {
            Outcome::Done(result) => Ok(Answered { index, result }),
            Outcome::AlreadyApplied => Ok(Answered { index, result: Bytes::new() }),
            Outcome::Refused(reason) => Err(refused_by_machine(index, &reason)),
        }
    }

    fn submit_problem(&self, wish: Wish, error: &SubmitError) -> Problem {
        let problem = submit_problem(error, wish.forward);
        match error {
            SubmitError::NotLeader { hint: Some(hint) } => self.with_leader(problem, hint.node),
            SubmitError::NotLeader { hint: None }
            | SubmitError::Busy
            | SubmitError::TooLarge { .. }
            | SubmitError::SessionExpired { .. }
            | SubmitError::OutsideWindow { .. }
            | SubmitError::AlreadyAcknowledged { .. }
            | SubmitError::CommittedNotApplied { .. }
            | SubmitError::Unknown { .. } => problem,
        }
    }

    fn query_problem(&self, wish: Wish, error: &QueryError) -> Problem {
        let problem = query_problem(error, wish.forward);
        match error {
            QueryError::NotLeader { hint: Some(hint) } => self.with_leader(problem, hint.node),
            QueryError::NotLeader { hint: None }
            | QueryError::Busy
            | QueryError::TooLarge { .. }
            | QueryError::Unavailable { .. } => problem,
        }
    }

    /// Hints name the leader's raft port; gossip knows its HTTP port.
    fn with_leader(&self, problem: Problem, leader: u64) -> Problem {
        let id = format!("{leader:016x}");
        let sight = self.shared.sight.borrow();
        let leader = sight.members.iter().find(|member| member.id == id);
        let address = leader.map(|leader| leader.http_address.as_str()).unwrap_or_default();
        if address.is_empty() { problem } else { problem.with_leader(address) }
    }
}

/// What stands after the `?`.
fn parameters<T: serde::de::DeserializeOwned>(head: &Parts) -> Result<T, Problem> {
    let read = Parameters::<T>::try_from_uri(&head.uri);
    let read = read.map_err(|error| Problem::bad_request(format!("the query string: {error}")))?;
    Ok(read.0)
}

/// Beyond every possible `--request-timeout-ms`.
const MAX_TIMEOUT: Duration = Duration::from_hours(1);
