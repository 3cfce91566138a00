//! What clients store is nobody's business but theirs.

use std::fmt::Write as _;

use state_machine::kv::command::Command;

use crate::harness::caller::Caller;
use crate::harness::cluster::{Cluster, SNAPPY};
use crate::harness::http::HttpCaller;
use crate::harness::program::Program;
use crate::harness::wait::eventually;

const KEY: &str = "marked-key-4b1d";
const VALUE: &str = "marked-value-93e7";
/// What no log may hold.
const MARKS: [&str; 2] = [KEY, VALUE];

/// Everything is logged that any part has to say, libraries included, while values are written, read, refused, compared, passed on,
/// repeated, sent as a snapshot and restored.
#[tokio::test]
async fn no_key_and_no_value_of_a_client_is_ever_logged() {
    let mut cluster = Cluster::form(3, SNAPPY).await;
    for node in cluster.numbers() {
        cluster.node(node).kill_all();
        cluster.node(node).set_log_filter("trace");
    }
    for node in cluster.numbers() {
        cluster.node(node).start_all().await;
    }
    cluster.all_vote().await;
    write_and_read(&cluster).await;
    by_http(&cluster).await;

    let behind = cluster.follower().await;
    cluster.node(behind).kill_all();
    write_until_compacted(&cluster, behind).await;
    cluster.node(behind).start_all().await;
    cluster.all_catch_up().await;
    let leader = cluster.leader().await;
    cluster.node(leader).kill(Program::Raft);
    write_and_read(&cluster).await;
    cluster.node(leader).start(Program::Raft).await;
    cluster.all_catch_up().await;

    for node in cluster.numbers() {
        for program in Program::ALL {
            let log = cluster.node(node).log_text(program);
            assert!(log.contains("TRACE"), "{program:?} of node {node} logs everything");
            assert_silent(&format!("{program:?} of node {node}"), &log);
        }
        let pages = ["/metrics", "/v1/status", "/v1/members", "/readyz?verbose"];
        for page in pages {
            let mut caller = HttpCaller::new(vec![cluster.http(node)], 0);
            let reply = caller.until_done(&format!("GET {page}"), &[], "").await;
            assert_silent(&format!("{page} of node {node}"), &reply.text());
        }
    }
}

/// As text, as a list of numbers, and as hexadecimal digits.
fn assert_silent(whose: &str, log: &str) {
    for mark in MARKS {
        let numbers = format!("{:?}", mark.as_bytes());
        let mut digits = String::new();
        mark.bytes().for_each(|byte| write!(digits, "{byte:02x}").unwrap());
        for printed in [mark, numbers.trim_matches(['[', ']']), digits.as_str()] {
            let line = log.lines().find(|line| line.contains(printed));
            assert_eq!(line, None, "{whose} tells {mark}");
        }
    }
}

async fn write_and_read(cluster: &Cluster) {
    for node in cluster.numbers() {
        let mut caller = Caller::new(cluster.endpoints(), node);
        caller.open_session().await;
        caller.put(KEY, VALUE).await;
        let (key, value) = (|| KEY.to_owned().into(), || VALUE.to_owned().into());
        caller.append(KEY, VALUE).await;
        for command in [
            Command::Incr { key: key(), by: 1 },
            Command::Cas { key: key(), expected: Some(value()), value: value() },
        ] {
            caller.submit(&command).await;
        }
        // Somebody else may lead meanwhile, and then it is not taken: all the same.
        drop(caller.submit_once(format!("NONSENSE {KEY} {VALUE}").into()).await);
        assert!(caller.get(KEY).await.unwrap().starts_with(VALUE));
    }
}

async fn by_http(cluster: &Cluster) {
    for node in cluster.numbers() {
        let mut caller = HttpCaller::new(vec![cluster.http(node)], 0);
        let path = format!("/v1/kv/{KEY}");
        assert_eq!(caller.until_done(&format!("PUT {path}"), &[], VALUE).await.status, 204);
        assert_eq!(caller.until_done(&format!("GET {path}"), &[], "").await.text(), VALUE);
        for (line, body) in [
            ("POST /v1/submit", format!("INCR {KEY}")),
            ("POST /v1/submit", format!("NONSENSE {KEY} {VALUE}")),
            ("POST /v1/query", format!("GET {KEY} {VALUE}")),
        ] {
            let reply = caller.until_done(line, &[], &body).await;
            assert_ne!(reply.status, 500, "{body}: {reply:?}");
        }
        let nowhere = format!("GET /v1/nothing/{KEY}?timeout_ms={VALUE}");
        assert_eq!(caller.until_done(&nowhere, &[], "").await.status, 404);
        let bad = format!("GET {path}?timeout_ms={VALUE}");
        assert_eq!(caller.until_done(&bad, &[], "").await.status, 400);
    }
}

/// Until the others no longer hold what this node lacks.
async fn write_until_compacted(cluster: &Cluster, behind: usize) {
    let others = || cluster.numbers().filter(move |node| *node != behind);
    let endpoints = others().map(|node| cluster.endpoint(node)).collect();
    let mut caller = Caller::new(endpoints, 0);
    caller.open_session().await;
    let last = cluster.answer(others().next().unwrap()).await.last_index;
    let big = VALUE.repeat(4096);
    for node in others() {
        eventually("a compacted log", async || {
            caller.put(KEY, &big).await;
            (cluster.answer(node).await.first_index > last).then_some(())
        })
        .await;
    }
    caller.put(KEY, VALUE).await;
}
