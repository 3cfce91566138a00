//! The clients' contract, translated into events of the first stage. A node that does not lead passes requests on.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use state_machine::startup::log;
use tarpc::context::Context;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, sleep_until, timeout_at};

use super::Shared;
use crate::command::{Command, Kind};
use crate::consensus::{Membership, NodeId, Status};
use crate::forward::ForwardItem;
use crate::pipeline::digest_entries::{EntriesEvent, MAX_WAITING_CALLERS, Submission, role_name};
use crate::pipeline::{QueryRefused, SubmitRefused};
use crate::rpc::client::{
    Answer, ChangeSession, ClientService, LeaderHint, LogFilter, MAX_COMMAND_BYTES, MemberStatus,
    NodeStatus, OpenSession, Outcome, Query, QueryError, SessionChange, SessionOpened, Submit,
    SubmitError, Submitted,
};
use crate::rpc::operation::{Operate, Operated, OperationError};
use crate::rpc::peer::Forward;
use crate::session::granted_ttl_ms;

/// Answers leave this much before the caller's deadline, so that they still arrive: an eighth of the time that there is, within
/// these bounds. The stages look only every 50 ms whose time is up.
const ANSWER_MARGIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(200));

/// Serves clients, and what peers pass on.
#[derive(Clone, Debug)]
pub(crate) struct ClientServer {
    pub(super) shared: Shared,
}

/// What a command's caller gets from this node, before anything is passed on.
type Placed = Result<(u64, Outcome), SubmitRefused>;

impl ClientServer {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared }
    }

    pub(super) async fn open_session_until(
        &self,
        due: Instant,
        request: OpenSession,
    ) -> Result<SessionOpened, SubmitError> {
        let ttl_ms = granted_ttl_ms(request.ttl_ms);
        let opening = Submit {
            session: 0,
            sequence: 0,
            acked_below: 0,
            command: Command::ttl_body(ttl_ms),
            forward: request.forward,
        };
        let forward = |remaining_ms| Forward::OpenSession { remaining_ms, ttl_ms };
        let (session, _) = self.carry(due, Kind::OpenSession, &opening, forward).await?;
        Ok(SessionOpened { session, ttl_ms })
    }

    /// Returns where the change stands in the log.
    pub(super) async fn change_session_until(
        &self,
        due: Instant,
        request: ChangeSession,
    ) -> Result<u64, SubmitError> {
        let ChangeSession { session, change, forward } = request;
        let kind = match change {
            SessionChange::Renew => Kind::RenewSession,
            SessionChange::Close => Kind::CloseSession,
        };
        let (sequence, acked_below, command) = (0, 0, Bytes::new());
        let changing = Submit { session, sequence, acked_below, command, forward };
        let forward = |remaining_ms| Forward::ChangeSession { session, change, remaining_ms };
        let (index, _) = self.carry(due, kind, &changing, forward).await?;
        Ok(index)
    }

    pub(super) async fn submit_until(
        &self,
        due: Instant,
        request: Submit,
    ) -> Result<Submitted, SubmitError> {
        check_size(&request.command)
            .map_err(|(bytes, limit)| SubmitError::TooLarge { bytes, limit })?;
        let forward = |remaining_ms| Forward::Submit {
            session: request.session,
            sequence: request.sequence,
            acked_below: request.acked_below,
            command: request.command.clone(),
            remaining_ms,
        };
        let (index, outcome) = self.carry(due, Kind::Apply, &request, forward).await?;
        Ok(Submitted { index, outcome })
    }

    pub(super) async fn query_until(
        &self,
        due: Instant,
        request: Query,
    ) -> Result<Answer, QueryError> {
        check_size(&request.query)
            .map_err(|(bytes, limit)| QueryError::TooLarge { bytes, limit })?;
        let _waits = self.shared.metrics.requests_waiting.issue();
        if self.is_crowded() {
            return Err(QueryError::Busy);
        }
        let mut search = Search::new(self, due);
        loop {
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
            let forwarded =
                Forward::Query { query: request.query.clone(), remaining_ms: remaining_ms(due) };
            let (item, answer) = ForwardItem::query(forwarded, due);
            let refused = if self.pass_on(leader, item) {
                match self.unless_deposed(leader, due, answer).await {
                    // A read changes nothing: it may be asked anew.
                    Err(NoAnswer::Deposed) => continue,
                    Err(NoAnswer::Overdue) => {
                        return Err(QueryError::Unavailable { reason: OVERDUE.to_owned() });
                    }
                    Ok(Err(_gone)) => {
                        let reason = LINK_ENDED.to_owned();
                        return Err(QueryError::Unavailable { reason });
                    }
                    Ok(Ok(Err(QueryError::NotLeader { hint: other }))) => other.or(hint),
                    Ok(Ok(answer)) => return answer,
                }
            } else {
                hint
            };
            if !search.finds_another_than(leader).await {
                return Err(QueryError::NotLeader { hint: refused });
            }
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

    /// Has a command applied, here or where the leader is, and says what became of it in the contract's words. When another
    /// leader comes up before there is an answer, the old one may never give it: a command of a session goes to the new one
    /// as well, where it takes effect once; of any other one it is said at once that nothing is known.
    async fn carry(
        &self,
        due: Instant,
        kind: Kind,
        request: &Submit,
        forward: impl Fn(u32) -> Forward,
    ) -> Result<(u64, Outcome), SubmitError> {
        let _waits = self.shared.metrics.requests_waiting.issue();
        if self.is_crowded() {
            return Err(SubmitError::Busy);
        }
        let mut search = Search::new(self, due);
        let mut in_doubt = false;
        loop {
            let leader = match self.place(due, kind, request.clone()).await {
                Ok(done) => return Ok(done),
                Err(SubmitRefused::NotLeader { leader }) => leader,
                Err(SubmitRefused::NotReady) if search.waits_a_little().await => continue,
                Err(refused) => return Err(doubting(in_doubt, submit_error(refused, request))),
            };
            let hint = self.hint(leader);
            if !request.forward {
                return Err(SubmitError::NotLeader { hint });
            }
            let (item, answer) = ForwardItem::submit(forward(remaining_ms(due)), due);
            let refused = if self.pass_on(leader, item) {
                match self.unless_deposed(leader, due, answer).await {
                    Err(NoAnswer::Deposed) if is_repeatable(kind, request) => {
                        in_doubt = true;
                        continue;
                    }
                    Err(NoAnswer::Deposed) => {
                        return Err(unknown("the leader changed before it answered"));
                    }
                    Err(NoAnswer::Overdue) => return Err(unknown(OVERDUE)),
                    Ok(Err(_gone)) => return Err(unknown(LINK_ENDED)),
                    Ok(Ok(Err(SubmitError::NotLeader { hint: other }))) => other.or(hint),
                    Ok(Ok(Err(error))) => return Err(doubting(in_doubt, error)),
                    Ok(Ok(Ok(done))) => return Ok(done),
                }
            } else {
                hint
            };
            if !search.finds_another_than(leader).await {
                return Err(doubting(in_doubt, SubmitError::NotLeader { hint: refused }));
            }
        }
    }

    /// Waits for the answer of a leader, but not when another one is known: it may be frozen or cut off. Nor for long after
    /// `due`, when the leader has answered by itself.
    async fn unless_deposed<T>(
        &self,
        leader: Option<NodeId>,
        due: Instant,
        answer: oneshot::Receiver<T>,
    ) -> Result<Result<T, oneshot::error::RecvError>, NoAnswer> {
        let mut known = self.shared.leader.clone();
        let another = known.wait_for(|known| known.is_some() && *known != leader);
        tokio::select! {
            biased;
            answer = answer => Ok(answer),
            Ok(_) = another => Err(NoAnswer::Deposed),
            () = sleep_until((due + OVERDUE_AFTER).into()) => Err(NoAnswer::Overdue),
        }
    }

    /// Whether too many wait here, whoever leads.
    fn is_crowded(&self) -> bool {
        self.shared.metrics.requests_waiting.outstanding() > MAX_WAITING_CALLERS
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

    /// Hands a request to the link to another node; false when there is none, or no room on it.
    pub(super) fn pass_on(&self, leader: Option<NodeId>, item: ForwardItem) -> bool {
        let Some(leader) = leader.filter(|leader| *leader != self.shared.node.id) else {
            return false;
        };
        let routes = self.shared.routes.borrow();
        routes.get(&leader).is_some_and(|route| route.forwards.try_send(item).is_ok())
    }

    pub(super) fn hint(&self, leader: Option<NodeId>) -> Option<LeaderHint> {
        let leader = leader?;
        let address = if leader == self.shared.node.id {
            self.shared.node.raft_address.clone()
        } else {
            self.shared.routes.borrow().get(&leader)?.address.clone()
        };
        Some(LeaderHint { node: leader.0, address })
    }

    fn due(&self, context: Context) -> Instant {
        in_time(context).min(Instant::now() + self.shared.request_timeout)
    }

    pub(super) fn patience_ticks(&self, due: Instant) -> u64 {
        self.shared.ticks(due.saturating_duration_since(Instant::now()))
    }

    /// The core as it is now; none when the first stage is gone.
    pub(crate) async fn look(&self) -> Option<Status> {
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
        let begun = Instant::now();
        let submitted = self.submit_until(self.due(context), request).await;
        self.shared.metrics.note_submit(begun.elapsed(), &submitted);
        submitted
    }

    async fn query(self, context: Context, request: Query) -> Result<Answer, QueryError> {
        let begun = Instant::now();
        let answer = self.query_until(self.due(context), request).await;
        self.shared.metrics.note_query(begun.elapsed(), &answer);
        answer
    }

    async fn status(self, _: Context) -> NodeStatus {
        let Some(status) = self.look().await else {
            // The stage is gone, so the process is about to end: the caller sees its connection close.
            return std::future::pending().await;
        };
        let node = &self.shared.node;
        let commits = self.shared.commits.borrow().clone();
        let snapshot = self.shared.receiver.shelf().store().newest();
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
            http_address: node.http_address.clone(),
            first_index: status.first_index.0,
            snapshot_index: snapshot.as_ref().map_or(0, |snapshot| snapshot.meta.last.index.0),
            snapshot_bytes: snapshot.map_or(0, |snapshot| snapshot.bytes),
            log_bytes: self.shared.metrics.log_bytes.load(Ordering::Relaxed),
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
                    http_address: info.http_address.clone(),
                }),
            }
        }
        members
    }

    async fn operate(self, context: Context, request: Operate) -> Result<Operated, OperationError> {
        self.operate_until(in_time(context), request).await
    }

    async fn change_session(
        self,
        context: Context,
        request: ChangeSession,
    ) -> Result<(), SubmitError> {
        self.change_session_until(self.due(context), request).await.map(drop)
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

/// When the answer to a call has to leave.
fn in_time(context: Context) -> Instant {
    let (least, most) = ANSWER_MARGIN;
    let margin = context.deadline.saturating_duration_since(Instant::now()) / 8;
    context.deadline.checked_sub(margin.clamp(least, most)).unwrap_or(context.deadline)
}

/// Why an answer is not waited for any longer.
enum NoAnswer {
    /// Another leader is known than the one that was asked.
    Deposed,
    /// Its time is over.
    Overdue,
}

const OVERDUE: &str = "the leader did not answer in time";
/// How long after a request's time the leader's own word on it may still arrive.
const OVERDUE_AFTER: Duration = Duration::from_millis(100);

const LINK_ENDED: &str = "the link to the leader ended";
/// Pause before a leader is asked again whether its handover is over.
const HANDOVER_PAUSE: Duration = Duration::from_millis(10);

/// Looking for a leader, for as long as an election may take: a request that comes between two leaders need not fail.
struct Search {
    leader: watch::Receiver<Option<NodeId>>,
    due: Instant,
    patience: Duration,
    /// Set when the search begins.
    until: Option<Instant>,
}

impl Search {
    fn new(server: &ClientServer, due: Instant) -> Self {
        let (leader, patience) = (server.shared.leader.clone(), server.shared.election_timeout);
        Self { leader, due, patience, until: None }
    }

    /// Whether a leader other than `tried` is known in time.
    async fn finds_another_than(&mut self, tried: Option<NodeId>) -> bool {
        // A leader that is stopping refuses without naming anybody, while it is still the known one.
        if tried.is_none() && self.leader.borrow().is_some() && !self.waits_a_little().await {
            return false;
        }
        let until = self.until();
        let another = self.leader.wait_for(|known| known.is_some() && *known != tried);
        timeout_at(until.into(), another).await.is_ok_and(|found| found.is_ok())
    }

    async fn waits_a_little(&mut self) -> bool {
        let in_time = Instant::now() < self.until();
        if in_time {
            sleep(HANDOVER_PAUSE).await;
        }
        in_time
    }

    fn until(&mut self) -> Instant {
        let latest = self.due.min(Instant::now() + self.patience);
        *self.until.get_or_insert(latest)
    }
}

/// Whether a command that was sent twice takes effect once. A session too many does no harm, nor does renewing or closing
/// one twice.
fn is_repeatable(kind: Kind, request: &Submit) -> bool {
    kind == Kind::OpenSession || request.session != 0
}

/// What is said of a command of which an earlier attempt is still open: that this one was refused does not settle it.
fn doubting(in_doubt: bool, error: SubmitError) -> SubmitError {
    let is_open =
        matches!(error, SubmitError::CommittedNotApplied { .. } | SubmitError::Unknown { .. });
    if is_open || !in_doubt {
        return error;
    }
    unknown(&format!("the leader changed before it answered; the next one: {error}"))
}

fn unknown(reason: &str) -> SubmitError {
    SubmitError::Unknown { reason: reason.to_owned() }
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

pub(super) fn remaining_ms(due: Instant) -> u32 {
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
        SubmitRefused::Busy | SubmitRefused::NotReady => SubmitError::Busy,
        SubmitRefused::SessionExpired => SubmitError::SessionExpired { session },
        SubmitRefused::OutsideWindow => SubmitError::OutsideWindow { sequence },
        SubmitRefused::AlreadyAcknowledged => SubmitError::AlreadyAcknowledged { sequence },
        SubmitRefused::CommittedNotApplied { index } => {
            SubmitError::CommittedNotApplied { index: index.0 }
        }
        SubmitRefused::Unknown { reason } => SubmitError::Unknown { reason },
    }
}

#[cfg(test)]
mod tests;
