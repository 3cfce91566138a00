//! The contract over real connections.

use bytes::Bytes;
use state_machine::entries::EntryBlob;
use state_machine::kv::command::{Command, MAX_VALUE_BYTES};
use state_machine::rpc::{
    AccessError, ApplyError, Attach, AttachError, CommandResult, Query, QueryError, SnapshotChunk,
    SnapshotError, SnapshotInfo,
};
use state_machine::wire::Io;
use tarpc::context;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{CLUSTER, Daemon, NODE, PATIENCE, Raft, attach_request, blob, done};

#[tokio::test]
async fn commands_are_applied_and_read_back_over_both_transports() {
    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::start(&data_dir, &[]).await;
    let (tcp, _) = Raft::attach(&daemon.tcp(), 1).await;
    let (unix, _) = Raft::attach(&daemon.unix(), 1).await;
    let applied = tcp.apply(1, &["PUT k a value", "INCR n 5"]).await;
    assert_eq!(applied.results, [done(""), done("5")]);
    assert_eq!(unix.get("k").await.as_deref(), Some("a value"));
    assert_eq!(unix.apply(3, &["INCR n"]).await.results, [done("6")]);
    assert_eq!(unix.get("missing").await, None);
}

#[tokio::test]
async fn several_batches_in_flight_are_applied_in_order() {
    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::start(&data_dir, &["--machine", "memory-kv"]).await;
    let (raft, _) = Raft::attach(&daemon.unix(), 1).await;
    let batch = |first| raft.try_apply(first, blob(&["INCR n", "INCR n"]));
    // The third is on its way before the first two.
    let (third, first, second) = tokio::join!(batch(5), batch(1), batch(3));
    let results = [first, second, third].map(|answer| answer.unwrap().unwrap().results);
    let expected = [["1", "2"], ["3", "4"], ["5", "6"]].map(|pair| pair.map(done).to_vec());
    assert_eq!(results, expected);
}

#[tokio::test]
async fn a_query_sees_the_batches_sent_before_it() {
    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::start(&data_dir, &[]).await;
    let (raft, _) = Raft::attach(&daemon.unix(), 1).await;
    for n in 1..=50 {
        let (applied, seen) =
            tokio::join!(biased; raft.try_apply(n, blob(&["INCR n"])), raft.get("n"));
        assert!(applied.unwrap().is_ok());
        assert_eq!(seen, Some(n.to_string()));
    }
}

#[tokio::test]
async fn the_durable_index_follows_by_itself() {
    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::start(&data_dir, &["--sync-interval-ms", "1"]).await;
    let (raft, _) = Raft::attach(&daemon.tcp(), 1).await;
    raft.apply(1, &["PUT k v"]).await;
    let caught_up = async {
        while raft.apply(2, &[]).await.durable_index < 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, caught_up).await.unwrap();
}

#[tokio::test]
async fn so_many_entries_are_synced_at_once() {
    let data_dir = TempDir::new().unwrap();
    let arguments = ["--sync-interval-ms", "60000", "--sync-entries", "3"];
    let daemon = Daemon::start(&data_dir, &arguments).await;
    let (raft, _) = Raft::attach(&daemon.tcp(), 1).await;
    raft.apply(1, &["PUT k v", "PUT k v"]).await;
    assert_eq!(raft.apply(3, &["PUT k v"]).await.durable_index, 0);
    assert_eq!(raft.apply(4, &[]).await.durable_index, 3);
}

#[tokio::test]
async fn a_connection_that_did_not_attach_gets_nothing() {
    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::start(&data_dir, &[]).await;
    Raft::attach(&daemon.tcp(), 1).await;
    let stranger = Raft::connect(&daemon.tcp(), 1).await;
    let answer = stranger.try_apply(1, blob(&["PUT k v"])).await.unwrap();
    assert_eq!(answer, Err(ApplyError::Access(AccessError::NotAttached)));
    let query = Query { boot: 1, min_applied_index: 0, query: Bytes::new() };
    let answer = stranger.client.query(context::current(), query).await.unwrap();
    assert_eq!(answer, Err(QueryError::Access(AccessError::NotAttached)));
}

#[tokio::test]
async fn the_newest_boot_wins_and_its_rule_outlives_the_process() {
    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::start(&data_dir, &[]).await;
    let (old, _) = Raft::attach(&daemon.tcp(), 1).await;
    let (new, _) = Raft::attach(&daemon.tcp(), 2).await;
    let fenced = AccessError::Fenced { newest: 2 };
    let answer = old.try_apply(1, blob(&["PUT k old"])).await.unwrap();
    assert_eq!(answer, Err(ApplyError::Access(fenced)));
    new.apply(1, &["PUT k new"]).await;
    daemon.kill();
    let daemon = Daemon::start(&data_dir, &[]).await;
    let back = Raft::connect(&daemon.tcp(), 1).await;
    let answer = back.client.attach(context::current(), attach_request(1)).await.unwrap();
    assert_eq!(answer, Err(AttachError::Fenced { newest: 2, theirs: 1 }));
}

#[tokio::test]
async fn foreign_rafts_are_refused_after_a_restart_too() {
    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::start(&data_dir, &[]).await;
    Raft::attach(&daemon.tcp(), 1).await;
    daemon.kill();
    let daemon = Daemon::start(&data_dir, &[]).await;
    let raft = Raft::connect(&daemon.tcp(), 1).await;
    let cases = [
        (
            Attach { cluster: 1, ..attach_request(1) },
            AttachError::ForeignCluster { ours: CLUSTER, theirs: 1 },
        ),
        (
            Attach { node: 1, ..attach_request(1) },
            AttachError::ForeignNode { ours: NODE, theirs: 1 },
        ),
        (Attach { contract: 2, ..attach_request(1) }, AttachError::Contract { ours: 1, theirs: 2 }),
    ];
    for (request, error) in cases {
        let answer = raft.client.attach(context::current(), request).await.unwrap();
        assert_eq!(answer, Err(error));
    }
}

#[tokio::test]
async fn the_largest_batch_value_and_answer_fit() {
    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::start(&data_dir, &[]).await;
    let (raft, _) = Raft::attach(&daemon.unix(), 1).await;
    let value = Bytes::from(vec![0xee; MAX_VALUE_BYTES]);
    let put = Command::Put { key: "k".into(), value: value.clone() }.encode().unwrap();
    let applied = raft.try_apply(1, blob(&[&put, &put])).await.unwrap().unwrap();
    assert_eq!(applied.results.len(), 2);
    let query = Command::Get { key: "k".into() }.encode().unwrap();
    let query = Query { boot: 1, min_applied_index: 2, query };
    let answer = raft.client.query(context::current(), query).await.unwrap().unwrap();
    let CommandResult::Done(answer) = answer else { panic!("not found") };
    assert_eq!(answer[1..], value);
}

#[tokio::test]
async fn malformed_frames_and_batches_cost_one_connection_at_most() {
    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::start(&data_dir, &[]).await;
    let (raft, _) = Raft::attach(&daemon.tcp(), 1).await;
    let malformed = EntryBlob::from_bytes(Bytes::from_static(b"nonsense"));
    let answer = raft.try_apply(1, malformed).await.unwrap();
    assert!(matches!(answer, Err(ApplyError::Malformed(_))), "{answer:?}");

    let hostile: [&[u8]; 3] = [b"GET / HTTP/1.1\r\n\r\n", b"OUTR\x03", &[0xff; 4096]];
    for bytes in hostile {
        let mut io: Io = daemon.tcp().connect(PATIENCE).await.unwrap();
        io.write_all(bytes).await.unwrap();
        io.shutdown().await.unwrap();
        let closed = timeout(PATIENCE, io.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "the connection stays open");
    }
    assert_eq!(raft.apply(1, &["INCR n"]).await.results, [done("1")]);
}

#[tokio::test]
async fn a_snapshot_moves_the_state_to_another_process() {
    let from_dir = TempDir::new().unwrap();
    let from = Daemon::start(&from_dir, &[]).await;
    let (source, _) = Raft::attach(&from.unix(), 1).await;
    let value = "v".repeat(600 << 10);
    source.apply(1, &["PUT a 1", &format!("PUT big {value}"), "INCR n 3"]).await;

    let to_dir = TempDir::new().unwrap();
    let to = Daemon::start(&to_dir, &[]).await;
    let (target, _) = Raft::attach(&to.unix(), 1).await;
    target.apply(1, &["PUT stale 1"]).await;
    let (info, pieces) = source.snapshot().await;
    assert_eq!(target.restore(&info, pieces).await.unwrap().applied_index, 3);
    to.kill();

    let to = Daemon::start(&to_dir, &[]).await;
    let (target, info) = Raft::attach(&to.unix(), 1).await;
    assert_eq!((info.applied_term, info.applied_index, info.durable_index), (1, 3, 3));
    assert_eq!(target.get("big").await, Some(value));
    assert_eq!(target.get("stale").await, None);
    assert_eq!(target.apply(4, &["INCR n"]).await.results, [done("4")]);
}

#[tokio::test]
async fn one_connection_feeds_while_another_reads_a_snapshot() {
    let from_dir = TempDir::new().unwrap();
    let from = Daemon::start(&from_dir, &[]).await;
    let (feed, _) = Raft::attach(&from.unix(), 1).await;
    let (other, _) = Raft::attach(&from.unix(), 1).await;
    let value = "v".repeat(900 << 10);
    feed.apply(1, &[&format!("PUT a {value}"), &format!("PUT b {value}"), "PUT z old"]).await;
    let info = other.begin_snapshot().await;
    let mut pieces: Vec<SnapshotChunk> = Vec::new();
    for index in 4.. {
        let offset = pieces.iter().map(|piece| piece.bytes.len() as u64).sum();
        // A feed that lost its connection comes back with the same boot.
        let (feed, _) = Raft::attach(&from.unix(), 1).await;
        let line = format!("PUT z {index}");
        let put = [line.as_str()];
        let (applied, piece) =
            tokio::join!(feed.apply(index, &put), other.read_snapshot(info.snapshot, offset));
        assert_eq!(applied.results, [done("")]);
        pieces.push(piece.unwrap());
        if pieces.last().is_some_and(|piece| piece.last) {
            break;
        }
    }
    assert!(pieces.len() > 7, "{} pieces", pieces.len());

    let to_dir = TempDir::new().unwrap();
    let to = Daemon::start(&to_dir, &[]).await;
    let (target, _) = Raft::attach(&to.unix(), 1).await;
    assert_eq!(target.restore(&info, pieces).await.unwrap().applied_index, 3);
    assert_eq!(target.get("z").await.as_deref(), Some("old"));
    assert_eq!(target.get("b").await, Some(value));
}

#[tokio::test]
async fn a_snapshot_is_let_go_when_its_connection_ends() {
    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::start(&data_dir, &[]).await;
    let (feed, _) = Raft::attach(&daemon.unix(), 1).await;
    let (other, _) = Raft::attach(&daemon.unix(), 1).await;
    feed.apply(1, &["PUT k v"]).await;
    let SnapshotInfo { snapshot, .. } = other.begin_snapshot().await;
    assert!(feed.read_snapshot(snapshot, 0).await.is_ok());
    drop(other);
    let let_go = async {
        while feed.read_snapshot(snapshot, 0).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, let_go).await.unwrap();
    assert_eq!(feed.read_snapshot(snapshot, 0).await, Err(SnapshotError::Unknown { snapshot }));
}
