//! kill -9 and SIGSTOP of rafts and whole nodes, and orderly stops.

use std::time::Duration;

use raft::rpc::client::Outcome;
use rustix::process::Signal;
use state_machine::kv::command::Command;
use tokio::time::timeout;

use crate::harness::caller::{Caller, Trouble, number};
use crate::harness::cluster::{Cluster, QUICK};
use crate::harness::load::{Load, counter};
use crate::harness::program::Program;
use crate::harness::wait::eventually;

/// Commands that show that the cluster is at work again.
const SOME: u64 = 200;
/// A value that a node knows which was not left behind.
const NEWS: &str = "acknowledged";
/// Many election timeouts.
const SUSPENDED: Duration = Duration::from_secs(4);
/// How many terms may go by when everything was suspended at once: all wake in the same term, and a leader may be given up once.
const FEW_TERMS: u64 = 2;
/// Far more than a question takes to its socket.
const QUESTION_LEAVES: Duration = Duration::from_millis(200);

#[tokio::test]
async fn leaders_are_killed_under_load_and_nothing_is_lost_or_done_twice() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let load = Load::start(&cluster, "leaders");
    for _ in 0..5 {
        load.proceeds(SOME).await;
        let leader = cluster.leader().await;
        let before = cluster.answer(leader).await;
        let acknowledged = load.next_acknowledgement();
        cluster.node(leader).bounce(Program::Raft).await;
        let after = cluster.answer(leader).await;
        assert_eq!((after.id, after.boot), (before.id, before.boot + 1));
        acknowledged.await.expect("a write that was begun after the kill is acknowledged");
        cluster.all_catch_up().await;
    }
    load.stop().await.check(&cluster).await;
}

#[tokio::test]
async fn a_node_then_all_nodes_are_killed_and_started_in_any_order() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let load = Load::start(&cluster, "nodes");
    load.proceeds(SOME).await;
    let leader = cluster.leader().await;
    cluster.node(leader).kill_all();
    load.proceeds(SOME).await;
    // The last to be started is the first that raft would want.
    for program in [Program::Raft, Program::StateMachine, Program::Member] {
        cluster.node(leader).start(program).await;
    }
    cluster.all_catch_up().await;
    load.proceeds(SOME).await;

    for node in cluster.numbers() {
        cluster.node(node).kill_all();
    }
    for (program, nodes) in [
        (Program::StateMachine, [2, 0, 1]),
        (Program::Raft, [1, 2, 0]),
        (Program::Member, [0, 2, 1]),
    ] {
        for node in nodes {
            cluster.node(node).start(program).await;
        }
    }
    load.proceeds(SOME).await;
    cluster.all_vote().await;
    cluster.all_catch_up().await;
    load.stop().await.check(&cluster).await;
}

#[tokio::test]
async fn a_leader_that_was_frozen_gives_no_stale_answer() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let load = Load::start(&cluster, "frozen");
    load.proceeds(SOME).await;
    let old = cluster.leader().await;
    let mut direct = Caller::new(vec![cluster.endpoint(old)], 0);
    let before = direct.get_here(&counter("frozen")).await.expect("it leads");
    let term = cluster.answer(old).await.term;

    cluster.node(old).signal(Program::Raft, Signal::STOP);
    let others: Vec<_> =
        cluster.numbers().filter(|node| *node != old).map(|node| cluster.endpoint(node)).collect();
    let mut caller = Caller::new(others, 0);
    caller.open_session().await;
    // Acknowledged by the others' new leader while the old one still believes that it leads.
    caller.put("news", NEWS).await;
    let during = caller.get(&counter("frozen")).await;

    // Waits at the old leader's door, so that it is the first thing that it hears of.
    let asked = async {
        let mut question = std::pin::pin!(direct.get_here("news"));
        assert!(timeout(QUESTION_LEAVES, &mut question).await.is_err(), "it is frozen");
        cluster.node(old).signal(Program::Raft, Signal::CONT);
        question.await
    };
    assert_knows_news_or_refuses(asked.await);
    eventually("the old leader follows or leads anew", async || {
        assert_knows_news_or_refuses(direct.get_here("news").await);
        let status = cluster.answer(old).await;
        (status.term > term).then_some(())
    })
    .await;
    let after = caller.get(&counter("frozen")).await;
    assert!(as_number(before) <= as_number(during.clone()));
    assert!(as_number(during) <= as_number(after));
    load.proceeds(SOME).await;
    cluster.all_catch_up().await;
    load.stop().await.check(&cluster).await;
}

fn assert_knows_news_or_refuses(answer: Result<Option<String>, Trouble>) {
    if let Ok(value) = answer {
        assert_eq!(value.as_deref(), Some(NEWS), "a stale answer");
    }
}

/// How often somebody stood for election because the leader told it to.
fn handovers(cluster: &mut Cluster) -> usize {
    let logs = cluster.numbers().map(|node| cluster.node(node).log_text(Program::Raft));
    logs.map(|log| log.matches("leadership was handed over").count()).sum()
}

fn as_number(value: Option<String>) -> u64 {
    value.map_or(0, |text| text.parse().unwrap())
}

/// The machine that all run on is suspended, with them. Time has gone by for nobody's benefit: it is no silence of the leader.
#[tokio::test]
async fn a_cluster_that_was_suspended_goes_on_with_few_elections() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let load = Load::start(&cluster, "suspended");
    for _ in 0..3 {
        load.proceeds(SOME).await;
        let before = cluster.terms().await.into_iter().max().unwrap();
        let mut direct = Caller::new(vec![cluster.endpoint(0)], 0);
        drop(direct.get_here("k").await);
        signal_all(&mut cluster, Signal::STOP);
        let silence = timeout(SUSPENDED, direct.get_here("k"));
        assert!(silence.await.is_err(), "nobody answers while all are suspended");
        signal_all(&mut cluster, Signal::CONT);
        load.proceeds(SOME).await;
        let after = cluster.terms().await.into_iter().max().unwrap();
        assert!(after <= before + FEW_TERMS, "terms {before} to {after}");
        cluster.all_catch_up().await;
    }
    load.stop().await.check(&cluster).await;
}

fn signal_all(cluster: &mut Cluster, signal: Signal) {
    for node in cluster.numbers() {
        for program in Program::ALL {
            cluster.node(node).signal(program, signal);
        }
    }
}

#[tokio::test]
async fn a_repeated_command_applies_once_and_answers_the_same_after_the_leader_died_too() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let mut caller = Caller::new(cluster.endpoints(), 0);
    caller.open_session().await;
    let add = |by| Command::Incr { key: "n".into(), by };
    let first = caller.submit_as(1, 1, &add(5)).await;
    let second = caller.submit_as(2, 1, &add(7)).await;
    assert_eq!(
        (number(first.outcome.clone()), number(second.outcome.clone())),
        (Some(5), Some(12))
    );

    assert_eq!(caller.submit_as(1, 1, &add(5)).await, first);
    let leader = cluster.leader().await;
    cluster.node(leader).kill(Program::Raft);
    assert_eq!(caller.submit_as(2, 1, &add(7)).await, second);
    assert_eq!(caller.submit_as(1, 1, &add(5)).await, first);
    cluster.node(leader).start(Program::Raft).await;
    cluster.all_catch_up().await;

    // A whole cluster that starts anew knows that it was applied, if not always the result.
    for node in cluster.numbers() {
        cluster.node(node).kill_all();
    }
    for node in cluster.numbers() {
        cluster.node(node).start_all().await;
    }
    let again = caller.submit_as(2, 1, &add(7)).await;
    assert_eq!(again.index, second.index);
    assert!(again.outcome == second.outcome || again.outcome == Outcome::AlreadyApplied);
    assert_eq!(caller.get("n").await.as_deref(), Some("12"));
}

#[tokio::test]
async fn an_orderly_stop_exits_with_0_and_loses_nothing() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let load = Load::start(&cluster, "stops");
    load.proceeds(SOME).await;
    for _ in 0..2 {
        let leader = cluster.leader().await;
        assert_eq!(cluster.node(leader).terminate(Program::Raft).await, Some(0));
        load.proceeds(SOME).await;
        cluster.node(leader).start(Program::Raft).await;
        cluster.all_catch_up().await;
    }
    assert!(handovers(&mut cluster) > 0, "the next one need not find out by silence");
    let follower = cluster.follower().await;
    for program in [Program::Raft, Program::StateMachine, Program::Member] {
        assert_eq!(cluster.node(follower).terminate(program).await, Some(0), "{program:?}");
    }
    cluster.node(follower).start_all().await;
    load.proceeds(SOME).await;
    cluster.all_catch_up().await;
    load.stop().await.check(&cluster).await;
}
