//! The port as others see it: bytes in, bytes out. Behind it is a stage that answers by script.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Connections, run};
use crate::command::Kind;
use crate::consensus::{Index, LogId, Membership, NodeId, RoleName, Status, Term};
use crate::identity::DataDir;
use crate::node::Node;
use crate::peers::Routes;
use crate::pipeline::digest_commits::CommitsStatus;
use crate::pipeline::digest_entries::{EntriesEvent, Submission};
use crate::pipeline::{QueryOutcome, QueryRefused, SubmitOutcome, SubmitRefused};
use crate::roster_link::Sight;
use crate::rpc::client::{Answer, MAX_COMMAND_BYTES, MemberStatus, Outcome};
use crate::rpc::wire::Listener;
use crate::server::Shared;
use crate::transfer::Receiver;

/// Far above what anything takes.
const PATIENCE: Duration = Duration::from_mins(1);
const LEADER: NodeId = NodeId(0x2a);
const ROOM: usize = 4;

/// What a stage says to commands and to reads.
#[derive(Clone)]
struct Script {
    submit: SubmitOutcome,
    query: QueryOutcome,
}

impl Default for Script {
    fn default() -> Self {
        let done = || Outcome::Done(Bytes::from_static(b"\xffraw\n"));
        let answer = Answer { read_index: 6, outcome: done() };
        Self { submit: Ok((Index(5), done())), query: Ok(answer) }
    }
}

/// A port, and what came through it.
struct Served {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    connections: Connections,
    server: JoinHandle<()>,
    commands: Arc<Mutex<Vec<Submission>>>,
    queries: Arc<Mutex<Vec<Bytes>>>,
    _dir: tempfile::TempDir,
}

async fn serve(script: Script) -> Served {
    serve_as(script, |connections| connections).await
}

async fn serve_as(script: Script, adapt: fn(Connections) -> Connections) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(dir.path()).unwrap();
    let address = || "127.0.0.1:1".to_owned();
    let node = Arc::new(Node::new(data_dir, "test".to_owned(), address(), address()));
    let (inbox, events) = mpsc::channel(8);
    let (commands, queries) = (Arc::default(), Arc::default());
    let stage = Stage {
        script,
        commands: Arc::clone(&commands),
        queries: Arc::clone(&queries),
        id: node.id,
    };
    tokio::spawn(stage.run(events));
    let leader = MemberStatus {
        name: "other".to_owned(),
        id: LEADER.to_string(),
        state: "alive".to_owned(),
        configured: "voter".to_owned(),
        raft_address: "other:6004".to_owned(),
        gossip_address: String::new(),
        http_address: "other:6003".to_owned(),
    };
    let sight = Sight { members: Arc::new([leader]), ..Sight::default() };
    let status = CommitsStatus { applied: Index(3), machine: Arc::from("attached") };
    let shared = Shared {
        snapshot_orders: mpsc::channel(1).0,
        receiver: Receiver::idle(dir.path(), &node),
        node,
        inbox,
        routes: watch::channel(routes()).1,
        commits: watch::channel(status).1,
        sight: watch::channel(sight).1,
        leader: watch::channel(None).1,
        leaving: Arc::default(),
        election_timeout: Duration::ZERO,
        tick: Duration::from_millis(10),
        request_timeout: Duration::from_secs(10),
        fsync: true,
        metrics: Arc::default(),
    };
    let listener = Listener::tcp("127.0.0.1:0").await.unwrap();
    let address = listener.local_address().unwrap();
    let (stop, stopping) = watch::channel(false);
    let connections = adapt(Connections::new(stopping));
    let server = tokio::spawn(run(listener, shared, ROOM, connections.clone()));
    Served { address, stop, connections, server, commands, queries, _dir: dir }
}

/// The leader is known by name, but nothing can be passed on to it.
fn routes() -> Routes {
    let (forwards, _nobody) = mpsc::channel(1);
    let route = crate::peers::Route { address: "other:6004".to_owned(), forwards };
    Arc::new([(LEADER, route)].into())
}

struct Stage {
    script: Script,
    commands: Arc<Mutex<Vec<Submission>>>,
    queries: Arc<Mutex<Vec<Bytes>>>,
    id: NodeId,
}

impl Stage {
    async fn run(self, mut events: mpsc::Receiver<EntriesEvent>) {
        while let Some(event) = events.recv().await {
            if let EntriesEvent::Submit(submission) = event {
                self.submit(submission);
            } else if let EntriesEvent::Query { query, reply, .. } = event {
                self.queries.lock().unwrap().push(query);
                drop(reply.send(self.script.query.clone()));
            } else if let EntriesEvent::Status(reply) = event {
                drop(reply.send(self.status()));
            } else {
                panic!("unexpected: {event:?}");
            }
        }
    }

    fn submit(&self, submission: Submission) {
        let (reply, _nobody) = tokio::sync::oneshot::channel();
        let kept = Submission { body: submission.body.clone(), reply, ..submission };
        self.commands.lock().unwrap().push(kept);
        drop(submission.reply.send(self.script.submit.clone()));
    }

    fn status(&self) -> Status {
        Status {
            id: self.id,
            role: RoleName::Leader,
            term: Term(7),
            leader: Some(LEADER),
            commit_index: Index(3),
            first_index: Index(1),
            last: LogId::new(Term(7), Index(4)),
            snapshot_index: Index(0),
            membership: Membership { voters: [self.id].into(), ..Membership::default() },
            membership_index: Index(1),
            membership_committed: true,
            leader_ready: true,
            transferring_to: None,
            peers: Vec::new(),
        }
    }
}

/// An answer, taken apart.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| *field == name).map(|(_, value)| value).next()
    }

    /// Kind and outcome of a problem document, which has all that it must have.
    fn problem(&self) -> (String, String) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let document: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(document["status"], self.status);
        assert!(document["title"].is_string() && document["detail"].is_string(), "{document}");
        let text = |name: &str| document[name].as_str().unwrap().to_owned();
        let kind = text("type").strip_prefix("urn:outrigger:problem:").unwrap().to_owned();
        (kind, text("outcome"))
    }
}

impl Served {
    async fn send(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A server that has refused already may have closed.
        drop(stream.write_all(request.as_ref()).await);
        read_all(&mut stream).await
    }

    async fn ask(&self, line: &str, headers: &[&str], body: &str) -> Reply {
        let fields: String = headers.iter().flat_map(|field| [field, "\r\n"]).collect();
        let length = body.len();
        self.send(format!(
            "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
        ))
        .await
    }
}

async fn read_all(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the answer ends");
    drop(end);
    let text = String::from_utf8_lossy(&bytes);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no answer: {text}"));
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
    Reply { status, head, body: bytes[at + 4..].to_vec() }
}

#[tokio::test]
async fn commands_and_queries_go_in_and_out_as_they_are() {
    let served = serve(Script::default()).await;
    let reply = served.ask("POST /v1/submit", &[], "PUT k v").await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"\xffraw\n"[..]));
    assert_eq!(reply.header("outrigger-index"), Some("5"));
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    let reply = served.ask("POST /v1/query?timeout_ms=5", &[], "GET k").await;
    assert_eq!((reply.status, reply.header("outrigger-index")), (200, Some("6")));
    let chunked = "POST /v1/submit HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nDEL\r\n2\r\n k\r\n0\r\n\r\n";
    assert_eq!(served.send(chunked).await.status, 200);

    let commands = served.commands.lock().unwrap();
    let bodies: Vec<&[u8]> = commands.iter().map(|command| &command.body[..]).collect();
    assert_eq!(bodies, [&b"PUT k v"[..], b"DEL k"]);
    assert_eq!(*served.queries.lock().unwrap(), ["GET k"]);
}

#[tokio::test]
async fn a_named_command_keeps_its_name_and_a_session_is_named_as_it_was_given() {
    let served = serve(Script::default()).await;
    let reply = served.ask("POST /v1/sessions", &[], "").await;
    assert_eq!((reply.status, reply.header("outrigger-session")), (201, Some("0000000000000005")));
    assert_eq!(reply.body, br#"{"session":"0000000000000005","ttl_ms":3600000}"#);
    let reply = served.ask("POST /v1/sessions?ttl_ms=90000", &[], "").await;
    assert_eq!(reply.body, br#"{"session":"0000000000000005","ttl_ms":90000}"#);
    for line in ["PUT /v1/sessions/0000000000000005", "DELETE /v1/sessions/0000000000000005"] {
        assert_eq!(served.ask(line, &[], "").await.status, 204, "{line}");
    }
    let name = ["Outrigger-Session: 0000000000000005", "Outrigger-Sequence: 9"];
    served.ask("POST /v1/submit", &name, "x").await;
    let acked = [name[0], name[1], "Outrigger-Acked-Below: 8"];
    served.ask("PUT /v1/kv/k", &acked, "x").await;
    let commands = served.commands.lock().unwrap();
    let names: Vec<_> = commands
        .iter()
        .map(|command| (command.kind, command.session, command.sequence, command.acked_below))
        .collect();
    assert_eq!(
        names,
        [
            (Kind::OpenSession, 0, 0, 0),
            (Kind::OpenSession, 0, 0, 0),
            (Kind::RenewSession, 5, 0, 0),
            (Kind::CloseSession, 5, 0, 0),
            (Kind::Apply, 5, 9, 1),
            (Kind::Apply, 5, 9, 8)
        ]
    );
    let bodies: Vec<&[u8]> = commands[..2].iter().map(|opening| &opening.body[..]).collect();
    assert_eq!(bodies, [3_600_000u64.to_be_bytes(), 90_000u64.to_be_bytes()]);
}

#[tokio::test]
async fn keys_are_paths_and_values_are_bodies() {
    let answer = |bytes: &'static [u8]| {
        let done = Outcome::Done(Bytes::from_static(bytes));
        Script {
            submit: Ok((Index(5), done.clone())),
            query: Ok(Answer { read_index: 6, outcome: done }),
        }
    };
    let served = serve(answer(b"")).await;
    let reply = served.ask("PUT /v1/kv/a/b%20c", &[], "v w").await;
    assert_eq!((reply.status, reply.header("outrigger-index")), (204, Some("5")));
    assert_eq!(&served.commands.lock().unwrap()[0].body[..], b"\x01\x01\x05\x00a/b cv w");
    let (kind, outcome) = served.ask("DELETE /v1/kv/k", &[], "").await.problem();
    assert_eq!((kind.as_str(), outcome.as_str()), ("foreign-machine", "applied"));
    let (kind, outcome) = served.ask("GET /v1/kv/k", &[], "").await.problem();
    assert_eq!((kind.as_str(), outcome.as_str()), ("foreign-machine", "refused"));

    let served = serve(answer(b"\x01va\x00lue")).await;
    let (kind, outcome) = served.ask("PUT /v1/kv/k", &[], "v").await.problem();
    assert_eq!((kind.as_str(), outcome.as_str()), ("foreign-machine", "applied"));
    let reply = served.ask("GET /v1/kv/k", &[], "").await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"va\x00lue"[..]));
    let reply = served.ask("HEAD /v1/kv/k", &[], "").await;
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("6")));

    let reply = serve(answer(b"\x00")).await.ask("GET /v1/kv/k", &[], "").await;
    assert_eq!((reply.status, reply.header("outrigger-index")), (404, Some("6")));
    assert_eq!(reply.problem().0, "no-such-key");
    assert_eq!(serve(answer(b"1")).await.ask("DELETE /v1/kv/k", &[], "").await.status, 204);
    let reply = serve(answer(b"0")).await.ask("DELETE /v1/kv/k", &[], "").await;
    assert_eq!((reply.status, reply.problem().1.as_str()), (404, "applied"));
}

#[tokio::test]
async fn what_became_of_a_command_is_told_by_status_and_document() {
    let unknown = SubmitRefused::Unknown { reason: "why".to_owned() };
    let refused = Outcome::Refused(Bytes::from_static(b"not a number"));
    for (submit, status, kind, outcome) in [
        (Ok((Index(5), refused)), 422, "refused-by-machine", "refused"),
        (Err(SubmitRefused::Busy), 503, "busy", "refused"),
        (Err(SubmitRefused::NotLeader { leader: None }), 503, "no-leader", "refused"),
        (Err(SubmitRefused::SessionExpired), 410, "session-expired", "unknown"),
        (Err(SubmitRefused::OutsideWindow), 409, "outside-window", "refused"),
        (Err(SubmitRefused::AlreadyAcknowledged), 409, "already-acknowledged", "unknown"),
        (
            Err(SubmitRefused::CommittedNotApplied { index: Index(5) }),
            202,
            "committed-not-applied",
            "committed",
        ),
        (Err(unknown), 504, "unknown", "unknown"),
    ] {
        let served = serve(Script { submit, ..Script::default() }).await;
        for line in ["POST /v1/submit", "PUT /v1/kv/k", "DELETE /v1/kv/k"] {
            let reply = served.ask(line, &[], "x").await;
            assert_eq!(reply.status, status, "{line}");
            assert_eq!(reply.problem(), (kind.to_owned(), outcome.to_owned()), "{line}");
            let has_place = matches!(kind, "refused-by-machine" | "committed-not-applied");
            assert_eq!(reply.header("outrigger-index"), has_place.then_some("5"), "{line}");
        }
    }
    let expired = Script { submit: Err(SubmitRefused::SessionExpired), ..Script::default() };
    let reply = serve(expired).await.ask("PUT /v1/sessions/0000000000000005", &[], "").await;
    assert_eq!((reply.status, reply.problem().0.as_str()), (410, "session-expired"));
    let forgotten = Script { submit: Ok((Index(5), Outcome::AlreadyApplied)), ..Script::default() };
    let reply = serve(forgotten).await.ask("POST /v1/submit", &[], "x").await;
    assert_eq!((reply.status, reply.header("outrigger-result")), (204, Some("not-kept")));
}

#[tokio::test]
async fn what_became_of_a_read_is_told_likewise() {
    let refused = Outcome::Refused(Bytes::from_static(b"no such table"));
    for (query, status, kind) in [
        (Ok(Answer { read_index: 6, outcome: refused }), 422, "refused-by-machine"),
        (Err(QueryRefused::Busy), 503, "busy"),
        (Err(QueryRefused::NotLeader { leader: None }), 503, "no-leader"),
        (Err(QueryRefused::Unavailable { reason: "why".to_owned() }), 504, "unavailable"),
    ] {
        let served = serve(Script { query, ..Script::default() }).await;
        for line in ["POST /v1/query", "GET /v1/kv/k"] {
            let reply = served.ask(line, &[], "").await;
            assert_eq!((reply.status, reply.problem()), (status, (kind.into(), "refused".into())));
        }
    }
}

#[tokio::test]
async fn who_forbids_passing_on_is_told_where_the_leader_is() {
    let leader = Some(LEADER);
    let script = Script {
        submit: Err(SubmitRefused::NotLeader { leader }),
        query: Err(QueryRefused::NotLeader { leader }),
    };
    let served = serve(script).await;
    for line in ["POST /v1/submit", "POST /v1/query", "PUT /v1/kv/k", "GET /v1/kv/k"] {
        let reply = served.ask(line, &["Outrigger-Forward: no"], "").await;
        assert_eq!((reply.status, reply.problem().0.as_str()), (421, "not-the-leader"));
        assert_eq!(reply.header("outrigger-leader"), Some("http://other:6003"), "{line}");
    }
}

#[tokio::test]
async fn status_members_health_and_metrics_are_there() {
    let served = serve(Script::default()).await;
    served.ask("POST /v1/submit", &[], "x").await;
    let reply = served.ask("GET /v1/status", &[], "").await;
    let status: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((&status["term"], &status["applied_index"]), (&7.into(), &3.into()));
    assert_eq!(status["leader"]["id"], LEADER.to_string());
    assert_eq!(status["http_address"], "127.0.0.1:1");
    let reply = served.ask("GET /v1/members", &[], "").await;
    let members: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(members[0]["http_address"], "other:6003");
    assert_eq!(served.ask("GET /livez", &[], "").await.status, 200);
    let reply = served.ask("GET /readyz?verbose", &[], "").await;
    let report = String::from_utf8(reply.body).unwrap();
    assert_eq!(reply.status, 503, "{report}");
    assert!(report.starts_with("[-]membership it belongs to no cluster yet\n"), "{report}");
    assert!(report.contains("[+]machine ok\n"), "{report}");
    let reply = served.ask("GET /metrics", &[], "").await;
    let page = String::from_utf8(reply.body).unwrap();
    for line in [
        "outrigger_term 7",
        "outrigger_role{role=\"leader\"} 1",
        "outrigger_role{role=\"follower\"} 0",
        "outrigger_commit_index 3",
        "outrigger_last_index 4",
        "outrigger_submits_total{outcome=\"applied\"} 1",
        "outrigger_submit_seconds_count 1",
        "outrigger_submit_seconds_bucket{le=\"+Inf\"} 1",
        "outrigger_machine_attached 1",
        "outrigger_gossip_members{state=\"alive\"} 1",
        "outrigger_http_connections 1",
        "# EOF",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in:\n{page}");
    }
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong_and_reach_nobody() {
    let served = serve(Script::default()).await;
    let long_key = format!("GET /v1/kv/{}", "k".repeat(4097));
    let half_named = "Outrigger-Session: 0000000000000005";
    let nothing: &[&str] = &[];
    for (line, headers, status, kind) in [
        ("GET /", nothing, 404, "no-such-route"),
        ("POST /v1/submit/", nothing, 404, "no-such-route"),
        ("GET /v1/submit", nothing, 405, "method-not-allowed"),
        ("POST /v1/kv/k", nothing, 405, "method-not-allowed"),
        ("BREW /v1/kv/k", nothing, 405, "method-not-allowed"),
        ("PUT /v1/kv/", nothing, 400, "bad-request"),
        ("GET /v1/kv/%zz", nothing, 400, "bad-request"),
        (&long_key, nothing, 400, "bad-request"),
        ("POST /v1/submit?timeout=5", nothing, 400, "bad-request"),
        ("POST /v1/submit?timeout_ms=soon", nothing, 400, "bad-request"),
        ("POST /v1/submit?timeout_ms=0", nothing, 400, "bad-request"),
        ("POST /v1/submit?ttl_ms=5", nothing, 400, "bad-request"),
        ("POST /v1/sessions?ttl_ms=0", nothing, 400, "bad-request"),
        ("POST /v1/sessions?ttl_ms=86400001", nothing, 400, "bad-request"),
        ("POST /v1/sessions?ttl_ms=soon", nothing, 400, "bad-request"),
        ("PUT /v1/sessions/5", nothing, 400, "bad-request"),
        ("DELETE /v1/sessions/000000000000000g", nothing, 400, "bad-request"),
        ("GET /v1/sessions/0000000000000005", nothing, 405, "method-not-allowed"),
        ("POST /v1/submit", &[half_named], 400, "bad-request"),
        ("POST /v1/query", &["Outrigger-Forward: maybe"], 400, "bad-request"),
        ("GET /readyz?verbos", nothing, 400, "bad-request"),
        ("POST /v1/submit", &["Origin: http://evil.example"], 403, "cross-origin"),
    ] {
        let reply = served.ask(line, headers, "").await;
        assert_eq!(reply.status, status, "{line}: {reply:?}");
        assert_eq!(reply.problem(), (kind.to_owned(), "refused".to_owned()), "{line}");
        assert_eq!(reply.header("allow").is_some(), status == 405, "{line}: {reply:?}");
    }
    assert!(served.commands.lock().unwrap().is_empty());
    assert!(served.queries.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read_and_while_it_is() {
    let served = serve(Script::default()).await;
    let announced = format!(
        "POST /v1/submit HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        MAX_COMMAND_BYTES + 1
    );
    let reply = served.send(announced).await;
    assert_eq!((reply.status, reply.problem().0.as_str()), (413, "too-large"));

    let mut chunked = b"POST /v1/submit HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let piece = vec![b'x'; 64 * 1024];
    for _ in 0..=MAX_COMMAND_BYTES / piece.len() {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(&piece);
        chunked.extend_from_slice(b"\r\n");
    }
    let reply = served.send(chunked).await;
    assert_eq!((reply.status, reply.problem().0.as_str()), (413, "too-large"));

    let largest = "x".repeat(MAX_COMMAND_BYTES);
    assert_eq!(served.ask("POST /v1/submit", &[], &largest).await.status, 200);
    assert_eq!(served.commands.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn garbage_harms_nobody() {
    let served = serve(Script::default()).await;
    let long_head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(100));
    let garbage: [&[u8]; 7] = [
        b"\x00\x00\x00\x10hello",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/submit HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/submit HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        long_head.as_bytes(),
        many_headers.as_bytes(),
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        drop(stream.write_all(bytes).await);
        let mut answer = Vec::new();
        let end = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        drop(end.expect("the connection ends"));
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // Half a body, and then nothing more.
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream
        .write_all(b"POST /v1/submit HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nPUT")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    drop(timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends"));
    assert!(served.commands.lock().unwrap().is_empty(), "half a command is none");
    assert_eq!(served.ask("POST /v1/submit", &[], "x").await.status, 200);
}

#[tokio::test]
async fn connections_are_bounded_and_one_more_is_told_so() {
    let served = serve(Script::default()).await;
    let mut open = Vec::new();
    for _ in 0..ROOM {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut byte = [0];
        timeout(PATIENCE, stream.read_exact(&mut byte)).await.unwrap().unwrap();
        open.push(stream);
    }
    let mut one_more = TcpStream::connect(served.address).await.unwrap();
    assert_eq!(read_all(&mut one_more).await.status, 503);
    drop(open);
    let begun = tokio::time::Instant::now();
    loop {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        drop(
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await,
        );
        let mut answer = Vec::new();
        drop(timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends"));
        if answer.starts_with(b"HTTP/1.1 200") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "room again");
    }
}

#[tokio::test]
async fn who_never_finishes_its_request_is_let_go() {
    let impatient =
        |connections: Connections| connections.with_head_timeout(Duration::from_millis(50));
    let served = serve_as(Script::default(), impatient).await;
    for half in ["", "GET /livez HTTP/1.1\r\nHost: x\r\n"] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(half.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        drop(timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends"));
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{half}");
    }
}

#[tokio::test]
async fn a_stop_closes_the_port_and_idle_connections() {
    let served = serve(Script::default()).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut byte = [0];
    timeout(PATIENCE, idle.read_exact(&mut byte)).await.unwrap().unwrap();
    served.stop.send_replace(true);
    timeout(PATIENCE, served.server).await.unwrap().unwrap();
    served.connections.finish().await;
    let mut rest = Vec::new();
    timeout(PATIENCE, idle.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err(), "the port is closed");
}
