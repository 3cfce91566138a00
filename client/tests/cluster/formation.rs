//! Forming a cluster, and joining one.

use raft::rpc::client::{QueryError, SubmitError};

use crate::harness::caller::{Caller, Trouble};
use crate::harness::cluster::{Cluster, QUICK};

#[tokio::test]
async fn three_nodes_form_and_what_is_written_through_one_is_read_through_each() {
    let cluster = Cluster::form(3, QUICK).await;
    for writer in cluster.numbers() {
        let value = format!("written through {writer}");
        let mut caller = Caller::new(vec![cluster.endpoint(writer)], 0);
        caller.open_session().await;
        caller.put("k", &value).await;
        for reader in cluster.numbers() {
            let mut caller = Caller::new(vec![cluster.endpoint(reader)], 0);
            assert_eq!(caller.get("k").await.as_ref(), Some(&value), "through node {reader}");
            assert_eq!(caller.get("other").await, None);
        }
        assert_eq!(caller.failures, Vec::<String>::new(), "a quiet cluster fails no attempt");
    }
}

#[tokio::test]
async fn a_follower_that_must_not_pass_on_names_the_leader() {
    let cluster = Cluster::form(3, QUICK).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let mut caller = Caller::new(vec![cluster.endpoint(follower)], 0);
    let expected = cluster.endpoint(leader).to_string();
    match caller.get_here("k").await {
        Err(Trouble::Query(QueryError::NotLeader { hint: Some(hint) })) => {
            assert_eq!(hint.address, expected);
        }
        other => panic!("{other:?}"),
    }
    match caller.open_session_here().await {
        Err(Trouble::Submit(SubmitError::NotLeader { hint: Some(hint) })) => {
            assert_eq!(hint.address, expected);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nodes_with_empty_directories_join_later_first_to_learn_then_to_vote() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let mut caller = Caller::new(cluster.endpoints(), 0);
    caller.open_session().await;
    caller.put("k", "from before").await;

    let fourth = cluster.add_node().await;
    cluster
        .until(fourth, "learns", |status| {
            status.learners.contains(&status.id) && status.membership_committed
        })
        .await;
    cluster.all_catch_up().await;
    let mut through_fourth = Caller::new(vec![cluster.endpoint(fourth)], 0);
    assert_eq!(through_fourth.get("k").await.as_deref(), Some("from before"));

    // One more makes an odd number, so both are promoted.
    cluster.add_node().await;
    cluster.all_vote().await;
    for node in cluster.numbers() {
        let mut caller = Caller::new(vec![cluster.endpoint(node)], 0);
        caller.open_session().await;
        caller.put("k", &format!("through {node}")).await;
        assert_eq!(through_fourth.get("k").await, Some(format!("through {node}")));
    }
}
