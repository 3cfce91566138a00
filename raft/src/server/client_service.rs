//! The clients' contract, translated into events of the first stage. A node that does not lead passes requests on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use state_machine::startup::log;
use tarpc::context::Context;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use super::Shared;
use crate::command::Kind;
use crate::consensus::{Membership, NodeId, Status};
use crate::forward::ForwardItem;
use crate::pipeline::digest_entries::{EntriesEvent, Submission, role_name};
use crate::pipeline::{QueryRefused, SubmitRefused};
use crate::rpc::client::{
    Answer, ClientService, LeaderHint, LogFilter, MAX_COMMAND_BYTES, MemberStatus, NodeStatus,
    OpenSession, Outcome, Query, QueryError, SessionOpened, Submit, SubmitError, Submitted,
};
use crate::rpc::peer::Forward;

/// Answers leave this much before the caller's deadline, so that they still arrive.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// Serves clients, and what peers pass on.
#[derive(Clone, Debug)]
pub(super) struct ClientServer {
    shared: Shared,
}

/// What a command's caller gets from this node, before anything is passed on.
type Placed = Result<(u64, Outcome), SubmitRefused>;

impl ClientServer {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }
    }

    pub(super) async fn open_session_until(
        &self,
        due: Instant,
        request: OpenSession,
    ) -> Result<SessionOpened, SubmitError> {
        let opening = Submit {
            session: 0,
            sequence: 0,
            acked_below: 0,
            command: Bytes::new(),
            forward: request.forward,
        };
        let placed = self.place(due, Kind::OpenSession, opening.clone()).await;
        let forward = |remaining_ms| Forward::OpenSession { remaining_ms };
        let (session, _) = self.finish(due, &opening, placed, forward).await?;
        Ok(SessionOpened { session })
    }

    pub(super) async fn submit_until(
        &self,
        due: Instant,
        request: Submit,
    ) -> Result<Submitted, SubmitError> {
        check_size(&request.command)
            .map_err(|(bytes, limit)| SubmitError::TooLarge { bytes, limit })?;
        let placed = self.place(due, Kind::Apply, request.clone()).await;
        let forward = |remaining_ms| Forward::Submit {
            session: request.session,
            sequence: request.sequence,
            acked_below: request.acked_below,
            command: request.command.clone(),
            remaining_ms,
        };
        let (index, outcome) = self.finish(due, &request, placed, forward).await?;
        Ok(Submitted { index, outcome })
    }

    pub(super) async fn query_until(
        &self,
        due: Instant,
        request: Query,
    ) -> Result<Answer, QueryError> {
        check_size(&request.query)
            .map_err(|(bytes, limit)| QueryError::TooLarge { bytes, limit })?;
        let leader = match self.read(due, request.query.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(QueryRefused::Busy) => return Err(QueryError::Busy),
            Err(QueryRefused::Unavailable { reason }) => {
                return Err(QueryError::Unavailable { reason });
            }
            Err(QueryRefused::NotLeader { leader }) => leader,
        };
        let hint = self.hint(leader);
        if !request.forward {
            return Err(QueryError::NotLeader { hint });
        }
        let forwarded = Forward::Query { query: request.query, remaining_ms: remaining_ms(due) };
        let (item, answer) = ForwardItem::query(forwarded, due);
        if !self.pass_on(leader, item) {
            return Err(QueryError::NotLeader { hint });
        }
        let lost = || QueryError::Unavailable { reason: "the link to the leader ended".to_owned() };
        match answer.await.map_err(|_gone| lost())? {
            Err(QueryError::NotLeader { hint: None }) => Err(QueryError::NotLeader { hint }),
            other => other,
        }
    }

    /// Gives a command to the first stage and waits for what became of it.
    async fn place(&self, due: Instant, kind: Kind, request: Submit) -> Placed {
        let (reply, outcome) = oneshot::channel();
        let event = EntriesEvent::Submit(Submission {
            kind,
            session: request.session,
            sequence: request.sequence,
            acked_below: request.acked_below,
            body: request.command,
            patience_ticks: self.patience_ticks(due),
            reply,
        });
        match self.shared.inbox.try_send(event) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(SubmitRefused::Busy),
            Err(TrySendError::Closed(_)) => return Err(SubmitRefused::NotLeader { leader: None }),
        }
        let stopped = || SubmitRefused::Unknown { reason: "this node is stopping".to_owned() };
        outcome.await.map_err(|_gone| stopped())?.map(|(index, outcome)| (index.0, outcome))
    }

    /// Passes a command on if this node does not lead, and puts what became of it in the contract's words.
    async fn finish(
        &self,
        due: Instant,
        request: &Submit,
        placed: Placed,
        forward: impl FnOnce(u32) -> Forward,
    ) -> Result<(u64, Outcome), SubmitError> {
        let leader = match placed {
            Ok(done) => return Ok(done),
            Err(SubmitRefused::NotLeader { leader }) => leader,
            Err(refused) => return Err(submit_error(refused, request)),
        };
        let hint = self.hint(leader);
        if !request.forward {
            return Err(SubmitError::NotLeader { hint });
        }
        let (item, answer) = ForwardItem::submit(forward(remaining_ms(due)), due);
        if !self.pass_on(leader, item) {
            return Err(SubmitError::NotLeader { hint });
        }
        let lost = || SubmitError::Unknown { reason: "the link to the leader ended".to_owned() };
        match answer.await.map_err(|_gone| lost())? {
            Err(SubmitError::NotLeader { hint: None }) => Err(SubmitError::NotLeader { hint }),
            other => other,
        }
    }

    async fn read(&self, due: Instant, query: Bytes) -> Result<Answer, QueryRefused> {
        let (reply, outcome) = oneshot::channel();
        let patience_ticks = self.patience_ticks(due);
        match self.shared.inbox.try_send(EntriesEvent::Query { query, patience_ticks, reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(QueryRefused::Busy),
            Err(TrySendError::Closed(_)) => return Err(QueryRefused::NotLeader { leader: None }),
        }
        let stopped = || QueryRefused::Unavailable { reason: "this node is stopping".to_owned() };
        outcome.await.map_err(|_gone| stopped())?
    }

    /// Hands a request to the link to the leader; false when there is none, or no room on it.
    fn pass_on(&self, leader: Option<NodeId>, item: ForwardItem) -> bool {
        let Some(leader) = leader.filter(|leader| *leader != self.shared.node.id) else {
            return false;
        };
        let routes = self.shared.routes.borrow();
        routes.get(&leader).is_some_and(|route| route.forwards.try_send(item).is_ok())
    }

    fn hint(&self, leader: Option<NodeId>) -> Option<LeaderHint> {
        let leader = leader?;
        let address = if leader == self.shared.node.id {
            self.shared.node.raft_address.clone()
        } else {
            self.shared.routes.borrow().get(&leader)?.address.clone()
        };
        Some(LeaderHint { node: leader.0, address })
    }

    fn due(&self, context: Context) -> Instant {
        let deadline = context.deadline.checked_sub(ANSWER_MARGIN).unwrap_or(context.deadline);
        deadline.min(Instant::now() + self.shared.request_timeout)
    }

    fn patience_ticks(&self, due: Instant) -> u64 {
        self.shared.ticks(due.saturating_duration_since(Instant::now()))
    }

    async fn look(&self) -> Option<Status> {
        let (reply, status) = oneshot::channel();
        self.shared.inbox.send(EntriesEvent::Status(reply)).await.ok()?;
        status.await.ok()
    }
}

impl ClientService for ClientServer {
    async fn open_session(
        self,
        context: Context,
        request: OpenSession,
    ) -> Result<SessionOpened, SubmitError> {
        self.open_session_until(self.due(context), request).await
    }

    async fn submit(self, context: Context, request: Submit) -> Result<Submitted, SubmitError> {
        self.submit_until(self.due(context), request).await
    }

    async fn query(self, context: Context, request: Query) -> Result<Answer, QueryError> {
        self.query_until(self.due(context), request).await
    }

    async fn status(self, _: Context) -> NodeStatus {
        let Some(status) = self.look().await else {
            // The stage is gone, so the process is about to end: the caller sees its connection close.
            return std::future::pending().await;
        };
        let node = &self.shared.node;
        let commits = self.shared.commits.borrow().clone();
        let ids =
            |ids: &std::collections::BTreeSet<NodeId>| ids.iter().map(NodeId::to_string).collect();
        NodeStatus {
            name: node.name.clone(),
            id: node.id.to_string(),
            cluster: node.cluster().map(|cluster| format!("{cluster:032x}")),
            role: role_name(&status).to_owned(),
            pid: std::process::id(),
            boot: node.boot,
            term: status.term.0,
            leader: self.hint(status.leader),
            commit_index: status.commit_index.0,
            applied_index: commits.applied.0,
            last_index: status.last.index.0,
            voters: ids(&status.membership.voters),
            outgoing: ids(&status.membership.outgoing),
            learners: ids(&status.membership.learners),
            membership_committed: status.membership_committed,
            state_machine: commits.machine.to_string(),
            member: self.shared.sight.borrow().member.to_string(),
            fsync: self.shared.fsync,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    async fn members(self, _: Context) -> Vec<MemberStatus> {
        let Some(status) = self.look().await else {
            return std::future::pending().await;
        };
        let membership = status.membership;
        let sight = self.shared.sight.borrow().clone();
        let mut members: Vec<MemberStatus> = sight.members.iter().cloned().collect();
        let seen: BTreeMap<String, usize> =
            members.iter().enumerate().map(|(place, member)| (member.id.clone(), place)).collect();
        for (id, info) in &membership.nodes {
            let configured = configured(&membership, *id);
            match seen.get(&id.to_string()) {
                Some(place) => configured.clone_into(&mut members[*place].configured),
                None => members.push(MemberStatus {
                    name: info.name.clone(),
                    id: id.to_string(),
                    state: "unseen".to_owned(),
                    configured: configured.to_owned(),
                    raft_address: info.raft_address.clone(),
                    gossip_address: String::new(),
                }),
            }
        }
        members
    }

    async fn log_filter(self, _: Context, filter: Option<String>) -> Result<LogFilter, String> {
        log_filter(&self.shared.node.name, filter.as_deref())
    }
}

/// This is no state of the cluster: it may change here, and does so at once.
fn log_filter(node: &str, wanted: Option<&str>) -> Result<LogFilter, String> {
    let Some(wanted) = wanted else {
        return log::filter().map(|filter| LogFilter { node: node.to_owned(), filter });
    };
    let filter = log::set_filter(wanted)?;
    tracing::info!(filter, "log filter set by a client");
    Ok(LogFilter { node: node.to_owned(), filter })
}

fn configured(membership: &Membership, id: NodeId) -> &'static str {
    if membership.voters.contains(&id) {
        "voter"
    } else if membership.outgoing.contains(&id) {
        "outgoing"
    } else if membership.learners.contains(&id) {
        "learner"
    } else {
        "none"
    }
}

fn remaining_ms(due: Instant) -> u32 {
    let remaining = due.saturating_duration_since(Instant::now()).as_millis();
    u32::try_from(remaining).unwrap_or(u32::MAX)
}

fn check_size(bytes: &Bytes) -> Result<(), (u64, u64)> {
    if bytes.len() > MAX_COMMAND_BYTES {
        return Err((bytes.len() as u64, MAX_COMMAND_BYTES as u64));
    }
    Ok(())
}

fn submit_error(refused: SubmitRefused, request: &Submit) -> SubmitError {
    let (session, sequence) = (request.session, request.sequence);
    match refused {
        SubmitRefused::NotLeader { .. } => SubmitError::NotLeader { hint: None },
        SubmitRefused::Busy => SubmitError::Busy,
        SubmitRefused::SessionExpired => SubmitError::SessionExpired { session },
        SubmitRefused::OutsideWindow => SubmitError::OutsideWindow { sequence },
        SubmitRefused::AlreadyAcknowledged => SubmitError::AlreadyAcknowledged { sequence },
        SubmitRefused::CommittedNotApplied { index } => {
            SubmitError::CommittedNotApplied { index: index.0 }
        }
        SubmitRefused::Unknown { reason } => SubmitError::Unknown { reason },
    }
}
