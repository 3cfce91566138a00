//! Nodes that leave the cluster, several at once too, and come back.

use std::collections::BTreeSet;

use raft::rpc::client::NodeStatus;
use rustix::process::Signal;

use crate::harness::caller::Caller;
use crate::harness::cluster::{Cluster, IMPATIENT, LEAVERS, QUICK};
use crate::harness::load::Load;
use crate::harness::program::Program;
use crate::typed::{ask, say};

/// Commands that show that the cluster is at work.
const SOME: u64 = 200;

/// Tells these nodes to stop, all at the same moment, and waits until their rafts have ended in good order.
async fn terminate_together(cluster: &mut Cluster, nodes: &[usize]) {
    for node in nodes {
        cluster.node(*node).signal(Program::Raft, Signal::TERM);
    }
    for node in nodes {
        assert_eq!(cluster.node(*node).ended(Program::Raft).await, Some(0), "node {node}");
    }
}

/// The nodes in the configuration that is in force at `node`, once that is settled and has so many voters.
async fn voters(cluster: &Cluster, node: usize, count: usize) -> NodeStatus {
    cluster
        .until(node, &format!("{count} voters"), |status| {
            status.voters.len() == count
                && status.outgoing.is_empty()
                && status.membership_committed
        })
        .await
}

async fn ids(cluster: &Cluster, nodes: &[usize]) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for node in nodes {
        ids.insert(cluster.answer(*node).await.id);
    }
    ids
}

#[tokio::test]
async fn half_of_the_nodes_leave_at_once_under_load_and_one_comes_back() {
    let mut cluster = Cluster::form(6, LEAVERS).await;
    let staying = [0, 1, 2];
    let expected = ids(&cluster, &staying).await;
    let load = Load::start(&cluster, "leaving");
    load.proceeds(SOME).await;
    // The leader is among those who leave.
    let status = cluster.answer(0).await;
    let leaving = ids(&cluster, &[3, 4, 5]).await;
    let chief = leaving.iter().find(|id| status.voters.contains(id)).unwrap();
    if status.leader.is_none_or(|leader| format!("{:016x}", leader.node) != *chief) {
        say(&cluster.endpoints(), &["transfer", chief]);
    }
    terminate_together(&mut cluster, &[3, 4, 5]).await;
    for node in staying {
        let status = voters(&cluster, node, 3).await;
        assert_eq!(BTreeSet::from_iter(status.voters), expected);
        cluster.until(node, "no learners", |status| status.learners.is_empty()).await;
    }
    load.proceeds(SOME).await;
    for node in [3, 4, 5] {
        assert!(cluster.node(node).data_dir().join("raft/left").exists(), "node {node}");
    }

    cluster.node(4).start(Program::Raft).await;
    cluster.until(4, "learns", |status| status.role == "learner").await;
    assert!(!cluster.node(4).data_dir().join("raft/left").exists());
    cluster.node(5).start(Program::Raft).await;
    let status = voters(&cluster, 4, 5).await;
    assert!(status.voters.contains(&status.id), "both are back: {status:?}");
    load.stop().await.check(&cluster).await;
}

#[tokio::test]
async fn a_cluster_that_leaves_as_a_whole_keeps_three_seats_and_is_there_again_afterwards() {
    let mut cluster = Cluster::form(5, LEAVERS).await;
    let mut caller = Caller::new(cluster.endpoints(), 0);
    caller.open_session().await;
    caller.put("k", "v").await;
    terminate_together(&mut cluster, &[0, 1, 2, 3, 4]).await;
    let stayed: Vec<usize> = cluster
        .numbers()
        .filter(|node| !cluster.node(*node).data_dir().join("raft/left").exists())
        .collect();
    assert_eq!(stayed.len(), 3, "{stayed:?}");
    for node in cluster.numbers() {
        cluster.node(node).start(Program::Raft).await;
    }
    cluster.all_vote().await;
    assert_eq!(caller.get("k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn an_operator_has_nodes_leave_as_long_as_enough_are_left() {
    let mut cluster = Cluster::form(4, QUICK).await;
    let leader = cluster.leader().await;
    let status = cluster.answer(leader).await;
    let learner =
        cluster.numbers().find(|node| *node != leader).map(|node| cluster.endpoint(node)).unwrap();
    // Whoever learns takes the leader's seat, and another voter has led since.
    let told = say(&[learner], &["leave", &status.name]);
    assert!(told.contains(&status.id), "{told}");
    assert_eq!(cluster.node(leader).ended(Program::Raft).await, Some(0));
    let left: Vec<usize> = cluster.numbers().filter(|node| *node != leader).collect();
    for node in &left {
        let now = voters(&cluster, *node, 3).await;
        assert!(!now.voters.contains(&status.id) && now.learners.is_empty(), "{now:?}");
    }

    let refused = ask(&[cluster.endpoint(left[0])], &["leave", "--output=json"]);
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    assert!(refused.out.contains("at least 3 keep voting"), "{}", refused.out);
    let mut caller = Caller::new(vec![cluster.endpoint(left[0])], 0);
    caller.open_session().await;
    caller.put("k", "goes on").await;

    cluster.node(leader).start(Program::Raft).await;
    cluster.until(leader, "learns", |status| status.role == "learner").await;
}

#[tokio::test]
async fn a_voter_that_is_gone_for_long_gives_its_seat_to_a_learner_and_comes_back_as_one() {
    let mut cluster = Cluster::form(4, IMPATIENT).await;
    let mut gone = 0;
    while cluster.answer(gone).await.role != "follower" {
        gone += 1;
    }
    let id = cluster.answer(gone).await.id;
    cluster.node(gone).kill_all();
    let rest: Vec<usize> = cluster.numbers().filter(|node| *node != gone).collect();
    for node in rest {
        let replaced = |status: &NodeStatus| {
            status.voters.len() == 3 && !status.voters.contains(&id) && status.membership_committed
        };
        cluster.until(node, "the dead voter is replaced", replaced).await;
    }
    cluster.node(gone).start_all().await;
    cluster.until(gone, "learns", |status| status.role == "learner").await;
}
