//! How the process starts, refuses to start, and stops.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::support::{Daemon, Raft, command, done, refusal};

#[tokio::test]
async fn it_says_where_it_serves() {
    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::start(&data_dir, &["--machine", "register"]).await;
    assert_eq!(daemon.ready.machine, "register");
    assert_ne!((daemon.ready.pid, daemon.ready.tcp.port()), (0, 0));
    for endpoint in [daemon.tcp(), daemon.unix()] {
        let (_, info) = Raft::attach(&endpoint, 1).await;
        assert_eq!(info.name, "register");
    }
}

#[tokio::test]
async fn sigterm_syncs_and_exits_with_0() {
    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::start(&data_dir, &["--sync-interval-ms", "60000"]).await;
    let (raft, _) = Raft::attach(&daemon.tcp(), 1).await;
    let applied = raft.apply(1, &["PUT k v"]).await;
    assert_eq!((applied.results, applied.durable_index), (vec![done("")], 0));
    assert_eq!(daemon.terminate().await.code(), Some(0));
    let daemon = Daemon::start(&data_dir, &[]).await;
    let (raft, info) = Raft::attach(&daemon.tcp(), 1).await;
    assert_eq!((info.applied_index, info.durable_index), (1, 1));
    assert_eq!(raft.get("k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_second_process_on_the_directory_is_refused() {
    let data_dir = TempDir::new().unwrap();
    let _first = Daemon::start(&data_dir, &[]).await;
    let (code, log) = refusal(command(data_dir.path(), &[]));
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains("another state-machine runs on this data directory"), "{log}");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let data_dir = TempDir::new().unwrap();
    let (code, log) = refusal(command(data_dir.path(), &["--port", &port]));
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{log}");
}

#[test]
fn bad_settings_are_named() {
    let data_dir = TempDir::new().unwrap();
    let file = data_dir.path().join("machine.toml");
    fs::write(&file, "sync_interval = 5\n").unwrap();
    let with_file = command(data_dir.path(), &["--config", file.to_str().unwrap()]);
    let mut with_variable = command(data_dir.path(), &[]);
    with_variable.env("OUTRIGGER_MACHINE_SYNC_INTERVAL_MS", "0");
    let cases = [
        (
            command(data_dir.path(), &["--machine", "zookeeper"]),
            "machine = \"zookeeper\": must be kv",
        ),
        (
            command(data_dir.path(), &["--sync-entries", "0"]),
            "must be 1 to 1000000000 (flag --sync-entries)",
        ),
        (with_variable, "must be 1 to 60000 (environment OUTRIGGER_MACHINE_SYNC_INTERVAL_MS)"),
        (with_file, "line 1: there is no setting \"sync_interval\""),
    ];
    for (command, message) in cases {
        let (code, log) = refusal(command);
        assert_eq!(code, Some(2), "{log}");
        assert!(log.contains(message), "{log}");
    }
    assert!(!data_dir.path().join("machine").exists(), "nothing was touched");
}

#[test]
fn an_unusable_data_directory_is_named() {
    let data_dir = TempDir::new().unwrap();
    let in_the_way = data_dir.path().join("file");
    fs::write(&in_the_way, "").unwrap();
    let (code, log) = refusal(command(&in_the_way, &[]));
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains("cannot use the data directory"), "{log}");
}

type Damage = fn(&Path);

#[tokio::test]
async fn damaged_files_end_it_with_11() {
    let damages: [(Damage, &str); 2] = [
        (|machine| fs::write(machine.join("attachment"), "x").unwrap(), "is not an attachment"),
        (|machine| fs::remove_file(machine.join("current")).unwrap(), "current is missing"),
    ];
    for (damage, message) in damages {
        let data_dir = TempDir::new().unwrap();
        Daemon::start(&data_dir, &[]).await.kill();
        damage(&data_dir.path().join("machine"));
        let (code, log) = refusal(command(data_dir.path(), &[]));
        assert_eq!(code, Some(11), "{log}");
        assert!(log.contains(message), "{log}");
    }
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_leaves_tcp() {
    let short = TempDir::new().unwrap();
    let long = TempDir::with_suffix_in("x".repeat(120), short.path()).unwrap();
    let daemon = Daemon::start(&long, &[]).await;
    assert_eq!(daemon.ready.unix, None);
    Raft::attach(&daemon.tcp(), 1).await;
}

#[tokio::test]
async fn the_socket_file_of_a_killed_process_is_replaced() {
    let data_dir = TempDir::new().unwrap();
    Daemon::start(&data_dir, &[]).await.kill();
    assert!(fs::metadata(data_dir.path().join("machine.sock")).unwrap().permissions().mode() > 0);
    let daemon = Daemon::start(&data_dir, &[]).await;
    Raft::attach(&daemon.unix(), 1).await;
}
