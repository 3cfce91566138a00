//! What clients notice of a rolling restart: stops and starts every node of a cluster in turn, each with its three processes
//! in good order, under load from 16 clients; prints how long writes stalled. `scripts/rolling-restart.sh` builds and runs it.
//!
//! Exits with 0 only if no write failed, and every one was applied exactly once.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is its purpose")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use raft_client::{Client, Options};
use tokio::task::JoinSet;

use harness::cluster::Cluster;
use harness::load::CLIENTS;
use harness::node::Flags;
use harness::program::Program;
use harness::wait::eventually;

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/cluster/harness/mod.rs"]
mod harness;

/// Acknowledged writes between two stops: the cluster is at work.
const WRITES_BETWEEN: u64 = 2_000;
/// The product's own defaults.
const DEFAULTS: Flags = Flags { member: &[], raft: &[] };

#[derive(Parser)]
#[command(about = "Restarts every node in turn under load and measures how long writes stall")]
struct Arguments {
    /// Nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    nodes: u8,
    /// How often each node is restarted
    #[arg(default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
}

/// What the clients see.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    writes: AtomicU64,
    /// Longest time from the beginning of a write to its acknowledgement, in microseconds, since it was last taken.
    longest_us: AtomicU64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Arguments { nodes, rounds } = Arguments::parse();
    let mut cluster = Cluster::form(nodes.into(), DEFAULTS).await;
    println!(
        "{nodes} nodes, {CLIENTS} clients; each node's raft, state machine and member end by SIGTERM and are started again.\n\
         stall: the longest time that a write took, from the stop of the node until it takes part again"
    );
    let seen = Arc::<Seen>::default();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(write(client(&cluster, number), number, Arc::clone(&seen)));
    }
    proceed(&seen).await;
    println!("before: {:.1} ms", milliseconds(take_longest(&seen)));
    let mut longest = Duration::ZERO;
    for round in 1..=rounds {
        for node in cluster.numbers() {
            let role = cluster.answer(node).await.role;
            take_longest(&seen);
            restart(&mut cluster, node).await;
            let stall = take_longest(&seen);
            println!("round {round:>3}: {:>6.1} ms  node {node} ({role})", milliseconds(stall));
            longest = longest.max(stall);
            proceed(&seen).await;
        }
    }
    seen.stop.store(true, Ordering::Relaxed);
    let written = clients.join_all().await;
    check(&cluster, &written).await;
    println!(
        "longest stall: {:.1} ms; {} writes, none failed, each was applied once",
        milliseconds(longest),
        written.iter().sum::<i64>()
    );
}

fn client(cluster: &Cluster, number: usize) -> Client {
    let mut endpoints = cluster.endpoints();
    endpoints.rotate_left(number % cluster.numbers().len());
    Client::new(Options::new(endpoints))
}

/// Adds one to a counter of its own, again and again; how often.
async fn write(client: Client, number: usize, seen: Arc<Seen>) -> i64 {
    let mut written = 0;
    while !seen.stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let sum = client.incr(key(number), 1).await.expect("no write fails").result;
        written += 1;
        assert!(sum.is_none_or(|sum| sum == written), "applied once: {sum:?} of {written}");
        let took_us = u64::try_from(begun.elapsed().as_micros()).expect("not for so long");
        seen.longest_us.fetch_max(took_us, Ordering::Relaxed);
        seen.writes.fetch_add(1, Ordering::Relaxed);
    }
    written
}

async fn restart(cluster: &mut Cluster, node: usize) {
    for program in [Program::Raft, Program::StateMachine, Program::Member] {
        let code = cluster.node(node).terminate(program).await;
        assert_eq!(code, Some(0), "{} ends in good order", program.name());
    }
    cluster.node(node).start_all().await;
    cluster.all_vote().await;
    cluster.all_catch_up().await;
}

async fn proceed(seen: &Seen) {
    let wanted = seen.writes.load(Ordering::Relaxed) + WRITES_BETWEEN;
    let enough = async || (seen.writes.load(Ordering::Relaxed) >= wanted).then_some(());
    eventually("progress of the clients", enough).await;
}

async fn check(cluster: &Cluster, written: &[i64]) {
    let reader = client(cluster, 0);
    let mut sums: Vec<i64> = Vec::new();
    for number in 0..CLIENTS {
        let sum = reader.get(key(number)).await.expect("the cluster answers").result;
        let sum = sum.and_then(|sum| str::from_utf8(&sum).ok()?.parse().ok());
        sums.push(sum.expect("every client has written"));
    }
    let mut written = written.to_vec();
    sums.sort_unstable();
    written.sort_unstable();
    assert_eq!(sums, written, "counters against acknowledgements");
}

fn key(number: usize) -> String {
    format!("rolling/{number}")
}

fn take_longest(seen: &Seen) -> Duration {
    Duration::from_micros(seen.longest_us.swap(0, Ordering::Relaxed))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
