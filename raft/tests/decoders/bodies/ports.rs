//! The two ports of raft as strangers meet them: bytes in, bytes out. Behind them is a stage that answers at once.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use raft::consensus::{
    AppendOutcome, AppendResponse, Envelope, Index, LogId, Membership, Message, NodeId, RoleName,
    SnapshotResponse, Status, Term, VoteResponse,
};
use raft::http::{self, Connections};
use raft::identity::DataDir;
use raft::node::Node;
use raft::pipeline::digest_commits::CommitsStatus;
use raft::pipeline::digest_entries::EntriesEvent;
use raft::room::Room;
use raft::roster_link::Sight;
use raft::rpc::client::{Answer, ClientServiceRequest, OpenSession, Outcome, Query, Submit};
use raft::rpc::peer::PeerServiceRequest;
use raft::rpc::wire::{Hello, Listener, Service};
use raft::server::{self, Shared};
use raft::shelf::Shelf;
use raft::snapshot::Store;
use raft::transfer::Receiver;
use raft::wal::RealDisk;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::frames::{framed, request_frame};

const CLUSTER: u128 = 5;
/// Far longer than an answer takes. A connection by HTTP has ended by then. On the port of clients and peers a request that is dropped
/// (malformed entries, say) gets no answer, and its connection lasts as long as the call: then others must be served all the same.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of a hello before its checksum.
const HELLO_BYTES: usize = 48;
/// Where a hello says whom it expects.
const EXPECTED: usize = 40;

/// A process without its log, its machine and its peers.
struct Ports {
    runtime: Runtime,
    node: NodeId,
    raft: PathBuf,
    http: PathBuf,
    /// It never does.
    _stop: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

static PORTS: LazyLock<Mutex<Ports>> = LazyLock::new(|| Mutex::new(Ports::open()));

impl Ports {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (raft, http) = (dir.path().join("raft.sock"), dir.path().join("http.sock"));
        let room = Room { clients: 64, http: 64, strangers: 64 };
        let (shared, stop) = (shared(&dir), watch::Sender::new(false));
        let node = shared.node.id;
        runtime.block_on(async {
            let listeners =
                (Listener::unix(&raft).await.unwrap(), Listener::unix(&http).await.unwrap());
            let connections = Connections::new(stop.subscribe());
            tokio::spawn(server::run(listeners.0, shared.clone(), room));
            tokio::spawn(http::run(listeners.1, shared, room.http, connections));
        });
        Self { runtime, node, raft, http, _stop: stop, _dir: dir }
    }

    /// Says these bytes and then, if wanted, that there will be no more; hears what comes until the other side closes. Also whether it
    /// does so in time.
    fn say(&self, port: &PathBuf, bytes: &[u8], ends: bool) -> (Vec<u8>, bool) {
        self.runtime.block_on(async {
            let mut heard = Vec::new();
            let mut stream = UnixStream::connect(port).await.unwrap();
            let exchange = async {
                // It may close before it has read all.
                let said = stream.write_all(bytes).await;
                let said = if ends { said.and(stream.shutdown().await) } else { said };
                stream.read_to_end(&mut heard).await.and(said)
            };
            // What comes of writing and reading is the other side's to choose.
            let has_ended = timeout(PATIENCE, exchange).await.is_ok();
            (heard, has_ended)
        })
    }

    /// Whether a client is told the status.
    fn serves(&self) -> bool {
        let question = request_frame(1, &ClientServiceRequest::Status {});
        let bytes = [hello(Service::Client), framed(&[question])].concat();
        let (heard, has_ended) = self.say(&self.raft, &sealed(bytes, self.node), true);
        has_ended && String::from_utf8_lossy(&heard).contains("leader")
    }
}

fn shared(dir: &tempfile::TempDir) -> Shared {
    let mut data_dir = DataDir::open(dir.path()).unwrap();
    data_dir.adopt_cluster(CLUSTER).unwrap();
    let address = || "127.0.0.1:1".to_owned();
    let node = Arc::new(Node::new(data_dir, "test".to_owned(), address(), address()));
    let (inbox, events) = mpsc::channel(64);
    std::thread::spawn({
        let id = node.id;
        move || answer(events, id)
    });
    let store = Store::open(Arc::new(RealDisk), &dir.path().join("snapshots"), None, 1).unwrap().0;
    let shelf = Shelf::new(store, mpsc::channel(1).0);
    let receiver = Receiver::new(shelf, Arc::clone(&node), inbox.clone(), Arc::default());
    let status = CommitsStatus { applied: Index(3), machine: Arc::from("attached") };
    Shared {
        snapshot_orders: mpsc::channel(1).0,
        receiver: Arc::new(receiver),
        node,
        inbox,
        routes: watch::channel(Arc::default()).1,
        commits: watch::channel(status).1,
        sight: watch::channel(Sight::default()).1,
        leader: watch::channel(None).1,
        leaving: Arc::default(),
        election_timeout: Duration::ZERO,
        tick: Duration::from_millis(10),
        request_timeout: Duration::from_secs(1),
        fsync: true,
        metrics: Arc::default(),
    }
}

/// The stage: commands, reads and peers are answered, the rest is dropped.
fn answer(mut events: mpsc::Receiver<EntriesEvent>, id: NodeId) {
    let done = || Outcome::Done(Bytes::from_static(b"42"));
    while let Some(event) = events.blocking_recv() {
        if let EntriesEvent::Submit(submission) = event {
            drop(submission.reply.send(Ok((Index(5), done()))));
        } else if let EntriesEvent::Query { reply, .. } = event {
            drop(reply.send(Ok(Answer { read_index: 6, outcome: done() })));
        } else if let EntriesEvent::Status(reply) = event {
            drop(reply.send(status(id)));
        } else if let EntriesEvent::PeerAsks { question, reply } = event
            && let Some(answer) = answer_to(&question)
        {
            drop(reply.send(answer));
        }
    }
}

/// Some answer of the right kind.
fn answer_to(question: &Envelope) -> Option<Envelope> {
    let asked_term = question.term;
    let vote = VoteResponse { asked_term, granted: false };
    let match_index = Index(0);
    let append = AppendResponse { outcome: AppendOutcome::Accepted { match_index }, read_seq: 0 };
    let body = match question.body {
        Message::PreVote(_) => Message::PreVoteResponse(vote),
        Message::Vote(_) => Message::VoteResponse(vote),
        Message::Append(_) => Message::AppendResponse(append),
        Message::InstallSnapshot(_) => {
            Message::SnapshotResponse(SnapshotResponse { installed: None })
        }
        Message::PreVoteResponse(_)
        | Message::VoteResponse(_)
        | Message::AppendResponse(_)
        | Message::SnapshotResponse(_)
        | Message::TimeoutNow => return None,
    };
    let Envelope { from, to, term, token, .. } = *question;
    Some(Envelope { from: to, to: from, term, token, body })
}

fn status(id: NodeId) -> Status {
    Status {
        id,
        role: RoleName::Leader,
        term: Term(7),
        leader: Some(id),
        commit_index: Index(3),
        first_index: Index(1),
        last: LogId::new(Term(7), Index(4)),
        snapshot_index: Index(0),
        membership: Membership { voters: [id].into(), ..Membership::default() },
        membership_index: Index(1),
        membership_committed: true,
        leader_ready: true,
        transferring_to: None,
        peers: Vec::new(),
    }
}

/// The port of clients and peers: a hello, then frames. The hello's checksum is put right if there is one, and where it expects
/// anybody it expects this node.
pub(crate) fn raft_port(bytes: &[u8]) -> bool {
    let ports = PORTS.lock().unwrap();
    let (heard, has_ended) = ports.say(&ports.raft, &sealed(bytes.to_vec(), ports.node), true);
    assert!(has_ended || ports.serves(), "nobody else is served while this connection lasts");
    heard.get(7) == Some(&0)
}

fn sealed(mut said: Vec<u8>, node: NodeId) -> Vec<u8> {
    if let Some((hello, rest)) = said.split_at_mut_checked(HELLO_BYTES)
        && rest.len() >= 4
    {
        if hello[EXPECTED..] == [0; 8] {
            hello[EXPECTED..].copy_from_slice(&node.0.to_be_bytes());
        }
        rest[..4].copy_from_slice(&crc32c::crc32c(hello).to_be_bytes());
    }
    said
}

/// The port of HTTP.
pub(crate) fn http_port(bytes: &[u8]) -> bool {
    let ports = PORTS.lock().unwrap();
    // HTTP need not answer who has hung up: whole requests are followed by one after which it closes, the rest ends by itself.
    let is_whole = http_port_seeds().iter().any(|seed| seed == bytes);
    let (heard, has_ended) = if is_whole {
        let bytes =
            [bytes, b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat();
        ports.say(&ports.http, &bytes, false)
    } else {
        ports.say(&ports.http, bytes, true)
    };
    assert!(has_ended, "the connection lasts although its caller has said all");
    assert!(heard.is_empty() || heard.starts_with(b"HTTP/1."), "an answer of another kind");
    !heard.is_empty()
}

fn hello(service: Service) -> Vec<u8> {
    let hello = Hello::new(service, CLUSTER, 3, 1);
    let mut bytes = b"OUTR".to_vec();
    bytes.extend([service as u8, hello.versions.0, hello.versions.1, 0]);
    bytes.extend(hello.cluster.to_be_bytes());
    for number in [hello.node, hello.boot, 0] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend([0; 4]);
    bytes
}

pub(crate) fn raft_port_seeds() -> Vec<Vec<u8>> {
    let command = Bytes::from_static(b"PUT a b");
    let submit =
        Submit { session: 0, sequence: 1, acked_below: 1, command: command.clone(), forward: true };
    let requests = [
        ClientServiceRequest::OpenSession { request: OpenSession { forward: true, ttl_ms: 500 } },
        ClientServiceRequest::Submit { request: submit },
        ClientServiceRequest::Query { request: Query { query: command, forward: false } },
        ClientServiceRequest::Status {},
        ClientServiceRequest::Members {},
    ];
    let frames: Vec<_> =
        (1..).zip(&requests).map(|(id, request)| request_frame(id, request)).collect();
    let forward = request_frame(1, &PeerServiceRequest::ForwardRest { ticket: 3 });
    vec![
        hello(Service::Client),
        [hello(Service::Client), framed(&frames)].concat(),
        [hello(Service::Peer), framed(&[forward])].concat(),
    ]
}

pub(crate) fn http_port_seeds() -> Vec<Vec<u8>> {
    let requests = [
        "GET /v1/kv/a%20key/b?timeout_ms=500 HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT /v1/kv/key HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nOutrigger-Session: 0000000000000007\r\nOutrigger-Sequence: 1\r\n\r\nvalue",
        "DELETE /v1/kv/key HTTP/1.1\r\nHost: a\r\nOutrigger-Forward: no\r\n\r\n",
        "POST /v1/submit HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nOutrigger-Acked-Below: 1\r\n\r\n7\r\nPUT a b\r\n0\r\n\r\n",
        "POST /v1/query HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET a",
        "POST /v1/sessions?ttl_ms=500 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "PUT /v1/sessions/0000000000000007 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "GET /v1/status HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\n\r\nGET /v1/members HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /readyz?verbose HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /livez HTTP/1.0\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ];
    requests.iter().map(|request| request.as_bytes().to_vec()).collect()
}
