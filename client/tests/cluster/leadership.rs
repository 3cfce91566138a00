//! Leadership that moves: because an operator wants it to, and because nodes are restarted one after the other.

use rustix::process::Signal;
use serde_json::json;

use crate::harness::caller::Caller;
use crate::harness::cluster::{Cluster, QUICK};
use crate::harness::load::{Load, counter};
use crate::harness::program::Program;
use crate::typed::{ask, say};

/// Commands that show that the cluster is at work.
const SOME: u64 = 200;

#[tokio::test]
async fn leadership_goes_where_an_operator_wants_it_from_whichever_node_is_asked() {
    let cluster = Cluster::form(3, QUICK).await;
    for node in cluster.numbers() {
        for target in cluster.numbers() {
            let through = [cluster.endpoint(node)];
            let status = cluster.answer(target).await;
            let leads = cluster.leader().await == target;
            let told = ask(&through, &["transfer", &status.name, "--output=json"]);
            if leads {
                assert_eq!((told.code, told.json()["error"].as_str()), (Some(1), Some("refused")));
                assert!(told.out.contains("leads already"), "{}", told.out);
            } else {
                let leader =
                    json!({ "id": status.id, "address": cluster.endpoint(target).to_string() });
                assert_eq!((told.code, &told.json()["leader"]), (Some(0), &leader), "{}", told.out);
            }
            cluster.until(target, "leads", |status| status.role == "leader").await;
        }
    }
    let old = cluster.leader().await;
    let told = say(&[cluster.endpoint(old)], &["transfer"]);
    let new = cluster.leader().await;
    assert!(new != old && told.contains(&cluster.endpoint(new).to_string()), "{told}");

    // An id's beginning is enough, as long as it is the only one that begins so.
    let id = cluster.answer(old).await.id;
    assert!(say(&cluster.endpoints(), &["campaign", &id[..15]]).contains(&id));
    cluster.until(old, "leads", |status| status.role == "leader").await;
}

#[tokio::test]
async fn leadership_goes_to_nobody_who_could_not_lead() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let learner = cluster.add_node().await;
    cluster.until(learner, "learns", |status| status.role == "learner").await;
    let leader = cluster.leader().await;
    let before = cluster.answer(leader).await;
    let through = [cluster.endpoint(learner)];
    for (words, part) in [
        (&["transfer", "n3"][..], "is a learner"),
        (&["campaign"], "is a learner"),
        (&["transfer", "n9"], "no node has a name"),
        (&["transfer", "n"], "may be any of"),
        (&["campaign", &before.id], "leads already"),
    ] {
        let told = ask(&through, words);
        assert_eq!(told.code, Some(1), "{words:?}: {}{}", told.out, told.err);
        assert!(told.err.contains(part), "{words:?}: {}", told.err);
    }
    let after = cluster.answer(leader).await;
    assert_eq!((after.role, after.term), (before.role, before.term), "nothing moved");
}

#[tokio::test]
async fn a_target_that_is_frozen_leaves_leadership_where_it_was() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let (leader, frozen) = (cluster.leader().await, cluster.follower().await);
    let target = cluster.answer(frozen).await.id;
    cluster.node(frozen).signal(Program::Raft, Signal::STOP);
    let other = cluster.numbers().find(|node| ![leader, frozen].contains(node)).unwrap();
    let told = ask(&[cluster.endpoint(other)], &["transfer", &target]);
    cluster.node(frozen).signal(Program::Raft, Signal::CONT);
    // Not refused: the target may have begun to stand for election, and is allowed to win when it thaws.
    assert_eq!(told.code, Some(3), "{}{}", told.out, told.err);
    assert!(told.err.contains("did not take over in time"), "{}", told.err);
    let mut caller = Caller::new(vec![cluster.endpoint(leader)], 0);
    caller.open_session().await;
    caller.put("k", "v").await;
}

#[tokio::test]
async fn commands_passed_on_to_a_leader_that_freezes_are_answered_by_the_next_one() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let old = cluster.leader().await;
    let others: Vec<_> =
        cluster.numbers().filter(|node| *node != old).map(|node| cluster.endpoint(node)).collect();
    let mut callers = Vec::new();
    for endpoint in &others {
        let mut caller = Caller::new(vec![endpoint.clone()], 0);
        caller.open_session().await;
        callers.push(caller);
    }
    cluster.node(old).signal(Program::Raft, Signal::STOP);
    let mut answered = Vec::new();
    for caller in &mut callers {
        // The first is passed on to the frozen leader; only its own node can know that another one leads meanwhile.
        answered.push(caller.increment("n").await);
        assert_eq!(caller.get("n").await, Some(answered.len().to_string()));
        assert_eq!(caller.failures, Vec::<String>::new(), "no attempt failed");
    }
    cluster.node(old).signal(Program::Raft, Signal::CONT);
    assert_eq!(answered, [Some(1), Some(2)]);
    cluster.all_catch_up().await;
    assert_eq!(Caller::new(cluster.endpoints(), 0).get("n").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn nodes_are_restarted_one_after_the_other_under_load() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let load = Load::start(&cluster, "rolling");
    load.proceeds(SOME).await;
    for node in cluster.numbers() {
        let acknowledged = load.next_acknowledgement();
        for program in [Program::Raft, Program::StateMachine, Program::Member] {
            assert_eq!(cluster.node(node).terminate(program).await, Some(0), "{program:?}");
        }
        acknowledged.await.expect("a write that was begun before the stop is acknowledged");
        load.proceeds(SOME).await;
        cluster.node(node).start_all().await;
        cluster.all_vote().await;
        cluster.all_catch_up().await;
    }
    let ledger = load.stop().await;
    ledger.check(&cluster).await;
    let name = counter("rolling");
    assert!(Caller::new(cluster.endpoints(), 0).get(&name).await.is_some());
}
