//! The link to the state machine: connects, attaches, carries calls, and tries again for ever.
//!
//! Never decides anything: what the machine lacks and who waits for what is known by `digest_commits` alone.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use futures_util::{FutureExt, future::poll_immediate};
use state_machine::rpc::{
    self as contract, Apply, Attach, AttachError, CONTRACT_VERSION, CommandResult, Connection,
    Query, StateMachineServiceClient,
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
    let connection = match contract::connect(endpoint, cluster, node.0, boot, CONNECT_TIMEOUT).await
    {
        Ok(connection) => connection,
        Err(error) => return Down::Broken(format!("cannot connect: {error}")),
    };
    let attach = Attach { contract: CONTRACT_VERSION, cluster, node: node.0, boot };
    let info = match connection.client.attach(deadline(ATTACH_TIMEOUT), attach).await {
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
    carry(attachment, connection, boot, events, calls).await
}

/// Carries calls to the machine and its answers back: batches in order, queries as they come.
async fn carry(
    attachment: u64,
    connection: Connection,
    boot: u64,
    events: &mpsc::Sender<CommitsEvent>,
    calls: &mut mpsc::Receiver<MachineCall>,
) -> Down {
    let Connection { client, mut closed } = connection;
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
            // Without a call under way nothing else would tell.
            _ended = &mut closed => Err("the connection ended".to_owned()),
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

#[cfg(test)]
mod tests {
    use state_machine::attachment::MemoryAttachment;
    use state_machine::host::Host;
    use state_machine::register::Register;
    use state_machine::server;
    use state_machine::worker::{self, SyncPolicy};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::rpc::wire::Listener;

    /// Serves one connection to an empty machine.
    async fn serve_once(listener: &Listener) -> JoinHandle<()> {
        let host = Host::new(Register::new(), Box::new(MemoryAttachment::default())).unwrap();
        let policy = SyncPolicy { interval: Duration::from_secs(1), entries: 1 };
        let (machine, _ended) = worker::spawn(host, policy).unwrap();
        let io = listener.accept().await.unwrap();
        let service = server::Connection::new(machine);
        tokio::spawn(async move { drop(contract::serve(io, true, service).await) })
    }

    async fn next(events: &mut mpsc::Receiver<CommitsEvent>) -> MachineEvent {
        let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
        match event.expect("in time").expect("the link lives") {
            CommitsEvent::Machine(event) => event,
            CommitsEvent::FromEntries(message) => panic!("not from the link: {message:?}"),
        }
    }

    #[tokio::test]
    async fn a_machine_that_dies_while_nothing_is_asked_of_it_is_noticed_and_attached_again() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("machine.sock");
        let listener = Listener::unix(&socket).await.unwrap();
        let (events, mut told) = mpsc::channel(8);
        let (_calls, queue) = mpsc::channel(8);
        let feeder = Feeder { cluster: 1, node: NodeId(2), boot: 3 };
        tokio::spawn(run(Endpoint::Unix(socket), feeder, events, queue));
        for expected in 1..3 {
            let machine = serve_once(&listener).await;
            let attached = next(&mut told).await;
            assert!(
                matches!(attached, MachineEvent::Attached { attachment, .. } if attachment == expected),
                "{attached:?}"
            );
            machine.abort();
            let detached = next(&mut told).await;
            assert!(matches!(detached, MachineEvent::Detached { .. }), "{detached:?}");
        }
    }
}
