//! The network fails.

use std::time::Duration;

use turmoil::Sim;

use crate::harness::cluster::Cluster;
use crate::harness::process::Program;
use crate::harness::verdict::{busy, judge};

const SECOND: Duration = Duration::from_secs(1);

/// What a fault does to a link between the leader's hosts and the others'.
type Cut = fn(&mut Sim<'static>, String, String);

/// Cuts the leader off in some way: another one takes over, and the old one gives up on its own.
fn leader_is_replaced(seed: u64, cut: Cut) {
    let mut cluster = Cluster::formed(seed, 3);
    let clients = busy(&mut cluster, seed);
    let old = cluster.leader().expect("a whole cluster has a leader");
    cluster.between(old, cut);
    let cut_at = cluster.sim.elapsed();
    cluster.until("the old leader gives up", 3 * SECOND, |cluster| {
        cluster.status_since(old, cut_at).is_some_and(|status| status.role != "leader")
    });
    cluster.until("another leader", 5 * SECOND, |cluster| {
        cluster.leader().is_some_and(|leader| leader != old)
    });
    let before = clients.answered();
    cluster.until("answers by the majority", 10 * SECOND, |_| clients.answered() >= before + 50);
    cluster.between(old, |sim, ours, theirs| sim.repair(ours, theirs));
    judge(&mut cluster, &clients);
}

#[test]
fn a_leader_that_reaches_nobody_is_replaced() {
    leader_is_replaced(5, |sim, ours, theirs| sim.partition(ours, theirs));
}

#[test]
fn a_leader_that_nobody_hears_is_replaced() {
    leader_is_replaced(6, |sim, ours, theirs| sim.partition_oneway(ours, theirs));
}

#[test]
fn a_leader_that_hears_nobody_is_replaced() {
    leader_is_replaced(7, |sim, ours, theirs| sim.partition_oneway(theirs, ours));
}

/// Its connections are closed while nobody hears of it, so that the others hold halves of them.
#[test]
fn half_open_connections_are_given_up() {
    let mut cluster = Cluster::formed(8, 3);
    let clients = busy(&mut cluster, 8);
    for node in 1..=3 {
        cluster.between(node, |sim, ours, theirs| sim.partition(ours, theirs));
        cluster.crash_node(node);
        cluster.pass(SECOND);
        cluster.start_node(node);
        cluster.pass(SECOND);
        cluster.between(node, |sim, ours, theirs| sim.repair(ours, theirs));
        cluster.until("whole again", 30 * SECOND, Cluster::is_whole);
    }
    judge(&mut cluster, &clients);
}

/// What was sent in several terms arrives all at once, also to clients that do not wait for it any more.
#[test]
fn messages_that_were_held_up_change_nothing() {
    let mut cluster = Cluster::formed(9, 3);
    let clients = busy(&mut cluster, 9);
    for node in 1..=3 {
        cluster.between(node, |sim, ours, theirs| sim.hold(ours, theirs));
        cluster.pass(6 * SECOND);
        cluster.between(node, |sim, ours, theirs| sim.release(ours, theirs));
        cluster.until("whole again", 30 * SECOND, Cluster::is_whole);
    }
    judge(&mut cluster, &clients);
}

/// All connections of all clients lose something at once, and none is closed.
#[test]
fn clients_give_up_connections_that_are_dead() {
    let mut cluster = Cluster::formed(23, 3);
    let clients = busy(&mut cluster, 23);
    cluster.pass(SECOND);
    for (client, raft) in links(&cluster) {
        cluster.sim.partition(client, raft);
    }
    cluster.pass(SECOND);
    for (client, raft) in links(&cluster) {
        cluster.sim.repair(client, raft);
    }
    let before = clients.answered();
    cluster.until("answers", 10 * SECOND, |_| clients.answered() >= before + 50);
    judge(&mut cluster, &clients);
}

/// Between clients and rafts.
fn links(cluster: &Cluster) -> Vec<(String, String)> {
    let rafts = cluster.nodes.iter().map(|node| node.host(Program::Raft));
    let of =
        |raft: String| cluster.clients.iter().map(move |client| (client.clone(), raft.clone()));
    rafts.flat_map(of).collect()
}
