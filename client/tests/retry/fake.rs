//! A node that answers as it is told, over a real connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use raft::rpc::client::{
    Answer, ChangeSession, ClientService, LeaderHint, LogFilter, MemberStatus, NodeStatus,
    OpenSession, Outcome, Query, QueryError, SessionChange, SessionOpened, Submit, SubmitError,
    Submitted, serve,
};
use raft::rpc::operation::{Operate, Operated, OperationError};
use raft::rpc::wire::{Hello, Listener, Service};
use raft::session::granted_ttl_ms;
use raft_client::Endpoint;
use tarpc::context::Context;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The cluster that fake nodes belong to unless told otherwise.
pub(crate) const CLUSTER: u128 = 0xc1;

/// What a node does with a command.
pub(crate) enum Step {
    /// Answers.
    Say(SubmitError),
    /// Closes the connection instead of answering.
    Break,
    /// Never answers.
    Hang,
    /// Answers that it is applied, once it may.
    Wait(Arc<Notify>),
}

/// A running node. Ends with its handle.
pub(crate) struct Fake {
    pub(crate) endpoint: Endpoint,
    state: Arc<Mutex<State>>,
    running: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    steps: VecDeque<Step>,
    openings: VecDeque<SubmitError>,
    queries: VecDeque<QueryError>,
    operations: VecDeque<OperationError>,
    asked_to_operate: u64,
    members: Vec<MemberStatus>,
    leader: Option<LeaderHint>,
    sessions: u64,
    connections: u64,
    asked_for_members: u64,
    submits: Vec<Submit>,
    changes: Vec<(u64, SessionChange)>,
    failing_changes: VecDeque<SubmitError>,
}

#[derive(Clone)]
struct Connection {
    state: Arc<Mutex<State>>,
    closed: Arc<Notify>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::of_cluster(CLUSTER).await
    }

    pub(crate) async fn of_cluster(cluster: u128) -> Self {
        let listener = Listener::tcp("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_address().unwrap().to_string().parse().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let running = tokio::spawn(listen(listener, cluster, Arc::clone(&state)));
        Self { endpoint, state, running }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What to do with the next commands, one after the other; any further one is applied.
    pub(crate) fn then(self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.state().steps.extend(steps);
        self
    }

    /// The same for the next sessions to be opened.
    pub(crate) fn opening(self, errors: impl IntoIterator<Item = SubmitError>) -> Self {
        self.state().openings.extend(errors);
        self
    }

    /// The same for the next reads.
    pub(crate) fn reading(self, errors: impl IntoIterator<Item = QueryError>) -> Self {
        self.state().queries.extend(errors);
        self
    }

    /// The same for the next wishes of operators.
    pub(crate) fn operating(self, errors: impl IntoIterator<Item = OperationError>) -> Self {
        self.state().operations.extend(errors);
        self
    }

    /// How often an operator wanted something.
    pub(crate) fn asked_to_operate(&self) -> u64 {
        self.state().asked_to_operate
    }

    /// Whom the node knows.
    pub(crate) fn knowing(self, other: &Fake, leader: bool) -> Self {
        let raft_address = other.endpoint.to_string();
        if leader {
            self.state().leader = Some(LeaderHint { node: 9, address: raft_address.clone() });
        }
        self.state().members.push(MemberStatus {
            name: "other".to_owned(),
            id: "0000000000000009".to_owned(),
            state: "alive".to_owned(),
            configured: "voter".to_owned(),
            raft_address,
            gossip_address: String::new(),
            http_address: String::new(),
        });
        self
    }

    /// Every command that arrived.
    pub(crate) fn submits(&self) -> Vec<Submit> {
        self.state().submits.clone()
    }

    /// What to answer to the next changes of sessions, one after the other; any further one is made.
    pub(crate) fn changing(self, errors: impl IntoIterator<Item = SubmitError>) -> Self {
        self.state().failing_changes.extend(errors);
        self
    }

    /// Every change of a session that was asked for.
    pub(crate) fn changes(&self) -> Vec<(u64, SessionChange)> {
        self.state().changes.clone()
    }

    /// Session and number of every command that arrived.
    pub(crate) fn stamps(&self) -> Vec<(u64, u64)> {
        self.state().submits.iter().map(|submit| (submit.session, submit.sequence)).collect()
    }

    pub(crate) fn connections(&self) -> u64 {
        self.state().connections
    }

    pub(crate) fn sessions(&self) -> u64 {
        self.state().sessions
    }

    pub(crate) fn asked_for_members(&self) -> u64 {
        self.state().asked_for_members
    }

    /// Ends the node as a crash would, and returns the address where nobody listens any more.
    pub(crate) async fn crash(mut self) -> Endpoint {
        self.running.abort();
        assert!((&mut self.running).await.unwrap_err().is_cancelled());
        self.endpoint.clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn listen(listener: Listener, cluster: u128, state: Arc<Mutex<State>>) {
    // Connections end with the node.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok(mut io) = listener.accept().await {
        let connection = Connection { state: Arc::clone(&state), closed: Arc::default() };
        let closed = Arc::clone(&connection.closed);
        connections.spawn(async move {
            let hello = Hello::new(Service::Client, cluster, 1, 1);
            if hello.answer(&mut io, |_| Ok(())).await.is_err() {
                return;
            }
            connection.state.lock().unwrap().connections += 1;
            tokio::select! {
                _ = serve(io, connection) => {}
                () = closed.notified() => {}
            }
        });
    }
}

impl ClientService for Connection {
    async fn open_session(
        self,
        _: Context,
        request: OpenSession,
    ) -> Result<SessionOpened, SubmitError> {
        let mut state = self.state.lock().unwrap();
        if let Some(error) = state.openings.pop_front() {
            return Err(error);
        }
        state.sessions += 1;
        let ttl_ms = granted_ttl_ms(request.ttl_ms);
        Ok(SessionOpened { session: 100 + state.sessions, ttl_ms })
    }

    async fn change_session(self, _: Context, request: ChangeSession) -> Result<(), SubmitError> {
        let mut state = self.state.lock().unwrap();
        state.changes.push((request.session, request.change));
        state.failing_changes.pop_front().map_or(Ok(()), Err)
    }

    async fn submit(self, _: Context, request: Submit) -> Result<Submitted, SubmitError> {
        let (step, index) = {
            let mut state = self.state.lock().unwrap();
            state.submits.push(request);
            (state.steps.pop_front(), state.submits.len() as u64)
        };
        match step {
            None => {}
            Some(Step::Say(error)) => return Err(error),
            Some(Step::Wait(released)) => released.notified().await,
            Some(Step::Hang) => std::future::pending::<()>().await,
            Some(Step::Break) => {
                self.closed.notify_one();
                std::future::pending::<()>().await;
            }
        }
        Ok(Submitted { index, outcome: Outcome::Done(Bytes::from_static(b"done")) })
    }

    async fn query(self, _: Context, request: Query) -> Result<Answer, QueryError> {
        match self.state.lock().unwrap().queries.pop_front() {
            Some(error) => Err(error),
            None => Ok(Answer { read_index: 1, outcome: Outcome::Done(request.query) }),
        }
    }

    async fn status(self, _: Context) -> NodeStatus {
        let leader = self.state.lock().unwrap().leader.clone();
        NodeStatus {
            name: "fake".to_owned(),
            id: "0000000000000001".to_owned(),
            cluster: None,
            role: "follower".to_owned(),
            pid: 1,
            boot: 1,
            term: 1,
            leader,
            commit_index: 0,
            applied_index: 0,
            last_index: 0,
            voters: Vec::new(),
            outgoing: Vec::new(),
            learners: Vec::new(),
            membership_committed: true,
            state_machine: "attached".to_owned(),
            member: "connected".to_owned(),
            fsync: true,
            version: "0".to_owned(),
            http_address: String::new(),
            first_index: 1,
            snapshot_index: 0,
            snapshot_bytes: 0,
            log_bytes: 0,
        }
    }

    async fn members(self, _: Context) -> Vec<MemberStatus> {
        let mut state = self.state.lock().unwrap();
        state.asked_for_members += 1;
        state.members.clone()
    }

    async fn operate(self, _: Context, _: Operate) -> Result<Operated, OperationError> {
        let mut state = self.state.lock().unwrap();
        state.asked_to_operate += 1;
        match state.operations.pop_front() {
            Some(error) => Err(error),
            None => Ok(Operated::Leads(LeaderHint { node: 9, address: "there:1".to_owned() })),
        }
    }

    async fn log_filter(self, _: Context, _: Option<String>) -> Result<LogFilter, String> {
        Err("a fake has no log".to_owned())
    }
}
