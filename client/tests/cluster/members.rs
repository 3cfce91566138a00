//! Members that die under load.

use raft::rpc::client::{self, MemberStatus};

use crate::harness::cluster::{Cluster, QUICK};
use crate::harness::load::Load;
use crate::harness::node::RESTART_DELAY;
use crate::harness::program::Program;
use crate::harness::wait::eventually;

const SOME: u64 = 200;

#[tokio::test]
async fn members_are_killed_under_load_and_raft_does_not_care() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let load = Load::start(&cluster, "members");
    load.proceeds(SOME).await;
    let terms = cluster.terms().await;
    for node in cluster.numbers() {
        cluster.node(node).kill(Program::Member);
        cluster.until(node, "member away", |status| status.member != "connected").await;
        load.proceeds(SOME).await;
        tokio::time::sleep(RESTART_DELAY).await;
        cluster.node(node).start(Program::Member).await;
        cluster.all_vote().await;
        all_see_all_alive(&cluster).await;
    }
    assert_eq!(cluster.terms().await, terms, "no election");
    let ledger = load.stop().await;
    assert_eq!(ledger.failures(), Vec::<&str>::new(), "no attempt failed");
    ledger.check(&cluster).await;
}

async fn all_see_all_alive(cluster: &Cluster) {
    for node in cluster.numbers() {
        let (client, _) =
            client::connect(&cluster.endpoint(node), 0, crate::harness::wait::PATIENCE)
                .await
                .unwrap();
        eventually(&format!("all alive in the eyes of node {node}"), async || {
            let members = client.members(tarpc::context::current()).await.ok()?;
            let good =
                |member: &MemberStatus| member.state == "alive" && member.configured == "voter";
            (members.len() == cluster.numbers().len() && members.iter().all(good)).then_some(())
        })
        .await;
    }
}
