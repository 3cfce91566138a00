//! The HTTP port of real nodes.

use std::time::{Duration, Instant};

use crate::harness::cluster::{Cluster, QUICK};
use crate::harness::http::{HttpCaller, Reply};
use crate::harness::load::Load;
use crate::harness::program::Program;
use crate::harness::wait::eventually;

/// Commands that show that the cluster is at work again.
const SOME: u64 = 200;

#[tokio::test]
async fn every_node_takes_requests_by_http() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let mut caller = HttpCaller::new(vec![cluster.http(follower)], 0);
    let put = caller.until_done("PUT /v1/kv/pizza/toppings", &[], "peppr cheddar").await;
    assert_eq!(put.status, 204, "{put:?}");
    let got = caller.until_done("GET /v1/kv/pizza%2Ftoppings", &[], "").await;
    assert_eq!((got.status, got.text().as_str()), (200, "peppr cheddar"));
    let index = |reply: &str| reply.parse::<u64>().unwrap();
    assert!(index(got.header("outrigger-index")) >= index(put.header("outrigger-index")));
    let same = caller.until_done("POST /v1/query", &[], "GET pizza/toppings").await;
    assert_eq!(same.text(), "\u{1}peppr cheddar");
    assert_eq!(caller.until_done("DELETE /v1/kv/pizza/toppings", &[], "").await.status, 204);
    assert_eq!(caller.until_done("GET /v1/kv/pizza/toppings", &[], "").await.status, 404);
    let refused = caller.until_done("POST /v1/submit", &[], "INCR").await;
    assert_eq!((refused.status, refused.json()["outcome"].as_str()), (422, Some("refused")));

    let forbidden = [("outrigger-forward", "no")];
    let misdirected = caller.ask("PUT /v1/kv/k", &forbidden, "v").await.unwrap();
    assert_eq!(misdirected.status, 421, "{misdirected:?}");
    let there = format!("http://{}", cluster.http(leader));
    assert_eq!(misdirected.header("outrigger-leader"), there);

    let status = caller.until_done("GET /v1/status", &[], "").await.json();
    assert_eq!(status["id"], cluster.answer(follower).await.id);
    assert_eq!(status["http_address"], cluster.http(follower));
    let members = caller.until_done("GET /v1/members", &[], "").await.json();
    let addresses = members.as_array().unwrap().iter().map(|member| &member["http_address"]);
    let mut addresses: Vec<_> = addresses.map(|address| address.as_str().unwrap()).collect();
    let mut expected: Vec<_> = cluster.numbers().map(|node| cluster.http(node)).collect();
    addresses.sort_unstable();
    expected.sort_unstable();
    assert_eq!(addresses, expected);

    let ready = caller.until_done("GET /readyz?verbose", &[], "").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    cluster.node(follower).kill(Program::StateMachine);
    eventually("not ready without a machine", async || {
        let ready = caller.ask("GET /readyz", &[], "").await.expect("it runs");
        (ready.status == 503 && ready.text().contains("[-]machine ")).then_some(())
    })
    .await;
    assert_eq!(caller.ask("GET /livez", &[], "").await.unwrap().status, 200);
    let page = caller.ask("GET /metrics", &[], "").await.unwrap().text();
    for line in [
        "outrigger_role{role=\"follower\"} 1",
        "outrigger_peers_connected 2",
        "outrigger_machine_attached 0",
        "outrigger_gossip_members{state=\"alive\"} 3",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in:\n{page}");
    }
    let synced =
        page.lines().find_map(|line| line.strip_prefix("outrigger_log_sync_seconds_count "));
    assert!(synced.is_some_and(|count| count.parse::<u64>().unwrap() > 0), "{page}");
}

#[tokio::test]
async fn a_command_repeated_by_http_is_applied_once_and_answers_the_same() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let addresses = || cluster.numbers().map(|node| cluster.http(node)).collect::<Vec<_>>();
    let mut caller = HttpCaller::new(addresses(), 0);
    let opened = caller.until_done("POST /v1/sessions", &[], "").await.json();
    let session = opened["session"].as_str().unwrap();
    let name = [("outrigger-session", session), ("outrigger-sequence", "1")];
    let first = caller.until_done("POST /v1/submit", &name, "INCR n 5").await;
    assert_eq!((first.status, first.text().as_str()), (200, "5"));
    let leader = cluster.leader().await;
    cluster.node(leader).kill(Program::Raft);
    let again = caller.until_done("POST /v1/submit", &name, "INCR n 5").await;
    assert_eq!((again.status, again.text().as_str()), (200, "5"));
    assert_eq!(again.header("outrigger-index"), first.header("outrigger-index"));
    let unknown = [("outrigger-session", "00000000deadbeef"), ("outrigger-sequence", "1")];
    let expired = caller.until_done("POST /v1/submit", &unknown, "INCR n 5").await;
    assert_eq!((expired.status, expired.json()["outcome"].as_str()), (410, Some("unknown")));
    assert_eq!(caller.until_done("GET /v1/kv/n", &[], "").await.text(), "5");
}

#[tokio::test]
async fn clients_by_http_count_exactly_while_leaders_are_killed() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let load = Load::start_http(&cluster, "http");
    for _ in 0..5 {
        load.proceeds(SOME).await;
        let leader = cluster.leader().await;
        cluster.node(leader).bounce(Program::Raft).await;
        cluster.all_catch_up().await;
    }
    load.stop().await.check(&cluster).await;
}

#[tokio::test]
async fn session_that_nobody_uses_expires_and_is_told_so_by_every_node() {
    const TTL: Duration = Duration::from_millis(400);
    let cluster = Cluster::form(3, QUICK).await;
    let follower = cluster.follower().await;
    let mut caller = HttpCaller::new(vec![cluster.http(follower)], 0);
    let lasting = caller.until_done("POST /v1/sessions", &[], "").await;
    let brief = caller.until_done("POST /v1/sessions?ttl_ms=400", &[], "").await;
    assert_eq!(brief.json()["ttl_ms"], 400, "{brief:?}");
    let name = |session: &Reply| session.header("outrigger-session").to_owned();
    let (lasting, brief) = (name(&lasting), name(&brief));
    let used = Instant::now();
    eventually("log time passes", async || (used.elapsed() > 2 * TTL).then_some(())).await;
    for node in cluster.numbers() {
        let mut caller = HttpCaller::new(vec![cluster.http(node)], 0);
        let sequence = (node + 1).to_string();
        let under = |session| [("outrigger-session", session), ("outrigger-sequence", &*sequence)];
        let alive = caller.until_done("POST /v1/submit", &under(&lasting), "INCR k").await;
        assert_eq!(alive.status, 200, "{alive:?}");
        let expired = caller.until_done("POST /v1/submit", &under(&brief), "INCR k").await;
        assert_eq!((expired.status, &expired.json()["outcome"]), (410, &"unknown".into()));
        let renewal = format!("PUT /v1/sessions/{brief}");
        assert_eq!(caller.until_done(&renewal, &[], "").await.status, 410);
    }
    let line = |verb: &str| format!("{verb} /v1/sessions/{lasting}");
    assert_eq!(caller.until_done(&line("PUT"), &[], "").await.status, 204);
    assert_eq!(caller.until_done(&line("DELETE"), &[], "").await.status, 204);
    assert_eq!(caller.until_done(&line("PUT"), &[], "").await.status, 410);
    let counted = caller.until_done("GET /v1/kv/k", &[], "").await;
    assert_eq!(counted.text(), "3", "nothing was applied under the expired one");
}
