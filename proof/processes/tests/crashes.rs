//! Processes die and come back.

use std::time::Duration;

use crate::harness::clients::Clients;
use crate::harness::cluster::Cluster;
use crate::harness::process::Program;
use crate::harness::verdict::{busy, judge};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn leaders_die_one_after_the_other() {
    let mut cluster = Cluster::formed(2, 3);
    let clients = busy(&mut cluster, 2);
    for _ in 0..3 {
        cluster.until("a leader", 10 * SECOND, |cluster| cluster.leader().is_some());
        let leader = cluster.leader().unwrap();
        cluster.crash(leader, Program::Raft);
        proceeds(&mut cluster, &clients, "answers without the dead leader");
        cluster.start(leader, Program::Raft);
        cluster.until("whole again", 20 * SECOND, Cluster::is_whole);
    }
    assert!(cluster.leaders() >= 4, "each death made another leader");
    judge(&mut cluster, &clients);
}

#[test]
fn a_power_cut_of_all_nodes_loses_nothing() {
    let mut cluster = Cluster::formed(3, 3);
    let clients = busy(&mut cluster, 3);
    for _ in 0..2 {
        proceeds(&mut cluster, &clients, "answers before the power cut");
        (1..=3).for_each(|node| cluster.crash_node(node));
        cluster.pass(2 * SECOND);
        (1..=3).for_each(|node| cluster.start_node(node));
    }
    judge(&mut cluster, &clients);
}

#[test]
fn machines_that_forget_all_are_fed_again() {
    let mut cluster = Cluster::formed(4, 3);
    let clients = busy(&mut cluster, 4);
    for node in 1..=3 {
        proceeds(&mut cluster, &clients, "answers before a machine dies");
        cluster.crash(node, Program::Machine);
        cluster.pass(2 * SECOND);
        cluster.start(node, Program::Machine);
        cluster.until("whole again", 20 * SECOND, Cluster::is_whole);
    }
    judge(&mut cluster, &clients);
}

fn proceeds(cluster: &mut Cluster, clients: &Clients, what: &str) {
    let before = clients.answered();
    cluster.until(what, 10 * SECOND, |_| clients.answered() >= before + 50);
}
