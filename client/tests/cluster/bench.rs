//! `raft-client bench`: what it counts is what happened.

use std::path::Path;

use raft::rpc::client::NodeStatus;
use serde_json::Value;

use crate::harness::cluster::{Cluster, QUICK};
use crate::harness::program::Program;
use crate::typed::{ask, client, say};

const SMALL: [&str; 6] =
    ["bench", "--output=json", "--warm-up-s=0", "--clients=8", "--connections=3", "--key-count=20"];

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no count: {value}"))
}

fn sum_of(seconds: &Value, name: &str) -> u64 {
    seconds.as_array().unwrap().iter().map(|second| number(&second[name])).sum()
}

/// Checks what holds of every run.
fn check(json: &Value) {
    let puts = number(&json["puts"]["count"]);
    let gets = number(&json["gets"]["count"]);
    assert_eq!(puts + gets, number(&json["operations"]), "{json}");
    for (total, name) in [(puts, "puts"), (gets, "gets")] {
        assert_eq!(sum_of(&json["seconds"], name), total, "{name}: {json}");
        let latency = &json[name];
        let ordered = ["p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"];
        let ordered = ordered.map(|quantile| number(&latency[quantile]));
        assert!(ordered.is_sorted() && (ordered[0] > 0 || total == 0), "{json}");
    }
    assert_eq!(sum_of(&json["seconds"], "errors"), number(&json["error_count"]), "{json}");
    // Without an election nothing may fail. With one, which a busy machine can cause, it may.
    if !json["after"].is_null() && json["before"]["term"] == json["after"]["term"] {
        assert_eq!(number(&json["error_count"]), 0, "{json}");
    }
}

#[tokio::test]
async fn counts_add_up_whichever_way_the_load_goes() {
    const OPERATIONS: u64 = 300;
    let cluster = Cluster::form(3, QUICK).await;
    for way in [
        &["--target=leader"][..],
        &["--target=any", "--read-share=0.5"],
        &["--target=spread", "--sessions", "--read-share=0.25"],
        &["--sessions", "--value-bytes=5000"],
    ] {
        let operations = format!("--operations={OPERATIONS}");
        let run = ask(&cluster.endpoints(), &[&SMALL[..], &[&operations], way].concat());
        assert_eq!(run.code, Some(0), "{way:?}: {}{}", run.out, run.err);
        let json = run.json();
        assert_eq!(number(&json["operations"]) + number(&json["error_count"]), OPERATIONS);
        let reads = way.iter().any(|flag| flag.starts_with("--read-share"));
        assert_eq!(number(&json["gets"]["count"]) > 0, reads, "{json}");
        check(&json);
    }
    let value = say(&cluster.endpoints(), &["GET", "bench/000000000000000007"]);
    assert_eq!(value.len(), 5000);

    let run = ask(&cluster.endpoints(), &[&SMALL[..], &["--duration-s=1"]].concat());
    check(&run.json());
    assert_eq!(run.json()["measured_s"], 1.0);
    assert_eq!(run.json()["seconds"].as_array().unwrap().len(), 1, "{}", run.out);
    let text = say(&cluster.endpoints(), &["bench", "--operations=50", "--warm-up-s=0"]);
    for part in ["64 clients", "8 connections", "term", "p99.9 ms", "second"] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[tokio::test]
async fn an_election_under_watch_is_a_failure() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let leader = cluster.leader().await;
    let begun = cluster.answer(leader).await.commit_index;
    let endpoints = cluster.endpoints();
    let load = tokio::task::spawn_blocking(move || {
        ask(&endpoints, &[&SMALL[..], &["--duration-s=6", "--watch-term"]].concat())
    });
    let under_load = |status: &NodeStatus| status.commit_index > begun + 20;
    cluster.until(leader, "under load", under_load).await;
    cluster.node(leader).kill(Program::Raft);
    let run = load.await.unwrap();
    assert_eq!(run.code, Some(1), "{}{}", run.out, run.err);
    let json = run.json();
    assert_eq!(json["error"], "election", "{json}");
    assert!(number(&json["measured"]["error_count"]) > 0, "{json}");
    assert!(number(&json["measured"]["operations"]) > 0, "{json}");
    check(&json["measured"]);
}

#[test]
fn wrong_usage_is_refused_before_anything_is_sent() {
    for (flags, part) in [
        (&["--clients=0"][..], "--clients"),
        (&["--clients=10001"], "--clients"),
        (&["--connections=0"], "--connections"),
        (&["--read-share=1.5"], "from 0 to 1"),
        (&["--read-share=nan"], "from 0 to 1"),
        (&["--operations=5", "--duration-s=5"], "--operations"),
        (&["--value-bytes=1040385"], "--value-bytes"),
        (&["--key-count=1000000", "--value-bytes=1000"], "lower --key-count or --value-bytes"),
        (&["--target=nobody"], "--target"),
        (&["--session=2a", "--sequence=7"], "for writes"),
        (&["more"], "more"),
    ] {
        let run = client(Path::new("/"), &[&["bench"], flags].concat());
        assert_eq!((run.code, run.out.as_str()), (Some(2), ""), "{flags:?}: {}", run.err);
        assert!(run.err.contains(part), "{flags:?}: {}", run.err);
    }
    let nobody = ["bench", "--endpoints=127.0.0.1:1", "--timeout-ms=1500"];
    let run = client(Path::new("/"), &nobody);
    assert_eq!(run.code, Some(4), "{}{}", run.out, run.err);
}
