//! kill -9 under load, and a disk that refuses. Entry `i` of the log is known from its index alone, so the whole state can be told from the applied index.

use std::collections::VecDeque;

use state_machine::entries::EntryBlob;
use state_machine::rpc::{AccessError, Applied, ApplyError, CommandResult, RestoreError};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::{Daemon, Raft, blob, done};

const KILLS: u64 = 12;
const IN_FLIGHT: usize = 4;
const BATCH_ENTRIES: u64 = 25;
/// A sync is due every 5 ms here; this many take minutes.
const MOST_ANSWERS: u64 = 100_000;

/// Odd entries count, even ones write a serial of their own.
fn entry(index: u64) -> String {
    if index % 2 == 1 { "INCR n".to_owned() } else { format!("PUT serial-{index} {index}") }
}

fn result(index: u64) -> CommandResult {
    if index % 2 == 1 { done(&index.div_ceil(2).to_string()) } else { done("") }
}

fn batch(first_index: u64) -> EntryBlob {
    let lines: Vec<String> = (first_index..first_index + BATCH_ENTRIES).map(entry).collect();
    blob(&lines)
}

/// The state must be that of exactly `applied_index` entries.
async fn check_state(raft: &Raft, applied_index: u64) {
    let count = applied_index.div_ceil(2);
    assert_eq!(raft.get("n").await, (count > 0).then(|| count.to_string()));
    for index in (2..=applied_index + 2 * BATCH_ENTRIES).step_by(2) {
        let serial = (index <= applied_index).then(|| index.to_string());
        assert_eq!(raft.get(&format!("serial-{index}")).await, serial, "of {applied_index}");
    }
}

/// What the machine promised before it was killed.
#[derive(Debug, Default)]
struct Promised {
    durable_index: u64,
}

impl Promised {
    /// Checks an answer to a batch whose entries up to `known` may have been applied before.
    fn take(&mut self, answer: &Applied, known: u64) {
        for (index, got) in (answer.first_index..).zip(&answer.results) {
            let expected = if index <= known { CommandResult::Skipped } else { result(index) };
            assert_eq!(*got, expected, "entry {index}");
        }
        self.durable_index = self.durable_index.max(answer.durable_index);
    }
}

fn call(raft: &Raft, first_index: u64) -> JoinHandle<Applied> {
    let raft = raft.clone();
    tokio::spawn(
        async move { raft.try_apply(first_index, batch(first_index)).await.unwrap().unwrap() },
    )
}

/// Feeds batches from `first_index` on, several in flight, until so many answers came, and one of them said that something is
/// durable.
async fn feed(
    raft: &Raft,
    mut first_index: u64,
    known: u64,
    answers: u64,
    promised: &mut Promised,
) {
    let mut in_flight = VecDeque::new();
    for answered in 1.. {
        while in_flight.len() < IN_FLIGHT {
            in_flight.push_back(call(raft, first_index));
            first_index += BATCH_ENTRIES;
        }
        let oldest = in_flight.pop_front().unwrap();
        promised.take(&oldest.await.unwrap(), known);
        if answered >= answers && promised.durable_index > 0 {
            return;
        }
        assert!(answered < MOST_ANSWERS, "nothing is ever made durable");
    }
}

#[tokio::test]
async fn data_and_applied_index_agree_whenever_it_is_killed() {
    let data_dir = TempDir::new().unwrap();
    let mut promised = Promised::default();
    for round in 0..KILLS {
        let daemon = Daemon::start(&data_dir, &["--sync-interval-ms", "5"]).await;
        let (raft, info) = Raft::attach(&daemon.unix(), 1).await;
        assert!(info.applied_index >= promised.durable_index, "{info:?}, {promised:?}");
        assert!(info.durable_index >= promised.durable_index, "{info:?}, {promised:?}");
        check_state(&raft, info.applied_index).await;
        // Some of what is applied comes again.
        let again = (info.applied_index + 1).saturating_sub(7 * round).max(1);
        feed(&raft, again, info.applied_index, 5 + 3 * round, &mut promised).await;
        daemon.kill();
    }
    let daemon = Daemon::start(&data_dir, &[]).await;
    let (raft, info) = Raft::attach(&daemon.unix(), 1).await;
    check_state(&raft, info.applied_index).await;
}

#[tokio::test]
async fn a_disk_that_refuses_a_write_ends_it_with_13_and_nothing_durable_is_lost() {
    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::start(&data_dir, &[]).await;
    Raft::attach(&daemon.unix(), 1).await;
    daemon.kill();

    let daemon = Daemon::start_with_small_files(&data_dir, &["--sync-interval-ms", "5"]).await;
    let (raft, _) = Raft::attach(&daemon.unix(), 1).await;
    let (mut acknowledged, mut durable) = (0, 0);
    while let Ok(answer) = raft.try_apply(acknowledged + 1, batch(acknowledged + 1)).await {
        match answer {
            Ok(answer) => {
                acknowledged += answer.results.len() as u64;
                durable = answer.durable_index;
            }
            Err(error) => {
                assert_eq!(error, ApplyError::Access(AccessError::Stopping));
                break;
            }
        }
    }
    assert_eq!(daemon.wait().await.code(), Some(13));

    let daemon = Daemon::start(&data_dir, &[]).await;
    let (raft, info) = Raft::attach(&daemon.unix(), 1).await;
    assert!(info.applied_index >= durable && durable > 0, "{info:?}, {durable}");
    check_state(&raft, info.applied_index).await;
}

#[tokio::test]
async fn a_disk_without_room_for_a_snapshot_is_named_and_the_old_state_serves_on() {
    let source_dir = TempDir::new().unwrap();
    let source = Daemon::start(&source_dir, &[]).await;
    let (raft, _) = Raft::attach(&source.unix(), 1).await;
    // What does not compress: a table of the store over the limit.
    let noise = |key: u32| {
        (0..1 << 17)
            .map(|n: u32| {
                format!("{:08x}", crc32c::crc32c(&[n, key].map(u32::to_le_bytes).concat()))
            })
            .collect::<Vec<_>>()
            .concat()
    };
    for key in 0..2 {
        let put = format!("PUT key-{key} {}", &noise(key)[..1_000_000]);
        raft.apply(u64::from(key) + 1, &[&put]).await;
    }
    let (info, pieces) = raft.snapshot().await;

    let data_dir = TempDir::new().unwrap();
    let daemon = Daemon::start(&data_dir, &[]).await;
    let (raft, _) = Raft::attach(&daemon.unix(), 1).await;
    raft.apply(1, &["PUT k old"]).await;
    assert!(daemon.terminate().await.success());
    let daemon = Daemon::start_with_small_files(&data_dir, &[]).await;
    let (raft, _) = Raft::attach(&daemon.unix(), 1).await;
    for _ in 0..2 {
        let error = raft.restore(&info, pieces.clone()).await.unwrap_err();
        let RestoreError::NoPlace { reason } = &error else { panic!("{error}") };
        assert!(reason.starts_with("storage failed while"), "{reason}");
        assert_eq!(raft.get("k").await.as_deref(), Some("old"));
    }
    raft.apply(2, &["INCR n"]).await;
    assert!(daemon.terminate().await.success());

    let daemon = Daemon::start(&data_dir, &[]).await;
    let (raft, before) = Raft::attach(&daemon.unix(), 1).await;
    assert_eq!(before.applied_index, 2);
    assert_eq!(raft.get("n").await.as_deref(), Some("1"));
    assert_eq!(raft.restore(&info, pieces).await.unwrap().applied_index, 2);
    assert_eq!((raft.get("k").await, raft.get("n").await), (None, None));
}
