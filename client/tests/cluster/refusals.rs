//! Processes that cannot start: each says what is wrong, where and what to do, and ends with the documented code.

use std::fs;
use std::path::Path;

use raft::rpc::client;
use raft::rpc::wire::Endpoint;

use crate::harness::cluster::{Cluster, QUICK};
use crate::harness::process::Process;
use crate::harness::program::Program;
use crate::harness::wait::{PATIENCE, eventually};

const ANY_PORT: &str = "--port-base=0";

/// Starts a program on a directory; asserts that it refuses with this code and these words.
async fn assert_refused(
    program: Program,
    data_dir: &Path,
    flags: &[&str],
    code: i32,
    words: &[&str],
) {
    let log = data_dir.ancestors().find(|place| place.is_dir()).unwrap().join("refusal.log");
    let mut command = program.command(data_dir);
    let (exit_code, said) = Process::refusal(command.args(flags), &log).await;
    assert_eq!(exit_code, Some(code), "{program:?} {flags:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{program:?} {flags:?}: {word:?} is missing: {said}");
    }
    assert!(!said.contains("panicked"), "{program:?} {flags:?}: {said}");
}

#[tokio::test]
async fn flags_and_configuration_are_checked() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let file = |name: &str, text: &str| {
        let path = root.path().join(name);
        fs::write(&path, text).unwrap();
        format!("--config={}", path.display())
    };
    let unknown_key = file("unknown.toml", "prot_base = 1\n");
    let unknown_dashed_key = file("dashed.toml", "port-base = 1\n");
    let out_of_range = file("range.toml", "tick_ms = 500\n");
    let not_toml = file("not.toml", "{{{");
    let missing = format!("--config={}", root.path().join("nowhere.toml").display());
    for (program, flag, words) in [
        (Program::Raft, "--no-such-flag", &["--no-such-flag"][..]),
        (Program::Raft, "--tick-ms=0", &["tick_ms", "1 to 100"]),
        (Program::Raft, "--tick-ms=soon", &["tick_ms", "\"soon\"", "flag --tick-ms"]),
        (Program::Raft, "--heartbeat-ms=200", &["heartbeat_ms = 200", "10 to 150"]),
        (Program::Raft, "--segment-mib=1", &["segment_mib", "16 to 1024"]),
        (Program::Raft, "--target-voters=10", &["target_voters", "1 to 9"]),
        (Program::Raft, "--port-base=65535", &["raft_port", "65535"]),
        (Program::Raft, "--bind=localhost", &["bind", "localhost", "flag --bind"]),
        (Program::Raft, "--state-machine=nowhere", &["state_machine", "host:port"]),
        (Program::Raft, &unknown_key, &["unknown.toml", "line 1", "prot_base"]),
        (Program::Raft, &out_of_range, &["tick_ms = 500", "1 to 100", "range.toml", "line 1"]),
        (Program::Raft, &not_toml, &["not.toml"]),
        (Program::Raft, &missing, &["nowhere.toml"]),
        (Program::Member, "--no-such-flag", &["--no-such-flag"]),
        (Program::Member, "--probe-interval-ms=1", &["probe_interval_ms = 1", "50 to 60000"]),
        (Program::Member, "--seed=nowhere", &["nowhere", "host:port"]),
        (Program::Member, &unknown_dashed_key, &["dashed.toml", "write port_base"]),
        (Program::Member, &missing, &["nowhere.toml"]),
        (Program::StateMachine, "--no-such-flag", &["--no-such-flag"]),
        (Program::StateMachine, "--sync-interval-ms=0", &["sync_interval_ms", "60000"]),
        (Program::StateMachine, "--machine=abacus", &["abacus", "kv"]),
        (Program::StateMachine, &unknown_dashed_key, &["dashed.toml", "write port_base"]),
        (Program::StateMachine, &missing, &["nowhere.toml"]),
    ] {
        assert_refused(program, &dir, &[flag], 2, words).await;
    }
    assert!(!dir.exists(), "nothing is made before the settings are checked");
}

#[tokio::test]
async fn directories_that_cannot_be_used_are_named() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    let below_a_file = root.path().join("file/data");
    for program in Program::ALL {
        let words = [below_a_file.to_str().unwrap()];
        assert_refused(program, &below_a_file, &[ANY_PORT], 4, &words).await;
    }
    for (program, name) in
        [(Program::Raft, "raft/wal"), (Program::Raft, "raft"), (Program::Member, "member")]
    {
        let dir = root.path().join(name.replace('/', "-"));
        let taken = dir.join(name);
        fs::create_dir_all(taken.parent().unwrap()).unwrap();
        fs::write(&taken, "").unwrap();
        assert_refused(program, &dir, &[ANY_PORT], 4, &[taken.to_str().unwrap()]).await;
    }
}

#[tokio::test]
async fn directories_and_ports_in_use_are_named_and_their_users_live_on() {
    let mut cluster = Cluster::form(1, QUICK).await;
    let in_use = cluster.node(0).data_dir();
    let other = cluster.root().join("other");
    for (program, address, flag) in [
        (Program::Member, "gossip", "--gossip-port"),
        (Program::Member, "introducer", "--introducer-port"),
        (Program::Member, "rpc", "--rpc-port"),
        (Program::StateMachine, "tcp", "--port"),
        (Program::Raft, "raft", "--raft-port"),
    ] {
        let words = [in_use.to_str().unwrap(), "another"];
        assert_refused(program, &in_use, &[ANY_PORT], 4, &words).await;
        let address = cluster.node(0).address(program, address);
        let port = format!("{flag}={}", address.rsplit_once(':').unwrap().1);
        let mut flags = vec![ANY_PORT, &port];
        if flag == "--introducer-port" {
            flags.push("--introducer");
        }
        assert_refused(program, &other, &flags, 3, &[&address]).await;
        assert!(cluster.node(0).runs(program));
    }
    cluster.all_vote().await;
}

#[tokio::test]
async fn a_machine_of_another_cluster_is_left_alone() {
    let mut cluster = Cluster::form(1, QUICK).await;
    let log = cluster.root().join("stranger.log");
    let ready_file = cluster.root().join("stranger.json");
    let socket = cluster.node(0).data_dir().join("machine.sock");
    let mut command = Program::Raft.command(&cluster.root().join("stranger"));
    command
        .args([ANY_PORT, "--bootstrap=now", "--segment-mib=16", "--ready-file"])
        .arg(&ready_file);
    command.arg(format!("--state-machine=unix:{}", socket.display()));
    let mut stranger = Process::spawn(&mut command, &log);
    let addresses = stranger.serving(&ready_file).await.unwrap();
    let endpoint = Endpoint::Tcp(addresses["raft"].as_str().unwrap().to_owned());
    let (client, _) = client::connect(&endpoint, 0, PATIENCE).await.unwrap();
    eventually("word of the other cluster", async || {
        let status = client.status(tarpc::context::current()).await.unwrap();
        status.state_machine.contains("cluster").then_some(())
    })
    .await;
    cluster.all_vote().await;
}
