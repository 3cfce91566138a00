//! Directories whose files are not what was written: nobody votes with them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::caller::Caller;
use crate::harness::cluster::{Cluster, QUICK};
use crate::harness::program::Program;

/// Unit of the log's checksums, in bytes.
const BLOCK_BYTES: usize = 512;

/// Flips one bit in the middle of what the newest segment holds; its path and the place of the block.
fn damage_log(wal: &Path) -> (PathBuf, usize) {
    let files = fs::read_dir(wal).unwrap().map(|file| file.unwrap().path());
    let path = files.filter(|path| path.extension().is_some_and(|e| e == "wal")).max().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let used =
        bytes.chunks(BLOCK_BYTES).filter(|block| block.iter().any(|byte| *byte != 0)).count();
    assert!(used > 20, "only {used} blocks are written");
    let place = used / 2 * BLOCK_BYTES;
    bytes[place + 100] ^= 1;
    fs::write(&path, bytes).unwrap();
    (path, place)
}

/// A cluster with a log worth damaging, and a node that joined it and does not lead.
async fn cluster_and_victim() -> (Cluster, usize, Caller) {
    let cluster = Cluster::form(3, QUICK).await;
    let mut caller = Caller::new(cluster.endpoints(), 0);
    caller.open_session().await;
    for number in 0..50 {
        caller.put("k", &number.to_string()).await;
    }
    cluster.all_catch_up().await;
    let leader = cluster.leader().await;
    let victim = cluster.numbers().skip(1).find(|node| *node != leader).unwrap();
    (cluster, victim, caller)
}

#[tokio::test]
async fn a_damaged_log_is_refused_by_place_and_its_node_returns_as_a_new_one() {
    let (mut cluster, victim, mut caller) = cluster_and_victim().await;
    let old_id = cluster.answer(victim).await.id;
    let data_dir = cluster.node(victim).data_dir();
    let verify = || Program::Raft.tool(&["log", "verify", data_dir.to_str().unwrap()]);
    let (code, said) = verify();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("has this log in use"), "{said}");
    cluster.node(victim).kill(Program::Raft);
    let (path, place) = damage_log(&data_dir.join("raft/wal"));
    let (code, said) = verify();
    assert_eq!(code, Some(11), "{said}");
    assert!(!said.contains("has this log in use"), "{said}");
    assert!(said.contains(&format!("{} at byte {place}", path.display())), "{said}");
    for _ in 0..2 {
        let (code, said) = cluster.node(victim).refusal(Program::Raft).await;
        assert_eq!(code, Some(11), "{said}");
        assert!(said.contains(&format!("{} at byte {place}", path.display())), "{said}");
        assert!(said.contains("empty data directory"), "{said}");
    }
    caller.put("k", "while it is away").await;

    // What the message says to do.
    cluster.node(victim).kill_all();
    fs::remove_dir_all(&data_dir).unwrap();
    cluster.node(victim).start_all().await;
    let new = cluster.until(victim, "learns", |status| status.learners.contains(&status.id)).await;
    assert_ne!(new.id, old_id);
    let leader = cluster.leader().await;
    let committed = cluster.answer(leader).await.commit_index;
    cluster.until(victim, "caught up", |status| status.applied_index >= committed).await;
    let mut through_it = Caller::new(vec![cluster.endpoint(victim)], 0);
    assert_eq!(through_it.get("k").await.as_deref(), Some("while it is away"));
}

#[tokio::test]
async fn a_node_that_lost_its_log_or_identity_is_refused() {
    let (mut cluster, victim, mut caller) = cluster_and_victim().await;
    let data_dir = cluster.node(victim).data_dir();
    cluster.node(victim).kill_all();
    let (identity, wal, aside) =
        (data_dir.join("raft/identity"), data_dir.join("raft/wal"), data_dir.join("aside"));

    fs::rename(&wal, &aside).unwrap();
    let (code, said) = cluster.node(victim).refusal(Program::Raft).await;
    assert_eq!(code, Some(11), "{said}");
    assert!(said.contains(identity.to_str().unwrap()) && said.contains("log"), "{said}");
    // The refusal has made nothing in its place.
    fs::rename(&aside, &wal).unwrap();

    for (file, program) in [
        ("raft/identity", Program::Raft),
        ("member/identity", Program::Member),
        ("machine/attachment", Program::StateMachine),
    ] {
        let path = data_dir.join(file);
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        fs::write(&path, damaged).unwrap();
        let (code, said) = cluster.node(victim).refusal(program).await;
        assert_eq!(code, Some(11), "{file}: {said}");
        assert!(said.contains(path.to_str().unwrap()), "{file}: {said}");
        fs::write(&path, whole).unwrap();
    }

    cluster.node(victim).start_all().await;
    cluster.all_vote().await;
    cluster.all_catch_up().await;
    caller.put("k", "all are back").await;
}
