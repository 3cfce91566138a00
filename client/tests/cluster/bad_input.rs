//! Strangers and nonsense on every port, and commands that make no sense: refused, and everybody lives on.

use std::net::UdpSocket;
use std::time::Duration;

use bytes::Bytes;
use raft::rpc::client::{self, ConnectError, MAX_COMMAND_BYTES, Outcome, SubmitError};
use raft::rpc::peer;
use raft::rpc::wire::{Endpoint, Hello, HelloError, MAX_FRAME_BYTES, Refusal, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::harness::caller::{Caller, Trouble};
use crate::harness::cluster::{Cluster, QUICK};
use crate::harness::program::Program;
use crate::harness::wait::PATIENCE;

/// What a person typed into a hexadecimal cluster id.
const FOREIGN: u128 = 0x000f_0e1d;
/// A node that nobody knows.
const STRANGER: u64 = 7;

async fn ids(cluster: &Cluster, node: usize) -> (u128, u64) {
    let status = cluster.answer(node).await;
    let cluster = u128::from_str_radix(&status.cluster.unwrap(), 16).unwrap();
    (cluster, u64::from_str_radix(&status.id, 16).unwrap())
}

#[tokio::test]
async fn clients_and_peers_of_another_cluster_are_told_so() {
    let cluster = Cluster::form(1, QUICK).await;
    let (own, id) = ids(&cluster, 0).await;
    let endpoint = cluster.endpoint(0);
    assert!(client::connect(&endpoint, own, PATIENCE).await.is_ok());
    let as_peer = |cluster, expected| {
        let hello = Hello::new(Service::Peer, cluster, STRANGER, 1).expecting(expected);
        peer::connect(&endpoint, hello, PATIENCE)
    };
    let refused = [
        (client::connect(&endpoint, FOREIGN, PATIENCE).await.err(), Refusal::ForeignCluster),
        (as_peer(FOREIGN, id).await.err(), Refusal::ForeignCluster),
        (as_peer(0, id).await.err(), Refusal::ForeignCluster),
        (as_peer(own, id + 1).await.err(), Refusal::WrongNode),
    ];
    for (error, expected) in refused {
        let error = error.expect("a refusal");
        let text = error.to_string();
        assert!(
            text.contains(&endpoint.to_string()) && text.contains(&expected.to_string()),
            "{text}"
        );
        match error {
            ConnectError::Hello {
                source: HelloError::RefusedByPeer { refusal, theirs }, ..
            } => {
                assert_eq!((refusal, theirs.cluster), (expected, own));
            }
            ConnectError::Hello { .. } | ConnectError::Io { .. } => panic!("{error:?}"),
        }
    }
    cluster.all_vote().await;
}

#[tokio::test]
async fn commands_that_make_no_sense_are_refused_and_change_nothing() {
    let cluster = Cluster::form(3, QUICK).await;
    let mut caller = Caller::new(vec![cluster.endpoint(cluster.follower().await)], 0);
    caller.open_session().await;
    caller.put("k", "no number").await;
    for (command, reason) in [
        (&b"FROB k v"[..], "unknown verb"),
        (b"PUT k", "the value is missing"),
        (b"", "an empty command"),
        (b"\xff\xff", "neither a line"),
        (b"\x01\x01\xff\xff", "cut short"),
        (b"INCR k", "not a whole number"),
    ] {
        let said = caller.submit_once(Bytes::from_static(command)).await.unwrap().outcome;
        let Outcome::Refused(text) = said else { panic!("{command:?}: {said:?}") };
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.contains(reason), "{command:?}: {text}");
    }
    let too_large = Bytes::from(vec![b'x'; MAX_COMMAND_BYTES + 1]);
    match caller.submit_once(too_large).await {
        Err(Trouble::Submit(SubmitError::TooLarge { bytes, limit })) => {
            assert_eq!((bytes, limit), (MAX_COMMAND_BYTES as u64 + 1, MAX_COMMAND_BYTES as u64));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(caller.get("k").await.as_deref(), Some("no number"));
}

/// A frame: four bytes of length, then the message.
fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&length.to_be_bytes()[..], message].concat()
}

/// A call of the method with this number, without arguments, due in so many seconds; as the codec writes it.
fn call_due_in(seconds: u64, method: u8) -> Vec<u8> {
    let mut message = vec![0];
    let mut rest = seconds;
    while rest >= 0x80 {
        message.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    message.push(rest.to_le_bytes()[0]);
    let (no_nanoseconds, trace, span, sampled, request) = ([0], [0; 16], [0], [1], [1]);
    message.extend([&no_nanoseconds[..], &trace, &span, &sampled, &request, &[method]].concat());
    frame(&message)
}

fn nonsense() -> Vec<Vec<u8>> {
    let oversized = u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_be_bytes();
    vec![
        Vec::new(),
        vec![0],
        vec![0; 65_536],
        vec![0xff; 65_536],
        b"OUTR".to_vec(),
        [&b"OUTR"[..], &[0xff; 100]].concat(),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        u32::MAX.to_be_bytes().to_vec(),
        [&oversized[..], &[0; 1000]].concat(),
        frame(&[]),
        frame(&[0xff; 1000]),
        frame(&[0; 1000])[..500].to_vec(),
        call_due_in(u64::MAX, 0),
        call_due_in(u64::MAX / 2, 0),
        call_due_in(u64::MAX / 4, 0xff),
        call_due_in(0, 0),
    ]
}

/// Connects, says hello if there is one, sends bytes and no more, and reads what comes until the other end closes.
async fn send(endpoint: &Endpoint, hello: Option<Hello>, bytes: &[u8]) -> Vec<u8> {
    let mut io = endpoint.connect(PATIENCE).await.unwrap();
    if let Some(hello) = hello {
        hello.open(&mut io).await.unwrap();
    }
    let mut answer = Vec::new();
    // It may close before it has read all.
    let _sent = io.write_all(bytes).await;
    let _shut = io.shutdown().await;
    let closed = timeout(PATIENCE, io.read_to_end(&mut answer)).await;
    // By an end or by a reset.
    let _either = closed.unwrap_or_else(|_| panic!("{endpoint} keeps a connection open"));
    answer
}

#[tokio::test]
async fn nonsense_on_every_port_harms_nobody() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let terms = cluster.terms().await;
    let victim = cluster.leader().await;
    let (own, id) = ids(&cluster, victim).await;
    let socket = |name: &str, cluster: &mut Cluster| {
        Endpoint::Unix(cluster.node(victim).data_dir().join(name))
    };
    let raft = cluster.endpoint(victim);
    let machine = Endpoint::Tcp(cluster.node(victim).address(Program::StateMachine, "tcp"));
    let member = Endpoint::Tcp(cluster.node(victim).address(Program::Member, "rpc"));
    let as_client = Hello::new(Service::Client, 0, 0, 0);
    let as_peer = Hello::new(Service::Peer, own, STRANGER, 1).expecting(id);
    let as_raft = Hello::new(Service::StateMachine, own, id, 1);
    let to_member = Hello::new(Service::Member, 0, 0, 0);
    for (endpoint, hello) in [
        (&raft, as_client),
        (&raft, as_peer),
        (&machine, as_raft),
        (&socket("machine.sock", &mut cluster), as_raft),
        (&member, to_member),
        (&socket("member.sock", &mut cluster), to_member),
    ] {
        for bytes in nonsense() {
            send(endpoint, None, &bytes).await;
            send(endpoint, Some(hello), &bytes).await;
        }
    }
    send_datagrams(&mut cluster, victim);

    for node in cluster.numbers() {
        for program in Program::ALL {
            assert!(cluster.node(node).runs(program), "{program:?} of node {node}");
            let log = cluster.node(node).log_text(program);
            assert!(!log.contains("panicked"), "{program:?} of node {node}");
        }
    }
    cluster.all_vote().await;
    assert_eq!(cluster.terms().await, terms, "no election");
    let mut caller = Caller::new(vec![raft], 0);
    caller.open_session().await;
    caller.put("k", "still there").await;
    assert_eq!(caller.get("k").await.as_deref(), Some("still there"));
    assert_eq!(caller.failures, Vec::<String>::new());
}

fn send_datagrams(cluster: &mut Cluster, victim: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let gossip = cluster.node(victim).address(Program::Member, "gossip");
    for length in [0, 1, 3, 24, 100, 1_400, 1_401, 9_000, 60_000] {
        for byte in [0, 0x4f, 0xff] {
            socket.send_to(&vec![byte; length], &gossip).unwrap();
            socket.send_to(&[&b"OG\x01\x00"[..], &vec![byte; length]].concat(), &gossip).unwrap();
        }
    }
}

#[tokio::test]
async fn a_caller_without_hurry_is_served_and_one_that_sends_slowly_keeps_nobody_waiting() {
    const YEARS: Duration = Duration::from_hours(1_000_000);
    const STATUS: u8 = 3;
    let cluster = Cluster::form(1, QUICK).await;
    let endpoint = cluster.endpoint(0);
    // A hello that never comes to its end.
    let mut slow = endpoint.connect(PATIENCE).await.unwrap();
    slow.write_all(b"OUT").await.unwrap();
    let hello = Hello::new(Service::Client, 0, 0, 0);
    let mut io = endpoint.connect(PATIENCE).await.unwrap();
    hello.open(&mut io).await.unwrap();
    io.write_all(&call_due_in(YEARS.as_secs(), STATUS)).await.unwrap();
    let length = timeout(PATIENCE, io.read_u32()).await.unwrap().unwrap();
    let mut answer = vec![0; length as usize];
    timeout(PATIENCE, io.read_exact(&mut answer)).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("leader") && text.contains("attached"), "{text}");
    // The slow one is turned away in the end.
    let mut rest = Vec::new();
    let _closed = timeout(PATIENCE, slow.read_to_end(&mut rest)).await.unwrap();
}
