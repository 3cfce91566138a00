//! Who belongs to the cluster, and where they are.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use raft_client::MemberStatus;

use crate::harness::clients::client;
use crate::harness::cluster::Cluster;
use crate::harness::process::{Node, Program};
use crate::harness::verdict::{busy, judge};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// Three find each other through the introducer; a fourth and a fifth come while clients are at work.
#[test]
fn nodes_join_a_cluster_at_work() {
    let mut cluster = Cluster::formed(10, 3);
    let clients = busy(&mut cluster, 10);
    for _ in 0..2 {
        cluster.add_node();
        cluster.until("the new one belongs to it", 30 * SECOND, Cluster::is_whole);
    }
    let statuses = cluster.statuses().expect("all answer");
    assert!(statuses.iter().all(|status| status.voters.len() == 5), "{statuses:?}");
    judge(&mut cluster, &clients);
}

/// One of five leaves: four stay, of which an odd number votes.
#[test]
fn a_node_that_leaves_is_not_missed() {
    let mut cluster = Cluster::formed(22, 5);
    let clients = busy(&mut cluster, 22);
    let id = cluster.statuses().expect("all answer")[4].id.clone();
    let endpoints = cluster.endpoints_from(1);
    let left = Rc::new(Cell::new(false));
    let has_left = Rc::clone(&left);
    cluster.sim.client("operator", async move {
        let id = u64::from_str_radix(&id, 16)?;
        client(&endpoints, MINUTE).leave(id).await?;
        has_left.set(true);
        Ok(())
    });
    cluster.until("it may go", MINUTE, |_| left.get());
    cluster.crash_node(5);
    cluster.nodes.truncate(4);
    cluster.until("whole without it", 30 * SECOND, Cluster::is_whole);
    judge(&mut cluster, &clients);
}

/// Nobody gossips for ten minutes, and even a raft that is started meanwhile finds the others.
#[test]
fn ten_minutes_without_any_member_daemon() {
    let mut cluster = Cluster::formed(11, 3);
    let clients = busy(&mut cluster, 11);
    (1..=3).for_each(|node| cluster.crash(node, Program::Member));
    let end = cluster.sim.elapsed() + 10 * MINUTE;
    let mut restarts = 0;
    while cluster.sim.elapsed() < end {
        cluster.pass(50 * SECOND);
        let before = clients.answered();
        cluster.until("answers without gossip", 10 * SECOND, |_| clients.answered() >= before + 50);
        let node = restarts % 3 + 1;
        cluster.crash(node, Program::Raft);
        cluster.pass(SECOND);
        cluster.start(node, Program::Raft);
        restarts += 1;
    }
    (1..=3).for_each(|node| cluster.start(node, Program::Member));
    judge(&mut cluster, &clients);
}

/// The introducer's member daemon comes back with an empty disk, as somebody whom nobody knows: the groups merge again.
#[test]
fn an_introducer_with_an_empty_disk_is_found_again() {
    let mut cluster = Cluster::formed(12, 3);
    let clients = busy(&mut cluster, 12);
    cluster.crash(1, Program::Member);
    std::fs::remove_dir_all(cluster.nodes[0].directory.join("member")).unwrap();
    cluster.pass(20 * SECOND);
    cluster.start(1, Program::Member);
    for node in 1..=3 {
        let members = watch_members(&mut cluster, node);
        cluster.until("all see each other again", MINUTE, |_| {
            let alive = members.borrow().iter().filter(|member| member.state == "alive").count();
            alive == 3
        });
    }
    judge(&mut cluster, &clients);
}

/// The whole node of the introducer comes back with nothing but its settings and the names of other nodes, of which one has no address
/// any more: it joins the cluster that it would have made, as a new node that takes the place of the old one.
#[test]
fn an_introducer_that_lost_everything_makes_no_second_cluster() {
    let mut cluster = Cluster::formed(17, 3);
    let clients = busy(&mut cluster, 17);
    let before = cluster.statuses().expect("all answer")[0].clone();
    cluster.crash_node(1);
    std::fs::remove_dir_all(&cluster.nodes[0].directory).unwrap();
    std::fs::create_dir_all(&cluster.nodes[0].directory).unwrap();
    let seeds = vec!["nowhere:6000".to_owned(), cluster.nodes[1].seed()];
    cluster.restart_as(1, |node| node.seeds = seeds);
    cluster.pass(2 * SECOND);
    cluster.until("it takes the place of the lost one", 2 * MINUTE, Cluster::is_whole);
    let after = cluster.statuses().expect("all answer")[0].clone();
    assert_ne!(before.id, after.id, "a new node");
    assert_eq!(before.cluster, after.cluster, "the same cluster");
    judge(&mut cluster, &clients);
}

/// What a node says of the members, asked for ever.
fn watch_members(cluster: &mut Cluster, node: usize) -> Rc<RefCell<Vec<MemberStatus>>> {
    let seen: Rc<RefCell<Vec<MemberStatus>>> = Rc::default();
    let (endpoint, told) = (cluster.nodes[node - 1].endpoint(), Rc::clone(&seen));
    cluster.sim.client(format!("member-observer-{node}"), tell_members(endpoint, told));
    seen
}

async fn tell_members(endpoint: String, told: Rc<RefCell<Vec<MemberStatus>>>) -> turmoil::Result {
    let client = client(&[endpoint], SECOND);
    loop {
        if let Ok(members) = client.members().await {
            told.replace(members);
        }
        tokio::time::sleep(SECOND).await;
    }
}

/// Identity is not address: every node, the leader too, comes back at another one, and nobody is told.
#[test]
fn nodes_that_move_are_found_again() {
    let mut cluster = Cluster::formed(13, 3);
    let clients = busy(&mut cluster, 13);
    for node in [2, 3] {
        let id = cluster.statuses().expect("all answer")[node - 1].id.clone();
        cluster.move_node(node);
        cluster.pass(2 * SECOND);
        cluster.until("whole again", 30 * SECOND, Cluster::is_whole);
        assert_eq!(cluster.statuses().expect("all answer")[node - 1].id, id, "the same node");
    }
    let before = clients.answered();
    cluster.until("answers", 10 * SECOND, |_| clients.answered() >= before + 50);
    judge(&mut cluster, &clients);
}

/// Two clusters, whose members are made to gossip, and of whom two nodes come back each at the other's address.
#[test]
fn a_foreign_cluster_stays_foreign() {
    let mut cluster = Cluster::formed(14, 3);
    let clients = busy(&mut cluster, 14);
    cluster.add_stranger();
    let stranger = |cluster: &Cluster| cluster.statuses().map(|statuses| statuses[3].clone());
    cluster.until("the stranger leads itself", 20 * SECOND, |cluster| {
        stranger(cluster).is_some_and(|status| status.role == "leader")
    });
    let ours = cluster.statuses().expect("all answer")[0].cluster.clone();
    let theirs = stranger(&cluster).expect("it answers").cluster;
    assert_ne!(ours, theirs, "two clusters");
    let seeds = cluster.nodes[..2].iter().map(Node::seed).collect();
    cluster.restart_as(4, |node| node.seeds = seeds);
    cluster.pass(20 * SECOND);
    cluster.swap_addresses(3, 4);
    cluster.pass(30 * SECOND);
    let statuses = cluster.statuses().expect("all answer");
    for (status, cluster) in statuses.iter().zip([&ours, &ours, &ours, &theirs]) {
        assert_eq!(status.cluster, *cluster, "{status:?}");
    }
    assert_eq!(statuses[0].voters.len(), 3, "{:?}", statuses[0]);
    assert!(statuses[0].learners.is_empty(), "{:?}", statuses[0]);
    assert_eq!(statuses[3].voters, [statuses[3].id.clone()], "{:?}", statuses[3]);
    assert!(statuses[3].learners.is_empty(), "{:?}", statuses[3]);
    // The stranger is not of those who must agree in the end.
    cluster.crash_node(4);
    cluster.nodes.truncate(3);
    judge(&mut cluster, &clients);
}
