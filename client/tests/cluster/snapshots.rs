//! Logs that are made short, nodes that come in by a snapshot, machines that are rebuilt from one, and retries over all of it.

use std::fs;
use std::path::PathBuf;

use raft::rpc::client::NodeStatus;
use raft::snapshot::PIECE_BYTES;
use rustix::process::Signal;
use serde_json::Value;
use state_machine::kv::command::Command;

use crate::harness::caller::{Caller, number};
use crate::harness::cluster::{Cluster, LONG_TAIL, ORDERED_SNAPSHOTS, SLOW_SNAPSHOTS, SNAPPY};
use crate::harness::http::HttpCaller;
use crate::harness::load::Load;
use crate::harness::program::Program;
use crate::harness::wait::eventually;
use crate::typed::{ask, say};

/// Commands that show that the cluster is at work.
const SOME: u64 = 200;
/// Size of the values that fill a log.
const BIG: usize = 256 * 1024;

/// Writes so many big values.
pub(crate) async fn fill(cluster: &Cluster, values: usize) {
    let mut caller = Caller::new(cluster.endpoints(), 0);
    caller.open_session().await;
    let value = "v".repeat(BIG);
    for place in 0..values {
        caller.put(&format!("big/{place:04}"), &value).await;
    }
}

/// Has a node take a snapshot; the index that it ends at.
pub(crate) fn take_snapshot(cluster: &Cluster, node: usize) -> u64 {
    let name = format!("n{node}");
    let words = ["--output", "json", "snapshot", &name];
    let taken = ask(&cluster.endpoints(), &words);
    assert_eq!(taken.code, Some(0), "{}{}", taken.out, taken.err);
    taken.json()["snapshot_index"].as_u64().unwrap()
}

/// Whether it has a snapshot, and a log that does not begin at its beginning.
pub(crate) fn is_compacted(status: &NodeStatus) -> bool {
    status.snapshot_index > 0 && status.first_index > 1
}

/// The file of a node's newest snapshot.
fn newest_snapshot(cluster: &mut Cluster, node: usize) -> PathBuf {
    let directory = cluster.node(node).data_dir().join("raft/snapshots");
    let files = fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == "snapshot")).max().unwrap()
}

/// A figure of a node's metrics.
async fn metric(cluster: &Cluster, node: usize, name: &str) -> u64 {
    let mut caller = HttpCaller::new(vec![cluster.http(node)], 0);
    let page = caller.ask("GET /metrics", &[], "").await.expect("it answers").text();
    let line = page.lines().find(|line| line.split(' ').next() == Some(name));
    let value =
        line.and_then(|line| line.split(' ').nth(1)).unwrap_or_else(|| panic!("{name} in {page}"));
    value.parse().unwrap()
}

/// Bytes of snapshots that a node has sent.
async fn sent(cluster: &Cluster, node: usize) -> u64 {
    metric(cluster, node, "outrigger_snapshot_sent_bytes_total").await
}

#[tokio::test]
async fn logs_are_made_short_under_load_and_a_new_node_comes_in_by_a_snapshot() {
    let mut cluster = Cluster::form(3, SNAPPY).await;
    let load = Load::start(&cluster, "short");
    fill(&cluster, 24).await;
    for node in cluster.numbers() {
        cluster.until(node, "took a snapshot and made its log short", is_compacted).await;
    }
    load.proceeds(SOME).await;
    let joined = cluster.add_node().await;
    cluster.until(joined, "has a snapshot", |status| status.snapshot_index > 0).await;
    cluster.all_catch_up().await;
    // The counter was shown and never raised: the nemesis asked how many snapshots had been installed.
    let installed = r#"outrigger_snapshots_total{outcome="installed"}"#;
    assert!(metric(&cluster, joined, installed).await > 0);
    load.proceeds(SOME).await;
    let ledger = load.stop().await;
    ledger.check(&cluster).await;
    let mut through_it = Caller::new(vec![cluster.endpoint(joined)], 0);
    assert_eq!(through_it.get("big/0023").await.map(|value| value.len()), Some(BIG));
}

#[tokio::test]
async fn a_transfer_that_is_cut_five_times_is_resumed_each_time() {
    const CUTS: u64 = 5;
    // What is sent again: the largest piece that was on its way, and what had arrived of a frame.
    const PIECE: u64 = (1 << 20) + PIECE_BYTES as u64;
    let mut cluster = Cluster::form(3, SLOW_SNAPSHOTS).await;
    fill(&cluster, 80).await;
    let leader = cluster.leader().await;
    take_snapshot(&cluster, leader);
    let bytes = cluster.answer(leader).await.snapshot_bytes;
    let joined = cluster.add_node().await;
    for cut in 1..=CUTS {
        let goal = bytes * cut / (CUTS + 1);
        let enough = async || Some(sent(&cluster, leader).await).filter(|sent| *sent >= goal);
        let so_far = eventually("progress of the transfer", enough).await;
        assert!(so_far < bytes, "the transfer is over before cut {cut}");
        cluster.node(joined).bounce(Program::Raft).await;
    }
    cluster.until(joined, "has a snapshot", |status| status.snapshot_index > 0).await;
    cluster.all_catch_up().await;
    let sent = sent(&cluster, leader).await;
    println!("{sent} bytes sent for a snapshot of {bytes} that was cut {CUTS} times");
    assert!(sent >= bytes && sent <= bytes + CUTS * PIECE, "{sent} bytes sent for {bytes}");
}

#[tokio::test]
async fn a_machine_that_lost_its_data_is_rebuilt_from_the_snapshot_and_the_log() {
    let mut cluster = Cluster::form(3, SNAPPY).await;
    let load = Load::start(&cluster, "rebuilt");
    fill(&cluster, 8).await;
    for node in cluster.numbers() {
        take_snapshot(&cluster, node);
        cluster.until(node, "made its log short", is_compacted).await;
    }
    load.proceeds(SOME).await;
    for node in cluster.numbers() {
        cluster.node(node).kill(Program::StateMachine);
        let machine = cluster.node(node).data_dir().join("machine");
        fs::remove_dir_all(&machine).unwrap();
        cluster.node(node).start(Program::StateMachine).await;
        cluster.all_catch_up().await;
        load.proceeds(SOME).await;
    }
    load.stop().await.check(&cluster).await;
    for node in cluster.numbers() {
        if cluster.leader().await != node {
            say(&[cluster.endpoint(node)], &["campaign"]);
        }
        let mut direct = Caller::new(vec![cluster.endpoint(node)], 0);
        assert_eq!(direct.get("big/0007").await.map(|value| value.len()), Some(BIG), "node {node}");
    }
}

#[tokio::test]
async fn a_repeated_command_applies_once_on_a_node_that_knows_it_from_a_snapshot_only() {
    let mut cluster = Cluster::form(3, SNAPPY).await;
    let mut caller = Caller::new(cluster.endpoints(), 0);
    caller.open_session().await;
    let add = |by| Command::Incr { key: "n".into(), by };
    let first = caller.submit_as(1, 1, &add(5)).await;
    let third = caller.submit_as(3, 1, &add(7)).await;
    fill(&cluster, 8).await;
    for node in cluster.numbers() {
        take_snapshot(&cluster, node);
    }
    let joined = cluster.add_node().await;
    cluster.until(joined, "has a snapshot", |status| status.snapshot_index > 0).await;
    let another = cluster.add_node().await;
    cluster.until(another, "has a snapshot", |status| status.snapshot_index > 0).await;
    cluster.all_vote().await;
    say(&[cluster.endpoint(joined)], &["campaign"]);
    assert_eq!(caller.submit_as(1, 1, &add(5)).await, first, "by a node that came in later");
    for node in cluster.numbers() {
        cluster.node(node).kill_all();
    }
    for node in cluster.numbers() {
        cluster.node(node).start_all().await;
    }
    assert_eq!(caller.submit_as(3, 1, &add(7)).await.index, third.index);
    assert_eq!(number(caller.submit_as(2, 1, &add(1)).await.outcome), Some(13));
}

#[tokio::test]
async fn nothing_is_lost_or_done_twice_over_every_kind_of_crash_around_snapshots() {
    let mut cluster = Cluster::form(3, SNAPPY).await;
    let load = Load::start(&cluster, "around");
    for round in 0..3 {
        fill(&cluster, 8).await;
        let leader = cluster.leader().await;
        let follower = cluster.follower().await;
        let endpoints = cluster.endpoints();
        let name = format!("n{}", [leader, follower, leader][round]);
        // It may be cut short by what follows.
        let taking = tokio::task::spawn_blocking(move || {
            ask(&endpoints, &["--timeout-ms=2000", "snapshot", &name])
        });
        load.proceeds(SOME / 4).await;
        match round {
            0 => cluster.node(leader).bounce(Program::Raft).await,
            1 => cluster.node(follower).bounce(Program::Raft).await,
            _ => cluster.node(leader).bounce(Program::StateMachine).await,
        }
        load.proceeds(SOME).await;
        taking.await.unwrap();
        cluster.all_catch_up().await;
    }
    for node in cluster.numbers() {
        take_snapshot(&cluster, node);
    }
    for node in cluster.numbers() {
        cluster.node(node).kill_all();
    }
    for node in cluster.numbers() {
        cluster.node(node).start_all().await;
    }
    load.proceeds(SOME).await;
    let joined = cluster.add_node().await;
    cluster.until(joined, "has a snapshot", |status| status.snapshot_index > 0).await;
    load.proceeds(SOME).await;
    cluster.all_catch_up().await;
    load.stop().await.check(&cluster).await;
}

#[tokio::test]
async fn what_a_snapshot_includes_is_dropped_after_a_restart_too() {
    let mut cluster = Cluster::form(1, LONG_TAIL).await;
    fill(&cluster, 8).await;
    take_snapshot(&cluster, 0);
    assert_eq!(cluster.answer(0).await.first_index, 1, "all of it stays for those who are behind");
    cluster.node(0).kill(Program::Raft);
    cluster.node(0).set_flags(ORDERED_SNAPSHOTS);
    cluster.node(0).start(Program::Raft).await;
    cluster.until(0, "makes its log short", is_compacted).await;
}

#[tokio::test]
async fn sessions_of_single_commands_are_closed_and_others_stay() {
    let mut cluster = Cluster::form(1, LONG_TAIL).await;
    let mut stays = Caller::new(cluster.endpoints(), 0);
    stays.open_session().await;
    for value in ["1", "2", "3"] {
        say(&cluster.endpoints(), &["PUT", "k", value]);
    }
    let refused = ask(&cluster.endpoints(), &["INCR", "k", "9223372036854775807"]);
    assert_eq!(refused.code, Some(1), "the sum is beyond 64 bits: {}", refused.err);
    // This one is told its name.
    assert_eq!(ask(&cluster.endpoints(), &["--output=json", "PUT", "k", "4"]).code, Some(0));
    let index = take_snapshot(&cluster, 0);
    let file = newest_snapshot(&mut cluster, 0);
    let file = file.to_str().unwrap();
    let (code, said) = Program::Raft.tool(&["snapshot", "inspect", "--output", "json", file]);
    let inspected: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!((code, inspected["last"]["index"].as_u64()), (Some(0), Some(index)), "{said}");
    assert_eq!(inspected["sessions"], 2, "{said}");
}

#[tokio::test]
async fn a_machine_that_hangs_or_dies_while_a_snapshot_is_taken_costs_that_snapshot_and_nothing_else()
 {
    let mut cluster = Cluster::form(3, SLOW_SNAPSHOTS).await;
    let follower = cluster.follower().await;
    fill(&cluster, 40).await;
    let endpoints = cluster.endpoints();
    let name = format!("n{follower}");
    let taking = tokio::task::spawn_blocking({
        let (endpoints, name) = (endpoints.clone(), name.clone());
        move || ask(&endpoints, &["snapshot", &name])
    });
    let part = cluster.node(follower).data_dir().join("raft/snapshots/taking.tmp");
    eventually("a snapshot in the making", async || part.exists().then_some(())).await;
    cluster.node(follower).bounce(Program::StateMachine).await;
    let failed = taking.await.unwrap();
    assert_eq!(failed.code, Some(1), "{}{}", failed.out, failed.err);
    assert!(failed.err.contains("no snapshot: the state machine"), "{}", failed.err);
    assert!(!part.exists(), "what was begun is gone");
    cluster.all_catch_up().await;
    let index = take_snapshot(&cluster, follower);
    cluster.until(follower, "has it", |status| status.snapshot_index >= index).await;
}

#[tokio::test]
async fn a_damaged_snapshot_is_named_and_the_one_before_is_used() {
    let mut cluster = Cluster::form(3, SNAPPY).await;
    let follower = cluster.follower().await;
    fill(&cluster, 8).await;
    let older = take_snapshot(&cluster, follower);
    fill(&cluster, 1).await;
    cluster.all_catch_up().await;
    let newer = take_snapshot(&cluster, follower);
    assert!(newer > older);
    cluster.node(follower).kill(Program::Raft);
    let newest = newest_snapshot(&mut cluster, follower);
    let mut bytes = fs::read(&newest).unwrap();
    bytes[40] ^= 1;
    fs::write(&newest, bytes).unwrap();
    cluster.node(follower).start(Program::Raft).await;
    let name = newest.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(cluster.node(follower).log_text(Program::Raft).contains(&name));
    cluster.all_catch_up().await;
    cluster.node(follower).signal(Program::Raft, Signal::TERM);
    assert_eq!(cluster.node(follower).ended(Program::Raft).await, Some(0));
    cluster.node(follower).start(Program::Raft).await;
    cluster.all_catch_up().await;
}
