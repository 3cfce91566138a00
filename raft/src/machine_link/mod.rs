//! The link to the state machine: connects, attaches, carries calls, and tries again for ever.
//!
//! Never decides anything: what the machine lacks and who waits for what is known by `digest_commits` alone.

mod restore;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use futures_util::{FutureExt, future::poll_immediate};
use state_machine::rpc::{
    self as contract, Apply, Attach, AttachError, CONTRACT_VERSION, CommandResult, Connection,
    Query, StateMachineServiceClient,
};
use tarpc::context::Context;
use tokio::sync::{mpsc, watch};

pub use self::restore::{SnapshotPieces, SnapshotSource, SourceError};

use crate::backoff::Backoff;
use crate::consensus::{Index, LogId, NodeId, Term};
use crate::deadline;
use crate::pipeline::digest_commits::{CommitsEvent, MachineCall, MachineEvent, MachineTask};
use crate::rpc::wire::Endpoint;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);
/// A machine that does not answer a batch for this long is hung: we connect anew.
const APPLY_TIMEOUT: Duration = Duration::from_secs(30);
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a machine that answers, but must not be used: its operator has to act.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// Who we are to the machine.
#[derive(Clone, Copy, Debug)]
pub struct Feeder {
    /// Cluster of this node.
    pub cluster: u128,
    /// This node.
    pub node: NodeId,
    /// This start of its raft.
    pub boot: u64,
}

/// Why the link is down.
#[derive(Debug)]
enum Down {
    /// It may work again at any moment.
    Broken(String),
    /// The machine or we said no.
    Refused(String),
    /// `digest_commits` is gone: the process ends.
    Closed,
}

type Answer<T> = BoxFuture<'static, T>;

/// What the machine said, or why the link is down.
type Heard = Result<MachineEvent, Down>;

/// Runs until `events` or `calls` is closed. A machine that is behind the log is restored from `snapshots`; `wish` says whether it
/// wants one to be taken.
pub async fn run(
    endpoint: Endpoint,
    feeder: Feeder,
    snapshots: Arc<dyn SnapshotSource>,
    wish: watch::Sender<bool>,
    events: mpsc::Sender<CommitsEvent>,
    calls: mpsc::Receiver<MachineCall>,
) {
    let backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
    let mut link = Link { endpoint, feeder, snapshots, wish, events, calls, backoff };
    let mut last_reason = String::new();
    for attachment in 1.. {
        let (reason, pause) = match link.attend(attachment).await {
            Down::Broken(reason) => (reason, link.backoff.next()),
            Down::Refused(reason) => (reason, REFUSED_PAUSE),
            Down::Closed => return,
        };
        // The link is silent about the same trouble twice in a row: it may last for days.
        if reason != last_reason {
            tracing::warn!(endpoint = %link.endpoint, reason, "state machine detached; raft goes on without it and tries again");
            last_reason.clone_from(&reason);
        }
        if link.tell(MachineEvent::Detached { reason }).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

struct Link {
    endpoint: Endpoint,
    feeder: Feeder,
    snapshots: Arc<dyn SnapshotSource>,
    wish: watch::Sender<bool>,
    events: mpsc::Sender<CommitsEvent>,
    calls: mpsc::Receiver<MachineCall>,
    backoff: Backoff,
}

impl Link {
    async fn tell(&self, event: MachineEvent) -> Result<(), Down> {
        let sent = self.events.send(CommitsEvent::Machine(event)).await;
        sent.map_err(|_closed| Down::Closed)
    }

    /// One connection, from connect to its end.
    async fn attend(&mut self, attachment: u64) -> Down {
        match self.attach(attachment).await {
            Ok(connection) => self.carry(attachment, connection).await,
            Err(down) => down,
        }
    }

    async fn attach(&self, attachment: u64) -> Result<Connection, Down> {
        let Feeder { cluster, node, boot } = self.feeder;
        let connecting = contract::connect(&self.endpoint, cluster, node.0, boot, CONNECT_TIMEOUT);
        let connection = match connecting.await {
            Ok(connection) => connection,
            Err(error) => return Err(Down::Broken(format!("cannot connect: {error}"))),
        };
        let attach = Attach { contract: CONTRACT_VERSION, cluster, node: node.0, boot };
        let info = match connection.client.attach(deadline(ATTACH_TIMEOUT), attach).await {
            Ok(Ok(info)) => info,
            Ok(Err(AttachError::Access(busy))) => {
                return Err(Down::Broken(format!("cannot attach: {busy}")));
            }
            Ok(Err(refused)) => return Err(Down::Refused(refused.to_string())),
            Err(error) => return Err(Down::Broken(format!("cannot attach: {error}"))),
        };
        let applied = LogId::new(Term(info.applied_term), Index(info.applied_index));
        tracing::info!(endpoint = %self.endpoint, machine = info.name, version = info.version, applied = applied.index.0, "state machine attached");
        note_wish(&self.wish, info.wants_snapshot);
        self.tell(MachineEvent::Attached { attachment, applied }).await?;
        Ok(connection)
    }

    /// Carries calls to the machine and its answers back: batches in order, all others as they come.
    async fn carry(&mut self, attachment: u64, connection: Connection) -> Down {
        let Connection { client, mut closed } = connection;
        let mut batches = FuturesOrdered::<Answer<Heard>>::new();
        let mut others = FuturesUnordered::<Answer<Heard>>::new();
        loop {
            let heard = tokio::select! {
                biased;
                Some(heard) = batches.next() => heard,
                Some(heard) = others.next() => heard,
                call = self.calls.recv() => {
                    let Some(call) = call else { return Down::Closed };
                    if call.attachment != attachment {
                        continue;
                    }
                    match call.task {
                        MachineTask::Refuse(reason) => return Down::Refused(reason),
                        task @ MachineTask::Apply { .. } => {
                            let begun = self.begin(&client, task).await;
                            batches.push_back(begun);
                        }
                        task @ (MachineTask::Query { .. } | MachineTask::Restore(_)) => {
                            let begun = self.begin(&client, task).await;
                            others.push(begun);
                        }
                    }
                    continue;
                }
                // Without a call under way nothing else would tell.
                _ended = &mut closed => Err(Down::Broken("the connection ended".to_owned())),
            };
            match heard {
                Ok(event) => {
                    // Not before: one that can be attached, but not used, is not tried again and again at once.
                    self.backoff.reset();
                    if let Err(down) = self.tell(event).await {
                        return down;
                    }
                }
                Err(down) => return down,
            }
        }
    }

    async fn begin(&self, client: &StateMachineServiceClient, task: MachineTask) -> Answer<Heard> {
        let (client, boot) = (client.clone(), self.feeder.boot);
        match task {
            MachineTask::Apply { first, entries } => {
                let request = Apply { boot, first_index: first.0, entries };
                start(apply(client, deadline(APPLY_TIMEOUT), request, self.wish.clone())).await
            }
            MachineTask::Query { query, read_index, bytes } => {
                let request = Query { boot, min_applied_index: read_index.0, query: bytes };
                start(ask(client, deadline(QUERY_TIMEOUT), query, request)).await
            }
            MachineTask::Restore(meta) => {
                restore::restore(client, boot, meta, Arc::clone(&self.snapshots)).boxed()
            }
            MachineTask::Refuse(reason) => futures_util::future::err(Down::Refused(reason)).boxed(),
        }
    }
}

/// Polls a call once, so that it is on its way before the next one is made: batches leave in order.
async fn start<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static) -> Answer<T> {
    let mut call = call.boxed();
    match poll_immediate(&mut call).await {
        Some(done) => futures_util::future::ready(done).boxed(),
        None => call,
    }
}

async fn apply(
    client: StateMachineServiceClient,
    context: Context,
    request: Apply,
    wish: watch::Sender<bool>,
) -> Heard {
    let first = request.first_index;
    let broken = match client.apply(context, request).await {
        Ok(Ok(applied)) if applied.first_index == first => {
            note_wish(&wish, applied.wants_snapshot);
            return Ok(MachineEvent::Applied { results: applied.results });
        }
        Ok(Ok(applied)) => {
            format!("answered for entry {} instead of {first}", applied.first_index)
        }
        Ok(Err(error)) => format!("did not apply entry {first}: {error}"),
        Err(error) => format!("no answer to entry {first}: {error}"),
    };
    Err(Down::Broken(broken))
}

fn note_wish(wish: &watch::Sender<bool>, wants_snapshot: bool) {
    wish.send_if_modified(|known| std::mem::replace(known, wants_snapshot) != wants_snapshot);
}

async fn ask(
    client: StateMachineServiceClient,
    context: Context,
    query: u64,
    request: Query,
) -> Heard {
    let broken = match client.query(context, request).await {
        Ok(Ok(result)) => return Ok(MachineEvent::Answered { query, result }),
        Ok(Err(too_large @ contract::QueryError::TooLarge { .. })) => {
            let result = CommandResult::Refused(too_large.to_string().into());
            return Ok(MachineEvent::Answered { query, result });
        }
        Ok(Err(error)) => format!("did not answer a query: {error}"),
        Err(error) => format!("no answer to a query: {error}"),
    };
    Err(Down::Broken(broken))
}

#[cfg(test)]
mod tests;
