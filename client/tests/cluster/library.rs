//! The client library over deaths of leaders: many commands of one client under way at once, none lost, none doubled.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use raft_client::{Client, Options};
use tokio::task::JoinSet;

use crate::harness::cluster::{Cluster, QUICK};
use crate::harness::program::Program;
use crate::harness::wait::{PATIENCE, eventually};

/// Commands under way at once, over one session.
const COMMANDS: usize = 64;
/// Acknowledged commands that show that the cluster is at work.
const SOME: u64 = 500;

fn client(cluster: &Cluster) -> Client {
    // Knows one node; the others are for it to find.
    let named = vec![cluster.endpoint(0)];
    Client::new(Options {
        timeout: PATIENCE,
        patience: Duration::from_secs(1),
        ..Options::new(named)
    })
}

/// Adds one to a counter until it is to stop; every sum that was answered.
async fn add_until(
    stop: Arc<AtomicBool>,
    client: Client,
    done: Arc<AtomicU64>,
) -> Vec<Option<i64>> {
    let mut sums = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        sums.push(client.incr("sum", 1).await.unwrap().result);
        done.fetch_add(1, Ordering::Relaxed);
    }
    sums
}

#[tokio::test]
async fn one_client_with_many_commands_survives_every_leader() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let client = client(&cluster);
    let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let mut commands = JoinSet::new();
    for _ in 0..COMMANDS {
        commands.spawn(add_until(Arc::clone(&stop), client.clone(), Arc::clone(&done)));
    }
    for _ in 0..3 {
        let leader = cluster.leader().await;
        proceeds(&done).await;
        cluster.node(leader).bounce(Program::Raft).await;
        proceeds(&done).await;
        cluster.all_catch_up().await;
    }
    // The only node that it was told of, with all that belongs to it.
    cluster.node(0).kill_all();
    proceeds(&done).await;
    cluster.node(0).start_all().await;
    stop.store(true, Ordering::Relaxed);

    let answered: Vec<_> = commands.join_all().await.into_iter().flatten().collect();
    let sums: Vec<i64> = answered.iter().copied().flatten().collect();
    assert_eq!(sums.iter().collect::<BTreeSet<_>>().len(), sums.len(), "a sum was answered twice");
    let total = client.get("sum").await.unwrap().result.unwrap();
    assert_eq!(total, answered.len().to_string(), "the sum against what was acknowledged");
}

async fn proceeds(done: &AtomicU64) {
    let wanted = done.load(Ordering::Relaxed) + SOME;
    let enough = async || (done.load(Ordering::Relaxed) >= wanted).then_some(());
    eventually("progress of the commands", enough).await;
}
