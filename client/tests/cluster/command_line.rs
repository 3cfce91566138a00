//! `raft-client` as it is typed, against a cluster of real processes.

use std::fs;
use std::path::Path;

use raft_client::{Endpoint, MAX_COMMAND_BYTES};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::caller::Caller;
use crate::harness::cluster::{Cluster, QUICK};
use crate::harness::program::Program;
use crate::typed::{ask, client, say};

/// Long enough for a process to start and connect on a busy machine, short enough to be waited out.
const SHORT: &str = "--timeout-ms=1500";

#[tokio::test]
async fn the_line_that_people_know_works_to_the_letter() {
    let cluster = Cluster::form(3, QUICK).await;
    let lines: Vec<_> = cluster.endpoints().iter().map(Endpoint::to_string).collect();
    // As a launcher leaves it.
    fs::create_dir(cluster.root().join("data")).unwrap();
    fs::write(cluster.root().join("data/endpoints"), lines.join("\n")).unwrap();

    let words = ["PUT", "pizzatoppings", "peporoni", "peppr", "cheddar", "anchoves", "onn", "it"];
    let run = client(cluster.root(), &words);
    let value = "peporoni peppr cheddar anchoves onn it";
    assert_eq!(run.out, format!("Success! Set \"pizzatoppings\" to: \"{value}\"\n"));
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
    for endpoint in cluster.endpoints() {
        assert_eq!(say(&[endpoint], &["GET", "pizzatoppings"]), value);
    }
}

#[tokio::test]
async fn verbs_do_what_they_say_through_any_node() {
    let cluster = Cluster::form(3, QUICK).await;
    for (node, endpoint) in cluster.endpoints().into_iter().enumerate() {
        let through = [endpoint];
        let counter = format!("counter {node}");
        for (words, expected) in [
            (&["INCR", &counter][..], "1"),
            (&["incr", &counter, "-5"], "-4"),
            (&["Get", &counter], "-4"),
            (&["PUT", "k", "--", "-5"], "Success! Set \"k\" to: \"-5\""),
            (&["PUT", "k", "--", "--output", "json"], "Success! Set \"k\" to: \"--output json\""),
            (&["PUT", "k", ""], "Success! Set \"k\" to: \"\""),
            (&["GET", "k"], ""),
            (&["PUT", "käse", "zwei\nZeilen"], "Success! Set \"käse\" to: \"zwei\nZeilen\""),
            (&["GET", "käse"], "zwei\nZeilen"),
            (&["submit", "PUT", "raw", "a", "b"], "Success! Applied at index"),
            (&["--no-forward", "GET", "raw"], "a b"),
            (&["query", "GET", "raw"], "\u{1}a b"),
            (&["DEL", "raw"], "Success! Removed \"raw\""),
            (&["CAS", "--absent", "c", "one", "two"], "Success! Set \"c\" to: \"one two\""),
            (&["cas", "c", "one two", "three"], "Success! Set \"c\" to: \"three\""),
            (&["CAS", "c", "three", ""], "Success! Set \"c\" to: \"\""),
            (&["APPEND", "c", "a b", "ä"], "6"),
            (&["GET", "c"], "a b ä"),
            (&["DEL", "c"], "Success! Removed \"c\""),
            (&["PUT", "list/1", "a"], "Success! Set \"list/1\" to: \"a\""),
            (&["PUT", "list/2", "b\nc"], "Success! Set \"list/2\" to: \"b\nc\""),
            (&["LIST", "list/"], "list/1 = a\nlist/2 = b\\nc"),
            (&["LIST", "list/", "--keys-only", "--after", "list/1"], "list/2"),
            (
                &["LIST", "list/", "--limit", "1"],
                "list/1 = a\n… there is more: go on with --after 'list/1'",
            ),
            (&["LIST", "nothing/"], "No such keys"),
            (&["submit", "APPEND", "raw", "x"], "1"),
            (&["DEL", "raw"], "Success! Removed \"raw\""),
            (&["DEL", "raw"], "There was no \"raw\" to remove"),
        ] {
            let said = say(&through, words);
            let fits = if words[..2] == ["submit", "PUT"] {
                said.starts_with(expected)
            } else {
                said == expected
            };
            assert!(fits, "{words:?} through node {node}: {said}");
        }
    }
}

#[tokio::test]
async fn refusals_and_wrong_usage_change_nothing_and_tell_why() {
    let cluster = Cluster::form(1, QUICK).await;
    let through = cluster.endpoints();
    let id = cluster.answer(0).await.cluster.unwrap();
    say(&through, &["PUT", "k", "no number"]);
    let long = "x".repeat(100_000);
    let too_long = [&["PUT", "k"][..], &[long.as_str(); 11]].concat();
    assert!(too_long.len() * long.len() > MAX_COMMAND_BYTES);
    let nobody = ["--endpoints=127.0.0.1:1", SHORT, "PUT", "k", "v"];
    for (words, code, kind, part) in [
        (&["INCR", "k"][..], 1, "refused", "not a whole number"),
        (&["submit", "FROB"], 1, "refused", "unknown verb"),
        (&["query", "FROB"], 1, "refused", "unknown verb"),
        (&too_long, 1, "refused", "1040384"),
        (&["PUT", "", "v"], 1, "refused", "1 to 4096"),
        (&["GET", "missing"], 1, "not-found", "missing"),
        (&["CAS", "k", "something", "new"], 1, "mismatch", "\"k\" is \"no number\""),
        (&["CAS", "--absent", "k", "new"], 1, "mismatch", "\"k\" is \"no number\""),
        (&["CAS", "missing", "old", "new"], 1, "mismatch", "no key \"missing\""),
        (&["submit", "LIST"], 1, "refused", "query it"),
        (&["CAS", "k", "no number"], 2, "usage", "the new value is missing"),
        (&["LIST", "--limit=0"], 2, "usage", "limit"),
        (&["--cluster", "f0", "GET", "k"], 1, "refused", &id),
        (&["--session", "f0f0", "--sequence", "1", "INCR", "n"], 3, "unknown", "f0f0"),
        (&["FROB", "k"], 2, "usage", "FROB"),
        (&["PUT", "k"], 2, "usage", "VALUE"),
        (&["GET"], 2, "usage", "KEY"),
        (&["INCR", "k", "x"], 2, "usage", "x"),
        (&["--endpoints=nowhere", "GET", "k"], 2, "usage", "nowhere"),
        (&["--timeout-ms=0", "GET", "k"], 2, "usage", "timeout-ms"),
        (&nobody, 4, "no-leader", "127.0.0.1:1"),
    ] {
        // The last of a repeated option counts, so these endpoints only hold where none are named.
        let names_endpoints = words[0].starts_with("--endpoints");
        let run = |more: &[&str]| {
            let words = [more, words].concat();
            if names_endpoints { client(Path::new("/"), &words) } else { ask(&through, &words) }
        };
        let told = run(&[]);
        assert_eq!(told.code, Some(code), "{words:.80?}: {}{}", told.out, told.err);
        assert!(told.out.is_empty() && told.err.contains(part), "{words:.80?}: {}", told.err);
        let told = run(&["--output=json"]);
        assert_eq!((told.code, told.err.as_str()), (Some(code), ""), "{words:.80?}");
        assert_eq!(told.json()["error"], kind, "{words:.80?}: {}", told.out);
    }
    assert_eq!(say(&through, &["GET", "k"]), "no number");
    assert_eq!(ask(&through, &["GET", "n"]).code, Some(1));
}

/// The options that repeat what a run did, or tried.
fn again(told: &Value) -> [String; 2] {
    let (session, sequence) = (told["session"].as_str().unwrap(), &told["sequence"]);
    [format!("--session={session}"), format!("--sequence={sequence}")]
}

#[tokio::test]
async fn a_write_that_is_repeated_under_its_name_is_applied_once() {
    let cluster = Cluster::form(3, QUICK).await;
    let first = ask(&cluster.endpoints(), &["--output=json", "INCR", "n", "7"]).json();
    assert_eq!((&first["key"], &first["value"]), (&json!("n"), &json!(7)));
    let [session, sequence] = again(&first);
    for endpoint in cluster.endpoints() {
        let words = ["--output=json", &session, &sequence, "INCR", "n", "7"];
        assert_eq!(ask(&[endpoint], &words).json(), first);
    }
    assert_eq!(say(&cluster.endpoints(), &["GET", "n"]), "7");
}

#[tokio::test]
async fn a_write_without_quorum_is_unknown_and_settled_later() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let leader = cluster.leader().await;
    let frozen: Vec<_> = cluster.numbers().filter(|node| *node != leader).collect();
    let through = [cluster.endpoint(leader)];
    // A session must be there before: without one nothing is sent, and that is no doubt.
    let [session, _] = again(&ask(&through, &["--output=json", "PUT", "k", "v"]).json());
    for node in &frozen {
        cluster.node(*node).signal(Program::Raft, Signal::STOP);
    }
    let add = ["--output=json", &session, "--sequence=9", "INCR", "n"];
    let told = ask(&through, &[&[SHORT], &add[..]].concat());
    let fresh = ask(&through, &[SHORT, "--output=json", "INCR", "n"]);
    for node in &frozen {
        cluster.node(*node).signal(Program::Raft, Signal::CONT);
    }
    assert_eq!((told.code, &told.json()["error"]), (Some(3), &json!("unknown")), "{}", told.out);
    assert_eq!((fresh.code, &fresh.json()["error"]), (Some(4), &json!("no-leader")));

    let [session, sequence] = again(&told.json());
    let settled = ask(&cluster.endpoints(), &[&session, &sequence, "INCR", "n"]);
    assert_eq!((settled.code, settled.out.as_str()), (Some(0), "1\n"), "{}", settled.err);
    assert_eq!(say(&cluster.endpoints(), &["GET", "n"]), "1");
}

#[tokio::test]
async fn a_write_without_a_machine_is_committed_and_applied_later() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let leader = cluster.leader().await;
    let through = cluster.endpoints();
    let [session, _] = again(&ask(&through, &["--output=json", "PUT", "k", "v"]).json());
    cluster.node(leader).kill(Program::StateMachine);
    cluster.until(leader, "machine away", |status| status.state_machine != "attached").await;
    let add = ["--output=json", &session, "--sequence=9", "INCR", "n"];
    let told = ask(&through, &[&[SHORT], &add[..]].concat());
    assert_eq!(told.code, Some(5), "{}", told.out);
    assert_eq!(told.json()["error"], "committed-not-applied");

    cluster.node(leader).start(Program::StateMachine).await;
    let settled = ask(&through, &add).json();
    assert_eq!((&settled["value"], &settled["index"]), (&json!(1), &told.json()["index"]));
    assert_eq!(say(&through, &["GET", "n"]), "1");
}

#[tokio::test]
async fn nodes_tell_about_themselves_and_each_other() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let one = ask(&[cluster.endpoint(1)], &["--output=json", "status"]).json();
    assert_eq!((&one["name"], &one["fsync"]), (&json!("n1"), &json!(true)));
    for key in ["id", "role", "pid", "term", "commit_index", "applied_index", "version", "voters"] {
        assert!(!one[key].is_null(), "{key} is missing: {one}");
    }
    assert!(one["leader"]["id"].as_str().is_some_and(|id| id.len() == 16), "{one}");

    let follower = cluster.follower().await;
    cluster.node(follower).kill(Program::Raft);
    // One name is enough to find all.
    let other = cluster.numbers().find(|node| *node != follower).unwrap();
    let all = ask(&[cluster.endpoint(other)], &["--output=json", "status", "--all"]).json();
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 3, "{all:?}");
    for node in all {
        let killed = node["endpoint"] == cluster.endpoint(follower).to_string();
        assert_eq!((node["status"].is_null(), node["error"].is_string()), (killed, killed));
    }
    let table = say(&[cluster.endpoint(other)], &["status", "--all"]);
    assert_eq!(table.lines().count(), 4, "{table}");
    let members = ask(&[cluster.endpoint(other)], &["--output=json", "members"]).json();
    let configured = |member: &Value| member["configured"] == "voter";
    assert_eq!(members.as_array().unwrap().iter().filter(|member| configured(member)).count(), 3);
    assert_eq!(say(&[cluster.endpoint(other)], &["members"]).lines().count(), 4);
}

#[tokio::test]
async fn health_is_that_of_one_node_and_its_processes() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let probe = |endpoint: &Endpoint| {
        let endpoint = endpoint.to_string();
        ask(&[], &["--output=json", "health", "--endpoint", &endpoint])
    };
    for other in [0, 2] {
        cluster.node(other).kill_all();
    }
    assert_eq!(probe(&cluster.endpoint(1)).code, Some(0), "peers do not count");
    let dead = probe(&cluster.endpoint(2));
    assert_eq!((dead.code, &dead.json()["error"]), (Some(1), &json!("unhealthy")));
    cluster.node(1).kill(Program::StateMachine);
    cluster.until(1, "machine away", |status| status.state_machine != "attached").await;
    assert_eq!(probe(&cluster.endpoint(1)).code, Some(1));
}

#[tokio::test]
async fn a_client_given_dead_nodes_too_finds_the_living() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let leader = cluster.leader().await;
    cluster.node(leader).kill_all();
    let mut endpoints = cluster.endpoints();
    endpoints.rotate_left(leader);
    assert_eq!(say(&endpoints, &["PUT", "k", "v"]), "Success! Set \"k\" to: \"v\"");
    assert_eq!(Caller::new(endpoints[1..].to_vec(), 0).get("k").await.as_deref(), Some("v"));
}
