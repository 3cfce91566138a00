//! The receiving end, with files that a store made, and no network.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Receiver;
use crate::consensus::{Index, LogId, Membership, NodeId, NodeInfo, SnapshotMeta, Term};
use crate::identity::DataDir;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::pipeline::digest_entries::EntriesEvent;
use crate::rpc::peer::{SnapshotOffer, SnapshotPiece, SnapshotRefusal};
use crate::session::Sessions;
use crate::shelf::Shelf;
use crate::snapshot::{Description, Store};
use crate::wal::RealDisk;

const CLUSTER: u128 = 7;
const LEADER: NodeId = NodeId(1);
const PIECE_BYTES: usize = 64 << 10;

fn store(dir: &Path) -> Store {
    Store::open(Arc::new(RealDisk), dir, Some(CLUSTER), 2).unwrap().0
}

/// A leader's file up to `index`, with a session table of an entry beyond it.
fn take(store: &Store, index: u64) -> (Description, Vec<u8>) {
    let last = LogId::new(Term(2), Index(index));
    let nodes = [(LEADER, NodeInfo::default())].into();
    let membership = Membership { voters: [LEADER].into(), nodes, ..Membership::default() };
    let meta = SnapshotMeta { last, membership, membership_index: Index(1) };
    let image = Sessions::default().image(Index(index + 3), BTreeSet::new());
    let mut taking = store.take(&meta, CLUSTER, &image.encode()).unwrap();
    taking.push(&vec![0xAB; 300_000]).unwrap();
    let taken = taking.finish().unwrap();
    let file = store.raw(&taken).unwrap();
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < taken.bytes {
        bytes.extend(file.read_at(bytes.len() as u64, PIECE_BYTES).unwrap());
    }
    (taken, bytes)
}

fn offer(of: &Description, term: u64) -> SnapshotOffer {
    SnapshotOffer { term: Term(term), id: of.id.0, meta: of.meta.clone(), bytes: of.bytes }
}

/// The piece of a file that starts at `offset`.
fn piece(of: &Description, file: &[u8], term: u64, offset: usize) -> SnapshotPiece {
    let end = file.len().min(offset + PIECE_BYTES);
    let bytes = Bytes::copy_from_slice(&file[offset..end]);
    SnapshotPiece { term: Term(term), id: of.id.0, offset: offset as u64, bytes }
}

/// A node that receives, and what its first stage hears.
struct Follower {
    receiver: Receiver,
    heard: mpsc::Receiver<EntriesEvent>,
    dir: tempfile::TempDir,
}

impl Follower {
    fn new() -> Self {
        Self::in_directory(tempfile::tempdir().unwrap())
    }

    fn in_directory(dir: tempfile::TempDir) -> Self {
        let data_dir = DataDir::open(&dir.path().join("raft")).unwrap();
        let address = || "127.0.0.1:1".to_owned();
        let node = Arc::new(Node::new(data_dir, "test".to_owned(), address(), address()));
        node.adopt_cluster(CLUSTER).unwrap();
        let (failed, _failures) = mpsc::channel(1);
        let (inbox, heard) = mpsc::channel(8);
        let shelf = Shelf::new(store(&dir.path().join("snapshots")), failed);
        let metrics = Arc::<Metrics>::default();
        let receiver = Receiver::new(shelf, node, inbox, metrics);
        Self { receiver, heard, dir }
    }

    /// Its process ends and starts again.
    fn restart(self) -> Self {
        let Self { receiver, heard, dir } = self;
        drop((receiver, heard));
        Self::in_directory(dir)
    }

    /// Takes pieces from `have` on until `until`; how much is there then.
    async fn write(&self, of: &Description, file: &[u8], mut have: u64, until: u64) -> u64 {
        while have < until {
            let next = piece(of, file, 2, usize::try_from(have).unwrap());
            have = self.receiver.write(LEADER, next).await.unwrap();
        }
        have
    }

    fn received(&mut self) -> SnapshotMeta {
        let Ok(EntriesEvent::SnapshotReceived { meta, image }) = self.heard.try_recv() else {
            panic!("the first stage hears of the snapshot");
        };
        assert!(image.covers(&meta));
        meta
    }
}

/// Found by the simulated worlds: all had arrived, nobody finished it, and it was offered again and again.
#[tokio::test]
async fn a_transfer_that_ended_between_its_last_piece_and_its_name_is_finished_when_it_is_offered_again()
 {
    let leader = tempfile::tempdir().unwrap();
    let (taken, file) = take(&store(leader.path()), 9);
    let mut follower = Follower::new();
    let mut part = follower.receiver.shelf().store().receive(&taken, CLUSTER).unwrap();
    assert_eq!(part.push(0, &file).unwrap(), taken.bytes);
    drop(part);
    follower = follower.restart();
    assert_eq!(follower.receiver.offer(LEADER, offer(&taken, 2)).await, Ok(taken.bytes));
    assert_eq!(follower.received(), taken.meta);
    assert_eq!(follower.receiver.shelf().store().newest(), Some(taken));
}

#[tokio::test]
async fn a_transfer_goes_on_where_it_broke_off_also_after_a_restart() {
    let leader = tempfile::tempdir().unwrap();
    let (taken, file) = take(&store(leader.path()), 9);
    let mut follower = Follower::new();
    assert_eq!(follower.receiver.offer(LEADER, offer(&taken, 2)).await, Ok(0));
    let have = follower.write(&taken, &file, 0, 2 * PIECE_BYTES as u64).await;
    assert_eq!(
        follower.receiver.offer(LEADER, offer(&taken, 2)).await.map(|at| at <= have),
        Ok(true)
    );
    follower = follower.restart();
    let have = follower.receiver.offer(LEADER, offer(&taken, 2)).await.unwrap();
    assert!(have > 0, "whole frames that had arrived are still there");
    assert_eq!(follower.write(&taken, &file, have, taken.bytes).await, taken.bytes);
    assert_eq!(follower.received(), taken.meta);
    // The leader did not hear of it.
    assert_eq!(follower.receiver.offer(LEADER, offer(&taken, 2)).await, Ok(taken.bytes));
    assert_eq!(follower.received(), taken.meta);
}

#[tokio::test]
async fn pieces_that_are_repeated_lost_or_of_another_transfer_do_no_harm() {
    let leader = tempfile::tempdir().unwrap();
    let (taken, file) = take(&store(leader.path()), 9);
    let mut follower = Follower::new();
    let first = piece(&taken, &file, 2, 0);
    let early = follower.receiver.write(LEADER, first.clone()).await;
    assert_eq!(early, Err(SnapshotRefusal::Superseded), "nothing was offered");
    follower.receiver.offer(LEADER, offer(&taken, 2)).await.unwrap();
    let have = follower.receiver.write(LEADER, first.clone()).await.unwrap();
    assert_eq!(follower.receiver.write(LEADER, first.clone()).await, Ok(have), "repeated");
    let far = piece(&taken, &file, 2, 3 * PIECE_BYTES);
    let lost = SnapshotRefusal::WrongOffset { have, got: far.offset };
    assert_eq!(follower.receiver.write(LEADER, far).await, Err(lost));
    for (from, term) in [(NodeId(3), 2), (LEADER, 1)] {
        let foreign = follower.receiver.write(from, piece(&taken, &file, term, PIECE_BYTES)).await;
        assert_eq!(foreign, Err(SnapshotRefusal::Superseded), "from {from} in term {term}");
    }
    assert_eq!(follower.write(&taken, &file, have, taken.bytes).await, taken.bytes);
    assert_eq!(follower.received(), taken.meta);
}

#[tokio::test]
async fn a_newer_leader_takes_over_and_an_older_one_does_not() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old, old_file) = take(&store(one.path()), 9);
    let (new, new_file) = take(&store(two.path()), 9);
    let mut follower = Follower::new();
    follower.receiver.offer(LEADER, offer(&old, 2)).await.unwrap();
    follower.write(&old, &old_file, 0, PIECE_BYTES as u64).await;
    let newer = NodeId(2);
    let begun = follower.receiver.offer(newer, offer(&new, 3)).await;
    assert_eq!(begun, Ok(0), "what is there is of another file");
    let late = follower.receiver.write(LEADER, piece(&old, &old_file, 2, PIECE_BYTES)).await;
    assert_eq!(late, Err(SnapshotRefusal::Superseded));
    let late = follower.receiver.offer(LEADER, offer(&old, 2)).await;
    assert_eq!(late, Err(SnapshotRefusal::Superseded));
    let mut have = 0;
    while have < new.bytes {
        let next = piece(&new, &new_file, 3, usize::try_from(have).unwrap());
        have = follower.receiver.write(newer, next).await.unwrap();
    }
    assert_eq!(follower.received(), new.meta);
}

#[tokio::test]
async fn what_was_changed_on_the_way_is_thrown_away_and_can_be_sent_again() {
    let leader = tempfile::tempdir().unwrap();
    let (taken, file) = take(&store(leader.path()), 9);
    let mut damaged = file.clone();
    damaged[100_000] ^= 1;
    let mut follower = Follower::new();
    let mut have = follower.receiver.offer(LEADER, offer(&taken, 2)).await.unwrap();
    let refused = loop {
        let next = piece(&taken, &damaged, 2, usize::try_from(have).unwrap());
        match follower.receiver.write(LEADER, next).await {
            Ok(now) => have = now,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, SnapshotRefusal::Bad { .. }), "{refused}");
    assert_eq!(follower.receiver.offer(LEADER, offer(&taken, 2)).await, Ok(0));
    assert_eq!(follower.write(&taken, &file, 0, taken.bytes).await, taken.bytes);
    assert_eq!(follower.received(), taken.meta);
}

#[tokio::test]
async fn an_older_snapshot_than_ours_is_not_taken_in() {
    let leader = tempfile::tempdir().unwrap();
    let store = store(leader.path());
    let ((old, _), (new, file)) = (take(&store, 9), take(&store, 20));
    let mut follower = Follower::new();
    follower.receiver.offer(LEADER, offer(&new, 2)).await.unwrap();
    follower.write(&new, &file, 0, new.bytes).await;
    assert_eq!(follower.received(), new.meta);
    assert_eq!(follower.receiver.offer(LEADER, offer(&old, 2)).await, Ok(old.bytes));
    assert_eq!(follower.received(), new.meta, "the core hears of what is here");
}
