//! State machines that die under load.

use crate::harness::cluster::{Cluster, QUICK};
use crate::harness::load::Load;
use crate::harness::program::Program;

const SOME: u64 = 200;

#[tokio::test]
async fn machines_are_killed_under_load_without_an_election_or_a_failed_write() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let load = Load::start(&cluster, "machines");
    load.proceeds(SOME).await;
    let terms = cluster.terms().await;
    for node in cluster.numbers() {
        cluster.node(node).kill(Program::StateMachine);
        cluster.until(node, "machine away", |status| status.state_machine != "attached").await;
        if node != cluster.leader().await {
            load.proceeds(SOME).await;
        }
        cluster.node(node).start(Program::StateMachine).await;
        load.proceeds(SOME).await;
        cluster.all_catch_up().await;
    }
    assert_eq!(cluster.terms().await, terms, "no election");
    let ledger = load.stop().await;
    assert_eq!(ledger.failures(), Vec::<&str>::new(), "no attempt failed");
    ledger.check(&cluster).await;
}

#[tokio::test]
async fn a_machine_that_is_away_for_long_catches_up_alone() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let follower = cluster.follower().await;
    cluster.node(follower).kill(Program::StateMachine);
    let load = Load::start(&cluster, "away");
    load.proceeds(10 * SOME).await;
    let ledger = load.stop().await;
    assert_eq!(ledger.failures(), Vec::<&str>::new(), "no attempt failed");
    cluster.node(follower).start(Program::StateMachine).await;
    cluster.all_catch_up().await;

    // With its node as the only one that still has its machine, all answers are its own.
    for node in cluster.numbers().filter(|node| *node != follower) {
        cluster.node(node).bounce(Program::Raft).await;
    }
    ledger.check(&cluster).await;
}
