//! What is taken comes back, whatever its sizes and however it is cut.

use std::path::Path;
use std::sync::Arc;

use raft::consensus::{NodeId, NodeInfo};
use raft::snapshot::{MAX_IMAGE_BYTES, PIECE_BYTES, SnapshotError, Store};
use raft::wal::RealDisk;

use crate::model::{CLUSTER, content, open, read, small, take, take_in};
use crate::simulated_disk::SimulatedDisk;

#[test]
fn a_snapshot_of_any_size_cut_anywhere_comes_back() {
    let sizes = [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES];
    for image_bytes in sizes {
        for machine_bytes in sizes {
            for piece_bytes in [1000, PIECE_BYTES, usize::MAX] {
                let store = open(&SimulatedDisk::new());
                let content = content(5, image_bytes, machine_bytes);
                let description = take_in(&store, &content, piece_bytes).unwrap();
                assert_eq!(store.newest(), Some(description.clone()));
                assert_eq!(read(&store, &description).unwrap(), content);
            }
        }
    }
}

#[test]
fn it_is_there_after_a_restart_and_pieces_stay_small() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft/snapshots");
    let open = |path: &Path| Store::open(Arc::new(RealDisk), path, Some(CLUSTER), 2).unwrap().0;
    let content = content(5, 1000, 9 << 20);
    let description = take(&open(&path), &content).unwrap();
    let store = open(&path);
    assert_eq!(store.newest(), Some(description.clone()));
    assert_eq!(read(&store, &description).unwrap(), content);
    let mut reader = store.machine_bytes(&description).unwrap();
    while let Some(piece) = reader.next_piece().unwrap() {
        assert!((1..=PIECE_BYTES).contains(&piece.len()));
    }
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn the_newest_few_are_kept_and_a_reader_of_an_older_one_goes_on() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let first = take(&store, &content(1, 10, 3 * PIECE_BYTES)).unwrap();
    let mut reader = store.machine_bytes(&first).unwrap();
    let raw = store.raw(&first).unwrap();
    let mut machine = reader.next_piece().unwrap().unwrap().to_vec();
    let later: Vec<_> = (2..=4).map(|index| take(&store, &small(index)).unwrap()).collect();
    assert_eq!(store.all(), later[1..]);
    assert_eq!(disk.files(".snapshot").len(), 2);
    while let Some(piece) = reader.next_piece().unwrap() {
        machine.extend_from_slice(&piece);
    }
    assert_eq!(machine, content(1, 10, 3 * PIECE_BYTES).machine);
    assert_eq!(raw.read_at(0, usize::MAX).unwrap().len() as u64, first.bytes);
    assert!(matches!(store.image(&first), Err(SnapshotError::Gone { id }) if id == first.id));
}

#[test]
fn one_that_is_older_than_those_that_are_kept_does_not_take_their_place() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let kept: Vec<_> = (5..=6).map(|index| take(&store, &small(index)).unwrap()).collect();
    let older = take(&store, &small(3)).unwrap();
    assert_eq!(store.all(), kept);
    assert_eq!(disk.files("").len(), 2);
    assert!(matches!(store.image(&older), Err(SnapshotError::Gone { .. })));
}

#[test]
fn another_one_up_to_the_same_entry_takes_the_place_of_the_first() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let first = take(&store, &small(1)).unwrap();
    let second = take(&store, &small(1)).unwrap();
    assert_ne!(first.id, second.id);
    assert_eq!(store.all(), [second]);
    assert!(matches!(store.raw(&first), Err(SnapshotError::Gone { .. })));
}

#[test]
fn one_is_taken_at_a_time_and_what_is_dropped_leaves_nothing() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let mut taking = store.take(&small(1).meta, CLUSTER, b"sessions").unwrap();
    taking.push(&[1; 1000]).unwrap();
    let busy = store.take(&small(2).meta, CLUSTER, b"");
    assert!(matches!(busy, Err(SnapshotError::Busy { .. })));
    assert_eq!(store.newest(), None, "what is being taken is not to be seen");
    drop(taking);
    assert!(disk.files("").is_empty());
    take(&store, &small(2)).unwrap();
}

#[test]
fn what_nobody_could_receive_is_not_taken() {
    let disk = SimulatedDisk::new();
    let image = vec![0; usize::try_from(MAX_IMAGE_BYTES).unwrap() + 1];
    let refused = open(&disk).take(&small(1).meta, CLUSTER, &image);
    assert!(matches!(refused, Err(SnapshotError::TooLong { part: "the session table", .. })));
    let mut meta = small(1).meta;
    let info = NodeInfo { name: "n".repeat(1 << 20), ..NodeInfo::default() };
    meta.membership.nodes.insert(NodeId(7), info);
    let refused = open(&disk).take(&meta, CLUSTER, b"");
    assert!(matches!(refused, Err(SnapshotError::TooLong { part: "the head", .. })));
    assert!(disk.files("").is_empty());
}

#[test]
fn the_file_is_read_as_it_is() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let description = take(&store, &small(1)).unwrap();
    let raw = store.raw(&description).unwrap();
    let (_, file) = disk.files(".snapshot").pop().unwrap();
    for offset in 0..=file.len() {
        let end = file.len().min(offset + 7);
        assert_eq!(raw.read_at(offset as u64, 7).unwrap(), file[offset..end]);
    }
    assert_eq!(raw.read_at(u64::MAX, 7).unwrap(), b""[..]);
}
