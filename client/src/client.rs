//! The client: commands and reads for any state machine, and what the nodes say of themselves.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use raft::rpc::client::{
    ClientServiceClient, LogFilter, MAX_COMMAND_BYTES, MemberStatus, NodeStatus, OpenSession,
    Outcome, Query, SESSION_WINDOW, SessionChange, SessionOpened, Submit, Submitted,
};
use raft::rpc::wire::Endpoint;
use tarpc::client::RpcError;
use tarpc::context::Context;
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Refusal, Tried};
use crate::options::Options;
use crate::pursuit::Pursuer;
use crate::renewal::{self, Renewal};
use crate::session::{Session, Sessions, Stamp};
use crate::verdict::GivenUp;

/// A handle to a cluster, cheap to clone. Any number of requests may be under way; those of all clones share their
/// connections and one session.
///
/// Must be used within a tokio runtime. A request whose future is dropped may still be carried out.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) pursuer: Arc<Pursuer>,
    sessions: Arc<Sessions>,
    repeated: Option<Stamp>,
}

/// A command that is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt<T> {
    /// Under which name it was sent.
    pub stamp: Stamp,
    /// Where it stands in the log; of a repeated command, where it stood first.
    pub index: u64,
    /// What the state machine said. None when it was applied before and its result is no longer kept.
    pub result: Option<T>,
}

/// What the state machine said to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The answer holds all commands up to here, maybe more.
    pub read_index: u64,
    /// The state machine's word.
    pub result: T,
}

impl Client {
    /// Connects to nothing yet.
    ///
    /// # Panics
    /// Without an endpoint.
    pub fn new(options: Options) -> Self {
        let pursuer = Arc::new(Pursuer::new(options));
        Self { pursuer, sessions: Arc::default(), repeated: None }
    }

    /// A handle that sends its command under a name used before, perhaps by another process: whichever of the two comes
    /// first is applied, the other one is recognised. For one command only, and never said to be refused: the first attempt may
    /// have been applied. Says to the cluster that the answers of all
    /// commands further back than [`SESSION_WINDOW`] have been received.
    #[must_use]
    pub fn repeating(&self, stamp: Stamp) -> Self {
        Self { repeated: Some(stamp), ..self.clone() }
    }

    /// Has a command applied, once, and returns what the state machine said. Opens a session if this is the client's
    /// first command.
    ///
    /// # Errors
    /// [`Error`] says whether it was, or may be, applied.
    pub async fn submit(&self, command: Bytes) -> Result<Receipt<Bytes>, Error> {
        check_size(&command)?;
        let deadline = self.deadline();
        if let Some(stamp) = self.repeated {
            let acked_below = stamp.sequence.saturating_sub(SESSION_WINDOW - 1).max(1);
            return self.submit_until(deadline, stamp, || acked_below, command).await;
        }
        loop {
            let session = self.sessions.current();
            let id = self.session_id(&session, deadline).await?;
            let ticket = timeout_at(deadline, session.ticket());
            let ticket = ticket.await.map_err(|_elapsed| Refusal::WindowFull)?;
            let stamp = Stamp { session: id, sequence: ticket.sequence() };
            let acked_below = || ticket.acked_below();
            let sent = Instant::now();
            match self.submit_until(deadline, stamp, acked_below, command.clone()).await {
                // Surely not applied under that session, so another one is safe.
                Err(Error::Refused(Refusal::SessionExpired { .. })) => self.sessions.forget(id),
                outcome => {
                    if outcome.is_ok() {
                        session.note_use(sent);
                    }
                    return outcome;
                }
            }
        }
    }

    /// Ends the session of this client and its clones, if there is one: the cluster need not remember it until it expires.
    /// A command after that opens another one; one that is still to be repeated under its stamp would be refused.
    ///
    /// # Errors
    /// It may be open still, and expires by itself.
    pub async fn close(&self) -> Result<(), Error> {
        let session = self.sessions.take();
        let Some(id) = session.id.get() else { return Ok(()) };
        let closing = renewal::change(&self.pursuer, *id, SessionChange::Close, self.deadline());
        closing.await.map_err(GivenUp::of_operation)
    }

    /// Asks the state machine. The answer holds every command that was acknowledged before.
    ///
    /// # Errors
    /// [`Error`]; a read changes nothing.
    pub async fn query(&self, query: Bytes) -> Result<Answer<Bytes>, Error> {
        check_size(&query)?;
        let request = Query { query, forward: self.pursuer.options.forward };
        let ask = |client: ClientServiceClient, context| {
            let request = request.clone();
            async move { client.query(context, request).await }
        };
        let answer = self.pursuer.pursue(self.deadline(), ask).await;
        let answer = answer.map_err(GivenUp::of_read)?;
        let result = said(answer.outcome)?.unwrap_or_default();
        Ok(Answer { read_index: answer.read_index, result })
    }

    /// What a node says of itself: the first that answers.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn status(&self) -> Result<NodeStatus, Error> {
        let answer = self.pursuer.pursue(self.deadline(), ask_status).await;
        answer.map_err(GivenUp::of_read)
    }

    /// What all nodes say of themselves, each asked once: those that were named, and the members of the cluster that
    /// they know. The error says why a node did not answer.
    pub async fn status_of_all(&self) -> Vec<(Endpoint, Result<NodeStatus, String>)> {
        let deadline = self.deadline().min(Instant::now() + self.pursuer.options.patience);
        let named = self.pursuer.options.endpoints.clone();
        let mut statuses = self.ask_each(named, deadline).await;
        let learned = self.learn_members(&statuses, deadline).await;
        statuses.extend(self.ask_each(learned, deadline).await);
        statuses.sort_by(|(a, _), (b, _)| a.cmp(b));
        statuses.dedup_by(|(a, _), (b, _)| a == b);
        statuses
    }

    /// The members as gossip sees them, joined with the configuration: from the first node that answers.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn members(&self) -> Result<Vec<MemberStatus>, Error> {
        let answer = self.pursuer.pursue(self.deadline(), ask_members).await;
        answer.map_err(GivenUp::of_read)
    }

    /// What the raft process of a node logs, the first that answers; with a filter, changes it before.
    ///
    /// # Errors
    /// Nobody answers, or the filter is none.
    pub async fn log_filter(&self, filter: Option<String>) -> Result<LogFilter, Error> {
        let ask = |client: ClientServiceClient, context| {
            let filter = filter.clone();
            async move { client.log_filter(context, filter).await.map(Ok::<_, Infallible>) }
        };
        let answer = self.pursuer.pursue(self.deadline(), ask).await;
        let told = answer.map_err(GivenUp::of_read)?;
        told.map_err(|reason| Refusal::LogFilter { reason }.into())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.pursuer.options.timeout
    }

    async fn session_id(&self, session: &Arc<Session>, deadline: Instant) -> Result<u64, Error> {
        let opening = session.id.get_or_try_init(|| self.open(session, deadline));
        match timeout_at(deadline, opening).await {
            Ok(id) => id.copied(),
            // Another request of this client was at it, and reports why it failed.
            Err(_elapsed) => Err(Error::NoLeader {
                waited: self.pursuer.options.timeout,
                tried: Tried::default(),
            }),
        }
    }

    async fn open(&self, session: &Arc<Session>, deadline: Instant) -> Result<u64, Error> {
        let sent = Instant::now();
        let SessionOpened { session: id, ttl_ms } = self.open_session(deadline).await?;
        session.note_use(sent);
        let ttl = Duration::from_millis(ttl_ms);
        session.keep(Renewal::begin(session, &self.pursuer, id, ttl));
        Ok(id)
    }

    async fn open_session(&self, deadline: Instant) -> Result<SessionOpened, Error> {
        let ttl = self.pursuer.options.session_ttl.as_millis();
        let ttl_ms = u64::try_from(ttl).unwrap_or(u64::MAX);
        let request = OpenSession { forward: self.pursuer.options.forward, ttl_ms };
        let ask = |client: ClientServiceClient, context| async move {
            client.open_session(context, request).await
        };
        let opened = self.pursuer.pursue(deadline, ask).await;
        // The command itself has not been sent: nothing of it can have been applied.
        opened.map_err(GivenUp::of_nothing)
    }

    async fn submit_until(
        &self,
        deadline: Instant,
        stamp: Stamp,
        acked_below: impl Fn() -> u64,
        command: Bytes,
    ) -> Result<Receipt<Bytes>, Error> {
        let ask = |client: ClientServiceClient, context| {
            let request = Submit {
                session: stamp.session,
                sequence: stamp.sequence,
                acked_below: acked_below(),
                command: command.clone(),
                forward: self.pursuer.options.forward,
            };
            async move { client.submit(context, request).await }
        };
        let submitted = self.pursuer.pursue(deadline, ask).await;
        let Submitted { index, outcome } = submitted.map_err(|given_up| match self.repeated {
            Some(_) => given_up.after_another_attempt().of_write(stamp),
            None => given_up.of_write(stamp),
        })?;
        Ok(Receipt { stamp, index, result: said(outcome)? })
    }

    async fn ask_each(
        &self,
        endpoints: Vec<Endpoint>,
        deadline: Instant,
    ) -> Vec<(Endpoint, Result<NodeStatus, String>)> {
        let asking = endpoints.into_iter().map(|endpoint| async move {
            let (endpoint, outcome) = self.pursuer.attempt(endpoint, deadline, ask_status).await;
            (endpoint, outcome.map_err(|failure| failure.reason))
        });
        join_all(asking).await
    }

    /// Addresses of the cluster's nodes that were not asked yet.
    async fn learn_members(
        &self,
        asked: &[(Endpoint, Result<NodeStatus, String>)],
        deadline: Instant,
    ) -> Vec<Endpoint> {
        let Some((alive, _)) = asked.iter().find(|(_, outcome)| outcome.is_ok()) else {
            return Vec::new();
        };
        let (_, members) = self.pursuer.attempt(alive.clone(), deadline, ask_members).await;
        let served: Vec<&str> = asked
            .iter()
            .filter_map(|(_, outcome)| outcome.as_ref().ok())
            .map(|status| status.id.as_str())
            .collect();
        members
            .unwrap_or_default()
            .into_iter()
            .filter(|member| !served.contains(&member.id.as_str()))
            .filter_map(|member| member.raft_address.parse().ok())
            .filter(|endpoint| !asked.iter().any(|(asked, _)| asked == endpoint))
            .collect()
    }
}

async fn ask_status(
    client: ClientServiceClient,
    context: Context,
) -> Result<Result<NodeStatus, Infallible>, RpcError> {
    client.status(context).await.map(Ok)
}

async fn ask_members(
    client: ClientServiceClient,
    context: Context,
) -> Result<Result<Vec<MemberStatus>, Infallible>, RpcError> {
    client.members(context).await.map(Ok)
}

/// The machine's word; none when it is no longer known.
fn said(outcome: Outcome) -> Result<Option<Bytes>, Refusal> {
    match outcome {
        Outcome::Done(result) => Ok(Some(result)),
        Outcome::Refused(reason) => Err(Refusal::Machine(reason)),
        Outcome::AlreadyApplied => Ok(None),
    }
}

/// What every node would refuse is not sent at all.
fn check_size(bytes: &Bytes) -> Result<(), Refusal> {
    if bytes.len() <= MAX_COMMAND_BYTES {
        return Ok(());
    }
    Err(Refusal::TooLarge { bytes: bytes.len() as u64, limit: MAX_COMMAND_BYTES as u64 })
}
