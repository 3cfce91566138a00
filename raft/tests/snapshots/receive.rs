//! Transfers that are cut, repeated, mixed up, or not what was offered.

use std::sync::Arc;

use raft::snapshot::{Description, PIECE_BYTES, SPARE_BYTES, SnapshotError, SnapshotId, Store};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::model::{
    CLUSTER, DIR, content, damage_of, disk_with, frame_of, frame_starts, open, read, reseal, small,
    take,
};
use crate::simulated_disk::SimulatedDisk;

/// Sends the rest of a file in chunks of this many bytes, from where the receiver is.
fn send(
    store: &Store,
    offered: &Description,
    file: &[u8],
    chunk_bytes: usize,
) -> Result<Description, SnapshotError> {
    let mut receiving = store.receive(offered, CLUSTER)?;
    while let Some(rest) = file.get(usize::try_from(receiving.offset()).unwrap()..) {
        let Some(chunk) = rest.chunks(chunk_bytes).next() else { break };
        let offset = receiving.offset();
        assert_eq!(receiving.push(offset, chunk)?, offset + chunk.len() as u64);
    }
    receiving.finish()
}

fn files(disk: &SimulatedDisk) -> Vec<Vec<u8>> {
    disk.files("").into_iter().map(|(_, bytes)| bytes).collect()
}

/// Nothing has come of a transfer: no file, no part, nothing listed, and the next one works.
fn nothing_is_left(disk: &Arc<SimulatedDisk>, store: &Store) {
    assert!(disk.files("").is_empty());
    assert_eq!(store.newest(), None);
    let (_, offered, _, file) = disk_with(&small(1));
    send(store, &offered, &file, 1000).unwrap();
}

#[test]
fn a_snapshot_arrives_as_it_was_in_chunks_of_any_length() {
    let content = content(5, 1000, 2 * PIECE_BYTES + 1);
    let (_, offered, _, file) = disk_with(&content);
    for chunk_bytes in [7, 1000, PIECE_BYTES, 400_000, usize::MAX] {
        let disk = SimulatedDisk::new();
        let store = open(&disk);
        assert_eq!(send(&store, &offered, &file, chunk_bytes).unwrap(), offered);
        assert_eq!(store.newest(), Some(offered.clone()));
        assert_eq!(read(&store, &offered).unwrap(), content);
        assert_eq!(files(&disk), [&file[..]]);
        assert_eq!(open(&disk.power_cut(|| false)).newest(), Some(offered.clone()));
    }
}

#[test]
fn a_repeated_a_lost_and_an_early_chunk_change_nothing() {
    let (_, offered, _, file) = disk_with(&small(1));
    let store = open(&SimulatedDisk::new());
    let mut receiving = store.receive(&offered, CLUSTER).unwrap();
    assert_eq!(receiving.push(0, &file[..50]).unwrap(), 50);
    assert_eq!(receiving.push(0, &file[..50]).unwrap(), 50, "repeated");
    assert_eq!(receiving.push(20, &file[20..90]).unwrap(), 50, "overlapping");
    assert_eq!(receiving.push(60, &file[60..]).unwrap(), 50, "the one before is lost");
    assert_eq!(receiving.push(u64::MAX, &file).unwrap(), 50);
    assert_eq!(receiving.push(50, &[]).unwrap(), 50);
    let length = offered.bytes;
    assert_eq!(receiving.push(50, &file[50..]).unwrap(), length);
    assert_eq!(receiving.push(50, &file[50..]).unwrap(), length, "repeated after the end");
    assert_eq!(receiving.finish().unwrap(), offered);
}

#[test]
fn a_transfer_that_was_cut_at_any_byte_goes_on_from_the_last_whole_frame() {
    let (_, offered, _, file) = disk_with(&small(1));
    let starts = frame_starts(&file);
    for cut in 0..=file.len() {
        for restarts in [false, true] {
            let disk = SimulatedDisk::new();
            let mut store = open(&disk);
            let mut receiving = store.receive(&offered, CLUSTER).unwrap();
            receiving.push(0, &file[..cut]).unwrap();
            drop(receiving);
            assert_eq!(store.newest(), None, "a part is no snapshot");
            if restarts {
                store = open(&disk);
            }
            let whole = if cut == file.len() { cut as u64 } else { frame_of(&starts, cut) };
            let receiving = store.receive(&offered, CLUSTER).unwrap();
            assert_eq!(receiving.offset(), whole, "cut at {cut}");
            drop(receiving);
            assert_eq!(send(&store, &offered, &file, 11).unwrap(), offered);
            assert_eq!(files(&disk), [&file[..]]);
        }
    }
}

#[test]
fn a_transfer_goes_on_after_a_power_cut_whatever_is_left_of_it() {
    let (_, offered, _, file) = disk_with(&content(1, 700, 3000));
    for seed in 0..40 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let disk = SimulatedDisk::new();
        let store = open(&disk);
        let mut receiving = store.receive(&offered, CLUSTER).unwrap();
        receiving.push(0, &file[..rng.random_range(0..=file.len())]).unwrap();
        let disk = disk.power_cut(|| rng.random_bool(0.7));
        let store = open(&disk);
        assert_eq!(store.newest(), None);
        send(&store, &offered, &file, 500).unwrap();
        assert_eq!(files(&disk), [&file[..]], "seed {seed}");
    }
}

#[test]
fn garbage_at_the_end_of_a_part_is_cut_off() {
    let (_, offered, _, file) = disk_with(&small(1));
    let starts = frame_starts(&file);
    let disk = SimulatedDisk::new();
    drop(open(&disk).receive(&offered, CLUSTER).unwrap());
    let (part, _) = disk.files(".part").pop().unwrap();
    for garbage in [vec![0; 1000], vec![0xff; 1000], file.clone(), file[starts[1]..].to_vec()] {
        for whole in starts.iter().copied().chain([file.len()]) {
            let disk = disk.copy();
            disk.overwrite(&part, [&file[..whole], &garbage].concat());
            let store = open(&disk);
            let receiving = store.receive(&offered, CLUSTER).unwrap();
            // What looks like the next frame may be it.
            let is_it = whole == starts[1] && garbage == file[starts[1]..];
            let expected =
                if is_it || (whole == 0 && garbage == file) { file.len() } else { whole };
            assert_eq!(receiving.offset(), expected as u64);
            drop(receiving);
            send(&store, &offered, &file, 1000).unwrap();
            assert_eq!(files(&disk), [&file[..]]);
        }
    }
}

#[test]
fn another_snapshot_starts_over() {
    let (_, first, _, first_file) = disk_with(&small(1));
    let (_, second, _, second_file) = disk_with(&small(1));
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    for _ in 0..2 {
        store.receive(&first, CLUSTER).unwrap().push(0, &first_file[..100]).unwrap();
        assert_eq!(store.receive(&second, CLUSTER).unwrap().offset(), 0);
    }
    // What was offered under the same id is another thing.
    store.receive(&first, CLUSTER).unwrap().push(0, &first_file[..100]).unwrap();
    let other = Description { meta: small(2).meta, ..first.clone() };
    assert_eq!(store.receive(&other, CLUSTER).unwrap().offset(), 0);
    send(&store, &second, &second_file, 30).unwrap();
    assert_eq!(files(&disk), [second_file]);
}

#[test]
fn what_has_no_room_is_refused_at_its_offer_and_what_has_arrived_of_it_stays() {
    let (_, offered, _, file) = disk_with(&small(1));
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let half = file.len() / 2;
    let mut receiving = store.receive(&offered, CLUSTER).unwrap();
    receiving.push(0, &file[..half]).unwrap();
    drop(receiving);
    let whole = store.receive(&offered, CLUSTER).unwrap().offset();
    assert!(whole > 0, "something has arrived");
    let enough = SPARE_BYTES + offered.bytes - whole;
    for free in [0, SPARE_BYTES, enough - 1] {
        disk.set_free(Some(free));
        match store.receive(&offered, CLUSTER) {
            Err(error @ SnapshotError::NoRoom { .. }) => {
                let said = error.to_string();
                let (rest, free) = ((offered.bytes - whole).to_string(), free.to_string());
                assert!(said.contains(&rest) && said.contains(&free), "{said}");
                assert!(said.contains(DIR), "{said}");
            }
            other => panic!("{free} bytes free: {:?}", other.map(|receiving| receiving.offset())),
        }
    }
    disk.set_free(Some(enough));
    assert_eq!(store.receive(&offered, CLUSTER).unwrap().offset(), whole);
    assert_eq!(send(&store, &offered, &file, 11).unwrap(), offered);
    assert_eq!(files(&disk), [&file[..]]);
}

#[test]
fn every_flipped_bit_ends_the_transfer_with_its_place() {
    let (_, offered, _, file) = disk_with(&small(1));
    let starts = frame_starts(&file);
    for bit in 0..file.len() * 8 {
        let mut wrong = file.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let disk = SimulatedDisk::new();
        let store = open(&disk);
        let damage = damage_of(send(&store, &offered, &wrong, 13));
        assert_eq!(damage.offset, frame_of(&starts, bit / 8), "bit {bit}");
        assert!(damage.file.ends_with("incoming.part"));
        nothing_is_left(&disk, &store);
    }
}

#[test]
fn what_was_not_offered_is_refused_and_removed() {
    let (_, offered, _, file) = disk_with(&small(1));
    let mut other_id = offered.clone();
    other_id.id = SnapshotId(offered.id.0 ^ 1);
    let other_meta = Description { meta: small(2).meta, ..offered.clone() };
    let longer = Description { bytes: offered.bytes + 1, ..offered.clone() };
    for wrong in [other_id, other_meta, longer] {
        let disk = SimulatedDisk::new();
        let store = open(&disk);
        let outcome = send(&store, &wrong, &file, 1000);
        assert!(matches!(outcome, Err(SnapshotError::Mismatch { .. })), "{wrong:?}: {outcome:?}");
        nothing_is_left(&disk, &store);
    }
}

#[test]
fn a_foreign_cluster_and_a_version_from_the_future_are_refused_by_their_names() {
    let (_, offered, _, file) = disk_with(&small(1));
    let (mut foreign, mut future) = (file.clone(), file);
    foreign[37] ^= 1;
    future[17] = 2;
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    reseal(&mut foreign, 0);
    reseal(&mut future, 0);
    let outcome = send(&store, &offered, &foreign, 1000);
    assert!(
        matches!(outcome, Err(SnapshotError::Foreign { expected: CLUSTER, .. })),
        "{outcome:?}"
    );
    nothing_is_left(&disk.copy(), &open(&disk.copy()));
    let outcome = send(&store, &offered, &future, 1000);
    assert!(matches!(outcome, Err(SnapshotError::UnknownVersion { found: 2, .. })), "{outcome:?}");
    nothing_is_left(&disk, &store);
}

#[test]
fn bytes_behind_the_end_and_frames_without_end_are_refused() {
    let (_, offered, _, file) = disk_with(&small(1));
    let mut endless = file.clone();
    endless[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    for wrong in [[&file[..], &[0; 10]].concat(), endless] {
        let disk = SimulatedDisk::new();
        let store = open(&disk);
        let mut receiving = store.receive(&offered, CLUSTER).unwrap();
        damage_of(receiving.push(0, &wrong));
        assert!(matches!(receiving.push(0, &file), Err(SnapshotError::GivenUp)));
        assert!(matches!(receiving.finish(), Err(SnapshotError::GivenUp)));
        nothing_is_left(&disk, &store);
    }
}

#[test]
fn a_file_longer_than_offered_and_an_end_that_cannot_come_are_refused() {
    let (_, offered, _, file) = disk_with(&small(1));
    let starts = frame_starts(&file);
    for bytes in 0..offered.bytes {
        let disk = SimulatedDisk::new();
        let store = open(&disk);
        let shorter = Description { bytes, ..offered.clone() };
        let outcome = send(&store, &shorter, &file[..usize::try_from(bytes).unwrap()], 1000);
        assert!(
            matches!(outcome, Err(SnapshotError::Mismatch { .. } | SnapshotError::Damaged(_))),
            "{bytes}: {outcome:?}"
        );
        nothing_is_left(&disk, &store);
        let outcome = send(&store, &shorter, &file, starts[1]);
        assert!(
            matches!(outcome, Err(SnapshotError::Mismatch { .. } | SnapshotError::Damaged(_))),
            "{bytes}: {outcome:?}"
        );
    }
}

#[test]
fn an_end_that_has_not_arrived_is_awaited() {
    let (_, offered, _, file) = disk_with(&small(1));
    let store = open(&SimulatedDisk::new());
    let mut receiving = store.receive(&offered, CLUSTER).unwrap();
    let busy = store.receive(&offered, CLUSTER);
    assert!(matches!(busy, Err(SnapshotError::Busy { .. })));
    receiving.push(0, &file[..100]).unwrap();
    let outcome = receiving.finish();
    assert!(matches!(outcome, Err(SnapshotError::Incomplete { have: 100, .. })), "{outcome:?}");
    send(&store, &offered, &file, 1000).unwrap();
}

#[test]
fn one_can_be_taken_while_another_arrives() {
    let (_, offered, _, file) = disk_with(&small(9));
    let store = open(&SimulatedDisk::new());
    let mut receiving = store.receive(&offered, CLUSTER).unwrap();
    receiving.push(0, &file[..100]).unwrap();
    let own = take(&store, &small(3)).unwrap();
    receiving.push(100, &file[100..]).unwrap();
    receiving.finish().unwrap();
    assert_eq!(store.all(), [own, offered]);
}
