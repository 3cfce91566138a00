//! A machine that is slow, and one that is asked for by two.

use std::time::Duration;

use crate::harness::cluster::Cluster;
use crate::harness::process::Program;
use crate::harness::verdict::{busy, judge};

const SECOND: Duration = Duration::from_secs(1);

/// The leader's machine does not answer for a while: commands are committed, the leader stays, and everything is answered afterwards.
#[test]
fn a_machine_that_hangs_costs_no_leadership() {
    let mut cluster = Cluster::formed(15, 3);
    let clients = busy(&mut cluster, 15);
    cluster.until("a leader", 10 * SECOND, |cluster| cluster.leader().is_some());
    let leader = cluster.leader().unwrap();
    let before = cluster.status_since(leader, Duration::ZERO).expect("it has answered");
    let node = &cluster.nodes[leader - 1];
    let (raft, machine) = (node.host(Program::Raft), node.host(Program::Machine));
    cluster.sim.hold(raft.as_str(), machine.as_str());
    cluster.pass(8 * SECOND);
    let after = cluster.statuses().expect("all answer")[leader - 1].clone();
    assert_eq!((after.role.as_str(), after.term), ("leader", before.term), "the same leader");
    assert!(after.commit_index > before.commit_index, "commands are committed: {after:?}");
    cluster.sim.release(raft.as_str(), machine.as_str());
    judge(&mut cluster, &clients);
}

/// Something that raft and the leader's machine said to each other is lost, so that the connection between them is dead without
/// being closed: it is given up, and the machine is fed from where it is.
#[test]
fn a_dead_connection_to_the_machine_is_replaced() {
    let mut cluster = Cluster::formed(19, 3);
    let clients = busy(&mut cluster, 19);
    cluster.until("a leader", 10 * SECOND, |cluster| cluster.leader().is_some());
    let node = &cluster.nodes[cluster.leader().unwrap() - 1];
    let (raft, machine) = (node.host(Program::Raft), node.host(Program::Machine));
    cluster.sim.partition(raft.as_str(), machine.as_str());
    cluster.pass(3 * SECOND);
    cluster.sim.repair(raft.as_str(), machine.as_str());
    let before = clients.answered();
    // As long as raft waits for a batch.
    cluster.until("answers", 35 * SECOND, |_| clients.answered() >= before + 50);
    judge(&mut cluster, &clients);
}

/// A raft that is told to feed another node's machine is turned away; that machine goes on for its own raft.
#[test]
fn a_machine_serves_one_raft() {
    let mut cluster = Cluster::formed(16, 3);
    let clients = busy(&mut cluster, 16);
    cluster.until("a leader", 10 * SECOND, |cluster| cluster.leader().is_some());
    let leader = cluster.leader().unwrap();
    let greedy = leader % 3 + 1;
    cluster.restart_as(greedy, |node| node.machine = leader);
    let since = cluster.sim.elapsed();
    cluster.until("the second raft is refused", 10 * SECOND, |cluster| {
        cluster
            .status_since(greedy, since)
            .is_some_and(|status| status.state_machine.contains("belong to node"))
    });
    let before = clients.answered();
    cluster.until("answers", 10 * SECOND, |_| clients.answered() >= before + 50);
    cluster.restart_as(greedy, |node| node.machine = greedy);
    judge(&mut cluster, &clients);
}
