//! The link to the state machine: connects, attaches, carries calls, and tries again for ever.
//!
//! Never decides anything: what the machine lacks and who waits for what is known by `digest_commits` alone.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use futures_util::{FutureExt, future::poll_immediate};
use state_machine::rpc::{
    self as contract, Apply, Attach, AttachError, CONTRACT_VERSION, CommandResult, Query,
    StateMachineServiceClient,
};
use tarpc::context::Context;
use tokio::sync::mpsc;

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

/// Runs until `events` or `calls` is closed.
pub async fn run(
    endpoint: Endpoint,
    feeder: Feeder,
    events: mpsc::Sender<CommitsEvent>,
    mut calls: mpsc::Receiver<MachineCall>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
    let mut last_reason = String::new();
    for attachment in 1.. {
        let down = attend(attachment, &endpoint, feeder, &events, &mut calls, &mut backoff).await;
        let (reason, pause) = match down {
            Down::Broken(reason) => (reason, backoff.next()),
            Down::Refused(reason) => (reason, REFUSED_PAUSE),
            Down::Closed => return,
        };
        // The link is silent about the same trouble twice in a row: it may last for days.
        if reason != last_reason {
            tracing::warn!(%endpoint, reason, "state machine detached; raft goes on without it and tries again");
            last_reason.clone_from(&reason);
        }
        let detached = MachineEvent::Detached { reason };
        if events.send(CommitsEvent::Machine(detached)).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// One connection, from connect to its end.
async fn attend(
    attachment: u64,
    endpoint: &Endpoint,
    feeder: Feeder,
    events: &mpsc::Sender<CommitsEvent>,
    calls: &mut mpsc::Receiver<MachineCall>,
    backoff: &mut Backoff,
) -> Down {
    let Feeder { cluster, node, boot } = feeder;
    let client = match contract::connect(endpoint, cluster, node.0, boot, CONNECT_TIMEOUT).await {
        Ok(client) => client,
        Err(error) => return Down::Broken(format!("cannot connect: {error}")),
    };
    let attach = Attach { contract: CONTRACT_VERSION, cluster, node: node.0, boot };
    let info = match client.attach(deadline(ATTACH_TIMEOUT), attach).await {
        Ok(Ok(info)) => info,
        Ok(Err(AttachError::Access(busy))) => {
            return Down::Broken(format!("cannot attach: {busy}"));
        }
        Ok(Err(refused)) => return Down::Refused(refused.to_string()),
        Err(error) => return Down::Broken(format!("cannot attach: {error}")),
    };
    let applied = LogId::new(Term(info.applied_term), Index(info.applied_index));
    tracing::info!(%endpoint, machine = info.name, version = info.version, applied = applied.index.0, "state machine attached");
    backoff.reset();
    let attached = MachineEvent::Attached { attachment, applied };
    if events.send(CommitsEvent::Machine(attached)).await.is_err() {
        return Down::Closed;
    }
    carry(attachment, &client, boot, events, calls).await
}

/// Carries calls to the machine and its answers back: batches in order, queries as they come.
async fn carry(
    attachment: u64,
    client: &StateMachineServiceClient,
    boot: u64,
    events: &mpsc::Sender<CommitsEvent>,
    calls: &mut mpsc::Receiver<MachineCall>,
) -> Down {
    let mut batches = FuturesOrdered::<Answer<Result<MachineEvent, String>>>::new();
    let mut queries = FuturesUnordered::<Answer<Result<MachineEvent, String>>>::new();
    loop {
        let event = tokio::select! {
            biased;
            Some(event) = batches.next() => event,
            Some(event) = queries.next() => event,
            call = calls.recv() => {
                let Some(call) = call else { return Down::Closed };
                if call.attachment != attachment {
                    continue;
                }
                match call.task {
                    MachineTask::Apply { first, entries } => {
                        let request = Apply { boot, first_index: first.0, entries };
                        let call = apply(client.clone(), deadline(APPLY_TIMEOUT), request);
                        let started = start(call).await;
                        batches.push_back(started);
                    }
                    MachineTask::Query { query, read_index, bytes } => {
                        let request = Query { boot, min_applied_index: read_index.0, query: bytes };
                        let call = ask(client.clone(), deadline(QUERY_TIMEOUT), query, request);
                        let started = start(call).await;
                        queries.push(started);
                    }
                    MachineTask::Refuse(reason) => return Down::Refused(reason),
                }
                continue;
            }
        };
        match event {
            Ok(event) => {
                if events.send(CommitsEvent::Machine(event)).await.is_err() {
                    return Down::Closed;
                }
            }
            Err(reason) => return Down::Broken(reason),
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
) -> Result<MachineEvent, String> {
    let first = request.first_index;
    match client.apply(context, request).await {
        Ok(Ok(applied)) if applied.first_index == first => {
            Ok(MachineEvent::Applied { results: applied.results })
        }
        Ok(Ok(applied)) => {
            Err(format!("answered for entry {} instead of {first}", applied.first_index))
        }
        Ok(Err(error)) => Err(format!("did not apply entry {first}: {error}")),
        Err(error) => Err(format!("no answer to entry {first}: {error}")),
    }
}

async fn ask(
    client: StateMachineServiceClient,
    context: Context,
    query: u64,
    request: Query,
) -> Result<MachineEvent, String> {
    match client.query(context, request).await {
        Ok(Ok(result)) => Ok(MachineEvent::Answered { query, result }),
        Ok(Err(too_large @ contract::QueryError::TooLarge { .. })) => {
            let result = CommandResult::Refused(too_large.to_string().into());
            Ok(MachineEvent::Answered { query, result })
        }
        Ok(Err(error)) => Err(format!("did not answer a query: {error}")),
        Err(error) => Err(format!("no answer to a query: {error}")),
    }
}
