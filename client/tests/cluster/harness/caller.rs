//! A client with one command under way at a time, which is retried under its number until the cluster says that it is
//! applied.

use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::rpc::client::{
    self, Answer, ClientServiceClient, ConnectError, OpenSession, Outcome, Query, QueryError,
    Submit, SubmitError, Submitted,
};
use raft::rpc::wire::Endpoint;
use state_machine::kv::command::{Command, decode_value};
use tarpc::client::RpcError;
use tarpc::context::Context;
use tokio::time::sleep;

use super::wait::PATIENCE;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for the answer to one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an attempt that failed, so that a cluster without a leader is not flooded.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// One in so many commands is sent again although it was answered.
const FORGETFULNESS: u64 = 5;

/// Why one attempt has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke, or no answer came in time.
    #[error("no answer: {0}")]
    Rpc(#[from] RpcError),
    /// The node said so.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The node said so.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Trouble {
    fn hint(&self) -> Option<&str> {
        match self {
            Self::Submit(SubmitError::NotLeader { hint })
            | Self::Query(QueryError::NotLeader { hint }) => {
                hint.as_ref().map(|hint| hint.address.as_str())
            }
            Self::Connect(_) | Self::Rpc(_) | Self::Submit(_) | Self::Query(_) => None,
        }
    }

    /// Whether the same attempt may succeed later. What is not passing is a fault of the cluster under test: no client
    /// here lets its session expire, leaves its window or repeats what it had an answer to.
    fn is_passing(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Rpc(_) => true,
            Self::Submit(error) => matches!(
                error,
                SubmitError::NotLeader { .. }
                    | SubmitError::Busy
                    | SubmitError::CommittedNotApplied { .. }
                    | SubmitError::Unknown { .. }
            ),
            Self::Query(error) => !matches!(error, QueryError::TooLarge { .. }),
        }
    }
}

/// A client. It stays with a node until an attempt there fails.
pub(crate) struct Caller {
    endpoints: Vec<Endpoint>,
    at: usize,
    connection: Option<ClientServiceClient>,
    session: u64,
    next_sequence: u64,
    /// Why attempts failed that were repeated, oldest first.
    pub(crate) failures: Vec<String>,
}

impl Caller {
    /// Knows these nodes and begins with one of them; no session yet.
    pub(crate) fn new(endpoints: Vec<Endpoint>, first: usize) -> Self {
        let at = first % endpoints.len();
        Self { endpoints, at, connection: None, session: 0, next_sequence: 1, failures: Vec::new() }
    }

    /// Opens a session, so that retries are safe.
    pub(crate) async fn open_session(&mut self) {
        let request = OpenSession { forward: true, ttl_ms: 0 };
        let opened = self
            .until_done(|node| async move { Ok(node.open_session(context(), request).await??) });
        self.session = opened.await.session;
    }

    /// The session that it has opened; zero before.
    pub(crate) fn session(&self) -> u64 {
        self.session
    }

    /// Submits a command under a fresh number until it is applied. Every now and then it forgets the answer and asks again.
    pub(crate) async fn submit(&mut self, command: &Command) -> Submitted {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let submitted = self.submit_as(sequence, sequence, command).await;
        if sequence.is_multiple_of(FORGETFULNESS) {
            let again = self.submit_as(sequence, sequence, command).await;
            assert_eq!(again.index, submitted.index, "session {}", self.session);
            let is_same = again.outcome == submitted.outcome
                || again.outcome == Outcome::AlreadyApplied
                || submitted.outcome == Outcome::AlreadyApplied;
            assert!(is_same, "session {}: {submitted:?}, then {again:?}", self.session);
        }
        submitted
    }

    /// Submits a command under a number of the caller's choice until it is applied.
    pub(crate) async fn submit_as(
        &mut self,
        sequence: u64,
        acked_below: u64,
        command: &Command,
    ) -> Submitted {
        let command = command.encode().expect("within the limits");
        let request =
            Submit { session: self.session, sequence, acked_below, command, forward: true };
        self.until_done(|node| {
            let request = request.clone();
            async move { Ok(node.submit(context(), request).await??) }
        })
        .await
    }

    /// Sets a value.
    pub(crate) async fn put(&mut self, key: &str, value: &str) {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        self.submit(&Command::Put { key, value }).await;
    }

    /// Adds one; the new number, unless it is no longer kept.
    pub(crate) async fn increment(&mut self, key: &str) -> Option<i64> {
        let key = key.to_owned().into();
        number(self.submit(&Command::Incr { key, by: 1 }).await.outcome)
    }

    /// Writes behind a value.
    pub(crate) async fn append(&mut self, key: &str, text: &str) {
        let (key, value) = (key.to_owned().into(), text.to_owned().into());
        let submitted = self.submit(&Command::Append { key, value }).await;
        assert!(!matches!(submitted.outcome, Outcome::Refused(_)), "{submitted:?}");
    }

    /// Reads a value, linearizably.
    pub(crate) async fn get(&mut self, key: &str) -> Option<String> {
        let query = get(key);
        let answer = self.until_done(|node| {
            let request = Query { query: query.clone(), forward: true };
            async move { Ok(node.query(context(), request).await??) }
        });
        value(answer.await)
    }

    /// Asks one node, once, not to be passed on.
    pub(crate) async fn get_here(&mut self, key: &str) -> Result<Option<String>, Trouble> {
        let node = self.node().await?;
        let request = Query { query: get(key), forward: false };
        Ok(value(node.query(context(), request).await??))
    }

    /// Submits bytes, once, without a session.
    pub(crate) async fn submit_once(&mut self, command: Bytes) -> Result<Submitted, Trouble> {
        let node = self.node().await?;
        let request = Submit { session: 0, sequence: 0, acked_below: 0, command, forward: true };
        Ok(node.submit(context(), request).await??)
    }

    /// Asks one node, once, for a session, not to be passed on.
    pub(crate) async fn open_session_here(&mut self) -> Result<u64, Trouble> {
        let node = self.node().await?;
        Ok(node.open_session(context(), OpenSession { forward: false, ttl_ms: 0 }).await??.session)
    }

    async fn until_done<T, F>(&mut self, attempt: impl Fn(ClientServiceClient) -> F) -> T
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let begun = Instant::now();
        loop {
            let tried = match self.node().await {
                Ok(node) => attempt(node).await,
                Err(error) => Err(error.into()),
            };
            let trouble = match tried {
                Ok(done) => return done,
                Err(trouble) => trouble,
            };
            assert!(trouble.is_passing(), "session {}: {trouble}", self.session);
            assert!(begun.elapsed() < PATIENCE, "session {}: still {trouble}", self.session);
            self.go_on(&trouble);
            self.failures.push(trouble.to_string());
            sleep(RETRY_PAUSE).await;
        }
    }

    /// To the node of the hint, or to the next one.
    fn go_on(&mut self, trouble: &Trouble) {
        let hinted = trouble.hint().and_then(|address| {
            self.endpoints.iter().position(|endpoint| endpoint.to_string() == address)
        });
        self.at = hinted.unwrap_or(self.at + 1) % self.endpoints.len();
        self.connection = None;
    }

    async fn node(&mut self) -> Result<ClientServiceClient, ConnectError> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let (node, _) = client::connect(&self.endpoints[self.at], 0, CONNECT_TIMEOUT).await?;
        self.connection = Some(node.clone());
        Ok(node)
    }
}

/// What an `INCR` answered.
pub(crate) fn number(outcome: Outcome) -> Option<i64> {
    match outcome {
        Outcome::Done(result) => {
            let text = str::from_utf8(&result).expect("INCR answers in decimal");
            Some(text.parse().expect("INCR answers in decimal"))
        }
        Outcome::AlreadyApplied => None,
        Outcome::Refused(reason) => panic!("refused: {}", reason.escape_ascii()),
    }
}

fn context() -> Context {
    let mut context = tarpc::context::current();
    context.deadline = Instant::now() + ATTEMPT_TIMEOUT;
    context
}

fn get(key: &str) -> Bytes {
    Command::Get { key: key.to_owned().into() }.encode().expect("within the limits")
}

fn value(answer: Answer) -> Option<String> {
    let Outcome::Done(result) = answer.outcome else { panic!("not read: {answer:?}") };
    let value = decode_value(&result).expect("the cluster runs the key-value machine");
    value.map(|value| String::from_utf8_lossy(&value).into_owned())
}
