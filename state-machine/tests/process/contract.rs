//! The contract over real connections.

use bytes::Bytes;
use state_machine::entries::EntryBlob;
use state_machine::kv::command::{Command, MAX_VALUE_BYTES};
use state_machine::rpc::{
    AccessError, ApplyError, Attach, AttachError, BeginRestore, BeginSnapshot, CommandResult,
    FinishRestore, Query, QueryError, ReadSnapshot, SnapshotInfo, WriteRestore,
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
    move_snapshot(&source, &target).await;
    to.kill();

    let to = Daemon::start(&to_dir, &[]).await;
    let (target, info) = Raft::attach(&to.unix(), 1).await;
    assert_eq!((info.applied_term, info.applied_index, info.durable_index), (1, 3, 3));
    assert_eq!(target.get("big").await, Some(value));
    assert_eq!(target.get("stale").await, None);
    assert_eq!(target.apply(4, &["INCR n"]).await.results, [done("4")]);
}

async fn move_snapshot(source: &Raft, target: &Raft) {
    let now = context::current;
    let info = source.client.begin_snapshot(now(), BeginSnapshot { boot: 1 }).await;
    let SnapshotInfo { snapshot, applied_term, applied_index } = info.unwrap().unwrap();
    let begin = BeginRestore { boot: 1, applied_term, applied_index };
    let mut state = target.client.begin_restore(now(), begin).await.unwrap().unwrap();
    let restore = state.restore;
    loop {
        let offset = state.offset;
        let read = ReadSnapshot { boot: 1, snapshot, offset };
        let piece = source.client.read_snapshot(now(), read).await.unwrap().unwrap();
        let (bytes, checksum) = (piece.bytes, piece.checksum);
        let write = WriteRestore { boot: 1, restore, offset, bytes, checksum };
        state = target.client.write_restore(now(), write).await.unwrap().unwrap();
        if piece.last {
            break;
        }
    }
    let finish = FinishRestore { boot: 1, restore, snapshot_bytes: state.offset };
    let info = target.client.finish_restore(now(), finish).await.unwrap().unwrap();
    assert_eq!(info.applied_index, applied_index);
}
