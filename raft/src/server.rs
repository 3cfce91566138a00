//! The raft port: lets connections in and serves both contracts. Handlers translate and enqueue, nothing else.

mod client_service;
mod operations;
mod peer_service;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::consensus::NodeId;
use crate::inbound::{GRACE, Inbound};
use crate::keeper;
use crate::leaving::Leaving;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::peers::Routes;
use crate::pipeline::digest_commits::CommitsStatus;
use crate::pipeline::digest_entries::EntriesEvent;
use crate::room::Room;
use crate::roster_link::Sight;
use crate::rpc::wire::{self, Hello, HelloError, Io, Listener, Refusal, Service};
use crate::rpc::{client, peer};
use crate::transfer::Receiver;
pub(crate) use client_service::ClientServer;
use peer_service::PeerServer;

/// Pause after a failed accept (too many open files, say), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the handlers need.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Who we are.
    pub node: Arc<Node>,
    /// The first stage.
    pub inbox: mpsc::Sender<EntriesEvent>,
    /// Ways to the peers.
    pub routes: watch::Receiver<Routes>,
    /// The second stage's state.
    pub commits: watch::Receiver<CommitsStatus>,
    /// What gossip sees.
    pub sight: watch::Receiver<Sight>,
    /// Who leads, as far as this node knows.
    pub leader: watch::Receiver<Option<NodeId>>,
    /// Whether this node is to leave.
    pub leaving: Arc<Leaving>,
    /// Takes orders for snapshots.
    pub snapshot_orders: mpsc::Sender<keeper::Order>,
    /// Takes snapshots of leaders in.
    pub receiver: Arc<Receiver>,
    /// How long a request that found no leader waits for one: as long as an election may take.
    pub election_timeout: Duration,
    /// Unit of the stages' time.
    pub tick: Duration,
    /// Longest wait of a request here.
    pub request_timeout: Duration,
    /// Whether the log is synced.
    pub fsync: bool,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Shared {
    fn ticks(&self, time: Duration) -> u64 {
        u64::try_from(time.as_nanos().div_ceil(self.tick.as_nanos())).unwrap_or(u64::MAX)
    }
}

/// Accepts for ever.
pub async fn run(listener: Listener, shared: Shared, room: Room) {
    let inbound = Inbound::default();
    let client_slots = Arc::new(Semaphore::new(room.clients));
    let stranger_slots = Arc::new(Semaphore::new(room.strangers));
    loop {
        match listener.accept().await {
            Ok(io) => {
                let Ok(stranger) = Arc::clone(&stranger_slots).try_acquire_owned() else {
                    tracing::debug!("too many connections without a hello: one more is closed");
                    continue;
                };
                let connection = Connection {
                    shared: shared.clone(),
                    inbound: inbound.clone(),
                    client_slots: Arc::clone(&client_slots),
                };
                tokio::spawn(connection.attend(io, stranger));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Connection {
    shared: Shared,
    inbound: Inbound,
    client_slots: Arc<Semaphore>,
}

impl Connection {
    async fn attend(self, mut io: Io, stranger: OwnedSemaphorePermit) {
        let mut admitted = None;
        let mut slot = None;
        let ours = self.shared.node.hello(Service::Client);
        let judge = |theirs: &Hello| {
            if theirs.service == Service::Peer {
                admitted = Some(self.admit(theirs)?);
            } else {
                let free = Arc::clone(&self.client_slots).try_acquire_owned();
                slot = Some(free.map_err(|_none| Refusal::Busy)?);
            }
            Ok(())
        };
        let theirs = match ours.answer_as(&[Service::Client, Service::Peer], &mut io, judge).await {
            Ok(theirs) => theirs,
            Err(error) => return report(&error),
        };
        drop(stranger);
        match admitted {
            Some(admitted) => {
                let end =
                    peer::serve(io, PeerServer::new(self.shared.clone(), NodeId(theirs.node)))
                        .await;
                drop(admitted);
                if wire::closed_by_other_end(&end) {
                    self.watch_for_return(&theirs).await;
                } else if let Err(error) = end {
                    tracing::warn!(peer = format_args!("{:016x}", theirs.node), %error, "connection from peer dropped");
                }
            }
            None => {
                if let Err(error) = client::serve(io, ClientServer::new(self.shared.clone())).await
                {
                    tracing::debug!(%error, "connection from client dropped");
                }
            }
        }
        drop(slot);
    }

    /// Whether a peer may come in. One that asks for this very node and knows a cluster, while this node has none, takes
    /// it in: only a leader whose configuration names this node connects like that.
    fn admit(&self, theirs: &Hello) -> Result<crate::inbound::Admitted, Refusal> {
        if theirs.node == 0 || theirs.node == self.shared.node.id.0 {
            return Err(Refusal::WrongNode);
        }
        if theirs.cluster == 0 || theirs.expected != self.shared.node.id.0 {
            return Err(Refusal::ForeignCluster);
        }
        if let Err(error) = self.shared.node.adopt_cluster(theirs.cluster) {
            tracing::error!(%error, "cannot be taken into a cluster");
            return Err(Refusal::ForeignCluster);
        }
        // Last, because its boot is remembered: a stranger must not be able to fence anybody out.
        self.inbound.admit(NodeId(theirs.node), theirs.boot)
    }

    async fn watch_for_return(&self, theirs: &Hello) {
        let (node, boot) = (NodeId(theirs.node), theirs.boot);
        if self.inbound.is_gone(node, boot) {
            tokio::time::sleep(GRACE).await;
            if self.inbound.is_gone(node, boot) {
                tracing::info!(peer = %node, "every connection of a peer's process was closed by its side");
                drop(self.shared.inbox.send(EntriesEvent::LinkLost(node)).await);
            }
        }
    }
}

fn report(error: &HelloError) {
    match error {
        HelloError::Refused { .. } | HelloError::NotOutrigger(_) | HelloError::Damaged => {
            tracing::warn!(%error, "connection turned away");
        }
        HelloError::Io(_) | HelloError::Timeout | HelloError::RefusedByPeer { .. } => {
            tracing::debug!(%error, "connection ended at its hello");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task;

    use super::*;
    use crate::consensus::Index;
    use crate::identity::DataDir;
    use crate::rpc::peer::{Answers, Forward, PeerService};

    const CLUSTER: u128 = 9;
    const PEER: u64 = 7;

    fn connection(dir: &tempfile::TempDir) -> (Connection, mpsc::Receiver<EntriesEvent>) {
        let data_dir = DataDir::open(dir.path()).unwrap();
        let node = Arc::new(Node::new(
            data_dir,
            "test".to_owned(),
            "127.0.0.1:1".to_owned(),
            String::new(),
        ));
        let (inbox, events) = mpsc::channel(8);
        let status = CommitsStatus { applied: Index(0), machine: Arc::from("none") };
        let shared = Shared {
            snapshot_orders: mpsc::channel(1).0,
            receiver: Receiver::idle(dir.path(), &node),
            node,
            inbox,
            routes: watch::channel(Routes::default()).1,
            commits: watch::channel(status).1,
            sight: watch::channel(Sight::default()).1,
            leader: watch::channel(None).1,
            leaving: Arc::default(),
            election_timeout: Duration::from_millis(600),
            tick: Duration::from_millis(10),
            request_timeout: Duration::from_secs(2),
            fsync: true,
            metrics: Arc::default(),
        };
        let client_slots = Arc::new(Semaphore::new(1));
        (Connection { shared, inbound: Inbound::default(), client_slots }, events)
    }

    fn hello(connection: &Connection, boot: u64) -> Hello {
        Hello::new(Service::Peer, CLUSTER, PEER, boot).expecting(connection.shared.node.id.0)
    }

    #[test]
    fn whoever_is_turned_away_fences_nobody_out_and_takes_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, _events) = connection(&dir);
        let newest = hello(&connection, u64::MAX);
        let strangers = [
            (Hello { cluster: 0, ..newest }, Refusal::ForeignCluster),
            (Hello { expected: 0, ..newest }, Refusal::ForeignCluster),
            (Hello { node: 0, ..newest }, Refusal::WrongNode),
            (Hello { node: newest.expected, ..newest }, Refusal::WrongNode),
        ];
        for (stranger, expected) in strangers {
            assert_eq!(connection.admit(&stranger).unwrap_err(), expected, "{stranger:?}");
            assert_eq!(connection.shared.node.cluster(), None);
        }
        assert!(connection.admit(&hello(&connection, 1)).is_ok());
        assert_eq!(connection.shared.node.cluster(), Some(CLUSTER));
    }

    #[test]
    fn a_peer_of_another_cluster_fences_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, _events) = connection(&dir);
        connection.shared.node.adopt_cluster(CLUSTER).unwrap();
        let foreign = Hello { cluster: CLUSTER + 1, ..hello(&connection, u64::MAX) };
        assert_eq!(connection.admit(&foreign).unwrap_err(), Refusal::ForeignCluster);
        assert!(connection.admit(&hello(&connection, 1)).is_ok());
    }

    #[tokio::test]
    async fn connections_that_say_nothing_are_bounded_and_do_not_keep_others_out_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, _events) = connection(&dir);
        let listener = Listener::tcp("127.0.0.1:0").await.unwrap();
        let address = listener.local_address().unwrap();
        let room = Room { clients: 1, http: 1, strangers: 2 };
        tokio::spawn(run(listener, connection.shared.clone(), room));
        let endpoint: wire::Endpoint = address.to_string().parse().unwrap();
        let limit = Duration::from_secs(10);
        let mut silent =
            [endpoint.connect(limit).await.unwrap(), endpoint.connect(limit).await.unwrap()];
        let mut one_more = endpoint.connect(limit).await.unwrap();
        let mut byte = [0];
        let end = tokio::io::AsyncReadExt::read(&mut one_more, &mut byte);
        assert!(matches!(tokio::time::timeout(limit, end).await, Ok(Ok(0) | Err(_))), "closed");
        for io in &mut silent {
            let end = tokio::io::AsyncReadExt::read(io, &mut byte);
            assert!(futures_util::future::poll_immediate(end).await.is_none(), "still open");
        }
        drop(silent);
        let deadline = tokio::time::Instant::now() + limit;
        while client::connect(&endpoint, 0, limit).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "a client gets in");
            task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn peers_get_in_when_there_is_no_room_for_another_client() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, _events) = connection(&dir);
        connection.shared.node.adopt_cluster(CLUSTER).unwrap();
        let listener = Listener::tcp("127.0.0.1:0").await.unwrap();
        let endpoint: wire::Endpoint =
            listener.local_address().unwrap().to_string().parse().unwrap();
        let room = Room { clients: 1, http: 1, strangers: 2 };
        tokio::spawn(run(listener, connection.shared.clone(), room));
        let limit = Duration::from_secs(10);
        let _first = client::connect(&endpoint, 0, limit).await.unwrap();
        let refused = client::connect(&endpoint, 0, limit).await.expect_err("one too many");
        assert!(refused.to_string().contains(&Refusal::Busy.to_string()), "{refused}");
        for boot in 1..4 {
            assert!(peer::connect(&endpoint, hello(&connection, boot), limit).await.is_ok());
        }
    }

    #[tokio::test]
    async fn what_peers_pass_on_waits_no_longer_than_what_comes_in_here() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, mut events) = connection(&dir);
        let peer = PeerServer::new(connection.shared.clone(), NodeId(PEER));
        let forever = Forward::OpenSession { remaining_ms: u32::MAX, ttl_ms: 0 };
        let mut answer = Box::pin(peer.forward(tarpc::context::current(), vec![forever]));
        assert!(futures_util::future::poll_immediate(&mut answer).await.is_none());
        let EntriesEvent::Submit(submission) = events.try_recv().unwrap() else {
            panic!("not a command")
        };
        assert!(submission.patience_ticks <= 200, "{} ticks", submission.patience_ticks);
    }

    #[tokio::test]
    async fn the_slowest_request_of_a_batch_does_not_hold_up_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, mut events) = connection(&dir);
        let peer = PeerServer::new(connection.shared.clone(), NodeId(PEER));
        let slow = Forward::OpenSession { remaining_ms: u32::MAX, ttl_ms: 0 };
        let command = bytes::Bytes::from(vec![7; client::MAX_COMMAND_BYTES + 1]);
        let (session, sequence, acked_below, remaining_ms) = (0, 0, 0, 1_000);
        let quick = Forward::Submit { session, sequence, acked_below, command, remaining_ms };
        let context = tarpc::context::current();
        let first = peer.clone().forward(context, vec![slow, quick.clone(), quick]).await;
        assert_eq!((first.places, first.outcomes.len()), (vec![1, 2], 2));
        let Some(rest) = first.rest else { panic!("one has no answer yet") };
        let EntriesEvent::Submit(submission) = events.try_recv().unwrap() else {
            panic!("not a command")
        };
        drop(submission.reply);
        let last = peer.clone().forward_rest(context, rest).await;
        assert_eq!((last.places, last.rest), (vec![0], None));
        let again = peer.forward_rest(context, rest).await;
        assert_eq!(again, Answers::default(), "asked for once");
    }

    #[tokio::test]
    async fn what_is_parked_goes_with_its_connection() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, mut events) = connection(&dir);
        let peer = PeerServer::new(connection.shared.clone(), NodeId(PEER));
        let slow = Forward::OpenSession { remaining_ms: u32::MAX, ttl_ms: 0 };
        let command = bytes::Bytes::from(vec![7; client::MAX_COMMAND_BYTES + 1]);
        let (session, sequence, acked_below, remaining_ms) = (0, 0, 0, 1_000);
        let quick = Forward::Submit { session, sequence, acked_below, command, remaining_ms };
        let first = peer.clone().forward(tarpc::context::current(), vec![slow, quick]).await;
        assert!(first.rest.is_some(), "one has no answer yet");
        let EntriesEvent::Submit(submission) = events.try_recv().unwrap() else {
            panic!("not a command")
        };
        assert!(!submission.reply.is_closed());
        drop(peer);
        assert!(submission.reply.is_closed(), "nobody waits for it any more");
    }
}
