//! Links to the other rafts: one task each, which connects, sends, hears the answers, and tries again for ever.
//!
//! The links follow the configuration. Addresses come from the configuration too, overlaid by what gossip knows to be
//! newer: identity is the node id, which the hello checks, so a wrong address can do no more than fail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tarpc::client::RpcError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::backoff::Backoff;
use crate::consensus::{Envelope, Membership, Message, NodeId};
use crate::deadline;
use crate::entries;
use crate::forward::{self, ForwardItem};
use crate::metrics::Metrics;
use crate::node::Node;
use crate::pipeline::digest_entries::EntriesEvent;
use crate::rpc::peer::{self, AppendEntries, AppendReply, Ballot, BallotReply, PeerServiceClient};
use crate::rpc::wire::{Endpoint, Service};

/// Messages that wait for one peer; beyond it they are dropped, and the core sends them again.
const QUEUE_MESSAGES: usize = 256;
/// Commands and reads that wait to be passed on to one peer.
const QUEUE_FORWARDS: usize = 4096;
/// Reasons not to reach a peer that are remembered as told, each once until it is reached.
const MAX_REPORTED: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that does not answer for this long is treated as gone: we connect anew.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The link to a node that is no longer in the configuration stays open for this long, so that the node hears that it is out,
/// and answers what it was asked.
const FAREWELL: Duration = Duration::from_secs(5);

/// How to reach a peer for other than the core's purposes.
#[derive(Clone, Debug)]
pub struct Route {
    /// `host:port`, as last known.
    pub address: String,
    /// Takes what is to be passed on to it.
    pub forwards: mpsc::Sender<ForwardItem>,
}

/// All routes, by node.
pub type Routes = Arc<BTreeMap<NodeId, Route>>;

#[derive(Debug)]
struct PeerLink {
    envelopes: mpsc::Sender<Envelope>,
    forwards: mpsc::Sender<ForwardItem>,
    address: watch::Sender<String>,
    /// Set while the node is not in the configuration: until when the link stays.
    departed: Option<Instant>,
    task: JoinHandle<()>,
}

impl Drop for PeerLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The links, owned by the task around `digest_entries`.
#[derive(Debug)]
pub struct Peers {
    node: Arc<Node>,
    inbox: mpsc::Sender<EntriesEvent>,
    links: BTreeMap<NodeId, PeerLink>,
    membership: Membership,
    gossiped: BTreeMap<NodeId, String>,
    routes: watch::Sender<Routes>,
    metrics: Arc<Metrics>,
}

impl Peers {
    /// No links yet.
    pub fn new(node: Arc<Node>, inbox: mpsc::Sender<EntriesEvent>, metrics: Arc<Metrics>) -> Self {
        let (links, gossiped) = (BTreeMap::new(), BTreeMap::new());
        let routes = watch::Sender::new(Routes::default());
        let membership = Membership::default();
        Self { node, inbox, links, membership, gossiped, routes, metrics }
    }

    /// How to reach the peers, for those who pass requests on.
    pub fn routes(&self) -> watch::Receiver<Routes> {
        self.routes.subscribe()
    }

    /// Another configuration is in force.
    pub fn follow_membership(&mut self, membership: Membership) {
        self.membership = membership;
        self.refresh();
    }

    /// Gossip knows these addresses.
    pub fn follow_gossip(&mut self, addresses: BTreeMap<NodeId, String>) {
        if addresses != self.gossiped {
            self.gossiped = addresses;
            self.refresh();
        }
    }

    /// Sends without waiting. A message that finds no link or a full queue is lost, as on any network.
    pub fn send(&self, envelope: Envelope) {
        if let Some(link) = self.links.get(&envelope.to)
            && link.envelopes.try_send(envelope).is_err()
        {
            tracing::debug!("queue to a peer is full: message dropped");
        }
    }

    fn refresh(&mut self) {
        let ours = self.node.id;
        let mut wanted = BTreeMap::new();
        for (id, info) in self.membership.nodes.iter().filter(|(id, _)| **id != ours) {
            wanted.insert(*id, self.gossiped.get(id).unwrap_or(&info.raft_address).clone());
        }
        let now = Instant::now();
        for (id, link) in &mut self.links {
            if !wanted.contains_key(id) {
                link.departed.get_or_insert(now + FAREWELL);
            }
        }
        for (id, address) in wanted {
            match self.links.get_mut(&id) {
                Some(link) => {
                    link.departed = None;
                    link.address.send_if_modified(|known| {
                        let changed = *known != address;
                        *known = address;
                        changed
                    });
                }
                None => {
                    self.links.insert(id, self.open(id, address));
                }
            }
        }
        self.publish_routes();
    }

    /// Closes the links to those who have left some time ago.
    pub fn close_departed(&mut self) {
        let now = Instant::now();
        let before = self.links.len();
        self.links.retain(|_, link| link.departed.is_none_or(|until| now < until));
        if self.links.len() != before {
            self.publish_routes();
        }
    }

    fn publish_routes(&self) {
        let route = |(id, link): (&NodeId, &PeerLink)| {
            let address = link.address.borrow().clone();
            (*id, Route { address, forwards: link.forwards.clone() })
        };
        self.routes.send_replace(Arc::new(self.links.iter().map(route).collect()));
    }

    fn open(&self, id: NodeId, address: String) -> PeerLink {
        let (envelopes, outgoing) = mpsc::channel(QUEUE_MESSAGES);
        let (forwards, forwarding) = mpsc::channel(QUEUE_FORWARDS);
        let (address, addresses) = watch::channel(address);
        let task = Task {
            node: Arc::clone(&self.node),
            peer: id,
            addresses,
            outgoing,
            forwarding,
            inbox: self.inbox.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        PeerLink { envelopes, forwards, address, departed: None, task: tokio::spawn(task.run()) }
    }
}

/// The task behind one link.
struct Task {
    node: Arc<Node>,
    peer: NodeId,
    addresses: watch::Receiver<String>,
    outgoing: mpsc::Receiver<Envelope>,
    forwarding: mpsc::Receiver<ForwardItem>,
    inbox: mpsc::Sender<EntriesEvent>,
    metrics: Arc<Metrics>,
}

type Call = BoxFuture<'static, Result<Option<Envelope>, RpcError>>;

impl Task {
    async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));
        let mut reported = Vec::new();
        loop {
            let address = self.addresses.borrow_and_update().clone();
            match self.connect(&address).await {
                Ok(connection) => {
                    tracing::info!(peer = %self.peer, address, "connected to peer");
                    backoff.reset();
                    reported.clear();
                    let counted = self.metrics.peers_connected.issue();
                    self.attend(connection).await;
                    drop(counted);
                    tracing::info!(peer = %self.peer, address, "connection to peer ended");
                    if self.inbox.send(EntriesEvent::PeerUnreachable(self.peer)).await.is_err() {
                        return;
                    }
                }
                Err(reason) if !reported.contains(&reason) => {
                    tracing::warn!(peer = %self.peer, address, reason, "cannot connect to peer; trying again");
                    // A name server may give one answer now and another one next time, for as long as the peer is away.
                    reported.truncate(MAX_REPORTED - 1);
                    reported.push(reason);
                }
                Err(_same) => {}
            }
            self.idle(backoff.next()).await;
        }
    }

    async fn connect(&self, address: &str) -> Result<peer::Connection, String> {
        let endpoint: Endpoint = address.parse().map_err(|error| format!("{error}"))?;
        let hello = self.node.hello(Service::Peer).expecting(self.peer.0);
        peer::connect(&endpoint, hello, CONNECT_TIMEOUT).await.map_err(|error| error.to_string())
    }

    /// Passes time without a connection: messages are lost, and what was to be passed on is refused.
    async fn idle(&mut self, pause: Duration) {
        let pause = tokio::time::sleep(pause);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return,
                Ok(()) = self.addresses.changed() => return,
                Some(_lost) = self.outgoing.recv() => {}
                Some(item) = self.forwarding.recv() => item.refuse(),
            }
        }
    }

    /// One connection, to its end.
    async fn attend(&mut self, mut connection: peer::Connection) {
        let client = connection.client;
        let mut calls = FuturesUnordered::<Call>::new();
        let mut forwards = FuturesUnordered::new();
        let mut items = Vec::new();
        loop {
            tokio::select! {
                biased;
                Some(answer) = calls.next() => match answer {
                    Ok(None) => {}
                    Ok(Some(answer)) => drop(self.inbox.send(EntriesEvent::PeerSays(answer)).await),
                    Err(error) => {
                        tracing::debug!(peer = %self.peer, %error, "call to peer failed");
                        return;
                    }
                },
                Some(envelope) = self.outgoing.recv() => {
                    calls.extend(started(Self::call(&client, envelope)).await);
                }
                Some(()) = forwards.next() => {}
                _ = self.forwarding.recv_many(&mut items, forward::BATCH_ITEMS) => {
                    let wanted = items.drain(..).filter(|item| !item.is_abandoned());
                    for batch in forward::batches(wanted) {
                        forwards.push(forward::pass_on(client.clone(), batch));
                    }
                }
                _ended = &mut connection.closed => return,
                Ok(()) = self.addresses.changed() => return,
            }
        }
    }

    /// A message as a call, and the call's answer as a message.
    fn call(client: &PeerServiceClient, envelope: Envelope) -> Call {
        let client = client.clone();
        let Envelope { from: us, to: peer, term, token, body } = envelope;
        let answer = move |term, body| Some(Envelope { from: peer, to: us, term, token, body });
        let context = deadline(CALL_TIMEOUT);
        match body {
            Message::Append(request) => {
                let request = AppendEntries {
                    term,
                    prev: request.prev,
                    commit_index: request.commit_index.0,
                    read_seq: request.read_seq,
                    entries: entries::encode(&request.entries),
                };
                let call = async move { client.append_entries(context, request).await };
                call.map(move |reply| {
                    reply.map(|AppendReply { term, response }| {
                        answer(term, Message::AppendResponse(response))
                    })
                })
                .boxed()
            }
            Message::PreVote(request) => {
                let call = async move { client.pre_vote(context, Ballot { term, request }).await };
                call.map(move |reply| {
                    reply.map(|BallotReply { term, response }| {
                        answer(term, Message::PreVoteResponse(response))
                    })
                })
                .boxed()
            }
            Message::Vote(request) => {
                let call =
                    async move { client.request_vote(context, Ballot { term, request }).await };
                call.map(move |reply| {
                    reply.map(|BallotReply { term, response }| {
                        answer(term, Message::VoteResponse(response))
                    })
                })
                .boxed()
            }
            Message::TimeoutNow => {
                async move { client.timeout_now(context, term).await.map(|()| None) }.boxed()
            }
            // Snapshots have senders and a connection of their own; answers travel as results.
            Message::InstallSnapshot(_)
            | Message::PreVoteResponse(_)
            | Message::VoteResponse(_)
            | Message::AppendResponse(_)
            | Message::SnapshotResponse(_) => futures_util::future::ready(Ok(None)).boxed(),
        }
    }
}

/// Polls a call once, so that messages leave in the order in which the core wrote them.
async fn started(mut call: Call) -> Option<Call> {
    match futures_util::future::poll_immediate(&mut call).await {
        None => Some(call),
        Some(Ok(None)) => None,
        Some(done) => Some(futures_util::future::ready(done).boxed()),
    }
}
