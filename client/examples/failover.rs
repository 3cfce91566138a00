//! How long a cluster of three is without a leader that died: kills the leader's raft again and again under load, and
//! prints the distribution of the pauses. `scripts/failover.sh` builds and runs it.
//!
//! Exits with 0 only if every round was carried out, no acknowledged command is missing and none was applied twice.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is its purpose")]

use std::time::{Duration, Instant};

use clap::Parser;

use harness::cluster::Cluster;
use harness::load::{CLIENTS, Ledger, Load};
use harness::node::{Flags, RESTART_DELAY};
use harness::program::Program;

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/cluster/harness/mod.rs"]
mod harness;

const NODES: usize = 3;
/// Acknowledged commands between two kills: the cluster is at work, and the killed node takes part again.
const COMMANDS_BETWEEN: u64 = 2_000;
/// The product's own defaults.
const DEFAULTS: Flags = Flags { member: &[], raft: &[] };

#[derive(Parser)]
#[command(about = "Kills the leader's raft under load and measures the pauses")]
struct Arguments {
    /// How often
    #[arg(default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Arguments { rounds } = Arguments::parse();
    let mut cluster = Cluster::form(NODES, DEFAULTS).await;
    let load = Load::start(&cluster, "failover");
    println!(
        "{NODES} nodes, {CLIENTS} clients; kill -9 of the leader's raft, started again after {} ms.\n\
         pause: from the kill to the acknowledgement of the first write that was begun after the kill",
        RESTART_DELAY.as_millis(),
    );
    let mut pauses = Vec::new();
    for round in 1..=rounds {
        let pause = lose_leader(&mut cluster, &load, round).await;
        pauses.push(pause);
    }
    let ledger = load.stop().await;
    report_pauses(pauses);
    report_ledger(&ledger, &cluster).await;
}

/// One round.
async fn lose_leader(cluster: &mut Cluster, load: &Load, round: u32) -> Duration {
    load.proceeds(COMMANDS_BETWEEN).await;
    cluster.all_catch_up().await;
    let old = cluster.leader().await;
    let term = cluster.answer(old).await.term;
    let killed = Instant::now();
    let acknowledged = load.next_acknowledgement();
    let (acknowledged, ()) = tokio::join!(acknowledged, cluster.node(old).bounce(Program::Raft));
    let pause = acknowledged.expect("the load goes on") - killed;
    let new = cluster.leader().await;
    let new_term = cluster.answer(new).await.term;
    println!(
        "round {round:>3}: {:>6.1} ms  node {old} (term {term}) → node {new} (term {new_term})",
        milliseconds(pause)
    );
    pause
}

fn report_pauses(mut pauses: Vec<Duration>) {
    pauses.sort_unstable();
    let at = |percent: usize| milliseconds(pauses[(pauses.len() - 1) * percent / 100]);
    println!(
        "pauses of {} rounds, in ms: min {:.1}, median {:.1}, p90 {:.1}, max {:.1}",
        pauses.len(),
        at(0),
        at(50),
        at(90),
        at(100)
    );
}

async fn report_ledger(ledger: &Ledger, cluster: &Cluster) {
    ledger.check(cluster).await;
    println!(
        "{} additions to one counter and {} fresh keys were acknowledged: all are there, none twice \
         ({} attempts had failed and were repeated)",
        ledger.counted(),
        ledger.serials(),
        ledger.failures().len()
    );
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
