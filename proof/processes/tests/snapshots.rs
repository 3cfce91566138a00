//! Nodes and machines that are behind the log.

use std::time::Duration;

use crate::harness::cluster::Cluster;
use crate::harness::process::Program;
use crate::harness::verdict::{busy, judge};

const SECOND: Duration = Duration::from_secs(1);

/// The others' logs no longer hold what it lacks: it is sent a snapshot, and so is its machine.
#[test]
fn a_node_behind_the_log_is_sent_a_snapshot() {
    let mut cluster = Cluster::formed(20, 3);
    let clients = busy(&mut cluster, 20);
    cluster.crash_node(3);
    let missing = cluster.status_since(3, Duration::ZERO).expect("it has answered").last_index;
    cluster.until("logs are compacted", 60 * SECOND, |cluster| {
        [1, 2].into_iter().all(|node| {
            cluster
                .status_since(node, Duration::ZERO)
                .is_some_and(|status| status.first_index > missing + 1)
        })
    });
    cluster.start_node(3);
    cluster.until("whole again", 20 * SECOND, Cluster::is_whole);
    judge(&mut cluster, &clients);
}

/// A machine that forgot everything is restored from its own raft's snapshot, as the log alone does not hold it any more.
#[test]
fn an_empty_machine_is_restored_from_the_snapshot_beside_it() {
    let mut cluster = Cluster::formed(21, 3);
    let clients = busy(&mut cluster, 21);
    cluster.until("all logs are compacted", 60 * SECOND, |cluster| cluster.compacted() == 3);
    (1..=3).for_each(|node| cluster.crash(node, Program::Machine));
    cluster.pass(SECOND);
    (1..=3).for_each(|node| cluster.start(node, Program::Machine));
    judge(&mut cluster, &clients);
}
