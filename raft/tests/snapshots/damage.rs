//! Files that are not as they were written: found with their name and the place, and never used.

use std::path::Path;
use std::sync::Arc;

use raft::snapshot::{PIECE_BYTES, SnapshotError, Store};
use raft::wal::Disk;

use crate::model::{
    CLUSTER, DIR, END_BYTES, content, damage_of, disk_with, frame_of, frame_starts, open, read,
    reseal, small, take, try_open,
};
use crate::simulated_disk::SimulatedDisk;

/// Where the damage of the only file is found: when the store is opened, or when the file is read.
#[track_caller]
fn found_at(disk: &Arc<SimulatedDisk>, path: &Path) -> u64 {
    let (store, mut damages) = try_open(disk).unwrap();
    let damage = match store.newest() {
        Some(description) => damage_of(read(&store, &description)),
        None => damages.pop().expect("it is said why there is none"),
    };
    assert_eq!(damage.file, path);
    damage.offset
}

#[test]
fn every_flipped_bit_is_found_in_its_frame() {
    let (disk, _, path, file) = disk_with(&small(1));
    let starts = frame_starts(&file);
    assert_eq!(starts.len(), 4);
    for bit in 0..file.len() * 8 {
        let disk = disk.copy();
        disk.flip(&path, bit);
        assert_eq!(found_at(&disk, &path), frame_of(&starts, bit / 8), "bit {bit}");
    }
}

#[test]
fn every_cut_and_everything_behind_the_end_is_found() {
    let (disk, _, path, file) = disk_with(&small(1));
    for length in 0..file.len() {
        let disk = disk.copy();
        disk.overwrite(&path, file[..length].to_vec());
        let offset = found_at(&disk, &path);
        assert!(offset <= length as u64, "cut at {length}, found at {offset}");
    }
    for more in [1, END_BYTES, 1000] {
        let disk = disk.copy();
        disk.overwrite(&path, [&file[..], &vec![0; more]].concat());
        found_at(&disk, &path);
    }
}

#[test]
fn a_frame_of_another_file_or_of_another_place_is_found() {
    let content = |index| content(index, 10, 3 * PIECE_BYTES);
    let (disk, _, path, file) = disk_with(&content(1));
    let (_, _, _, other) = disk_with(&content(2));
    let starts = frame_starts(&file);
    assert_eq!(starts, frame_starts(&other));
    let frame = |file: &[u8], number: usize| file[starts[number]..starts[number + 1]].to_vec();
    // Frames 2, 3 and 4 are the machine's, all of the same length.
    let mut mixed = file.clone();
    mixed[starts[3]..starts[4]].copy_from_slice(&frame(&other, 3));
    let mut swapped = file.clone();
    swapped[starts[3]..starts[4]].copy_from_slice(&frame(&file, 2));
    let lost = [&file[..starts[3]], &file[starts[4]..]].concat();
    let repeated = [&file[..starts[3]], &frame(&file, 2), &file[starts[3]..]].concat();
    for (wrong, what) in [(mixed, "mixed"), (swapped, "swapped")] {
        disk.overwrite(&path, wrong);
        assert_eq!(found_at(&disk.copy(), &path), starts[3] as u64, "{what}");
    }
    for wrong in [lost, repeated] {
        disk.overwrite(&path, wrong);
        found_at(&disk.copy(), &path);
    }
}

#[test]
fn a_damaged_newest_one_is_set_aside_and_the_older_one_counts() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let older = take(&store, &small(1)).unwrap();
    take(&store, &small(2)).unwrap();
    let (path, file) = disk.files(".snapshot").pop().unwrap();
    disk.flip(&path, (file.len() - 1) * 8);
    for damages in [1, 0] {
        let (store, found) = try_open(&disk).unwrap();
        assert_eq!(found.len(), damages, "it is said once");
        assert!(found.iter().all(|damage| damage.file == path));
        assert_eq!(store.newest(), Some(older.clone()));
        assert_eq!(read(&store, &older).unwrap(), small(1));
        assert_eq!(disk.files(".damaged").len(), 1, "it is kept for whoever looks into it");
    }
    let store = open(&disk);
    take(&store, &small(3)).unwrap();
    assert_eq!(disk.files(".damaged").len(), 1);
    take(&store, &small(4)).unwrap();
    assert!(disk.files(".damaged").is_empty(), "it goes with those of its time");
}

#[test]
fn damage_that_is_found_later_is_set_aside_by_its_finder() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let older = take(&store, &small(1)).unwrap();
    let newer = take(&store, &small(2)).unwrap();
    let (path, file) = disk.files(".snapshot").pop().unwrap();
    disk.flip(&path, frame_starts(&file)[2] * 8);
    let damage = damage_of(read(&store, &newer));
    store.set_aside(&newer, &damage).unwrap();
    assert_eq!(store.newest(), Some(older.clone()));
    store.set_aside(&newer, &damage).unwrap();
    assert_eq!(open(&disk).newest(), Some(older));
}

#[test]
fn a_file_under_the_name_of_another_is_set_aside() {
    let (disk, _, path, file) = disk_with(&small(1));
    let wrong = path.with_file_name("0000000000000002-0000000000000003.snapshot");
    disk.overwrite(&wrong, file);
    let (store, damages) = try_open(&disk).unwrap();
    assert_eq!(damages.len(), 1);
    assert_eq!(damages[0].file, wrong);
    assert_eq!(store.newest().unwrap().meta, small(1).meta);
}

#[test]
fn a_snapshot_of_another_cluster_is_refused_and_untouched() {
    let (disk, _, path, file) = disk_with(&small(1));
    let open = |cluster| {
        let disk: Arc<dyn Disk> = Arc::<SimulatedDisk>::clone(&disk);
        Store::open(disk, Path::new(DIR), cluster, 2)
    };
    let Err(SnapshotError::Foreign { file: named, found, expected }) = open(Some(8)) else {
        panic!("it was not noticed")
    };
    assert_eq!((named, found, expected), (path.clone(), CLUSTER, 8));
    assert_eq!(disk.files(""), [(path, file)]);
    assert!(
        open(None).unwrap().0.newest().is_some(),
        "a node that knows no cluster yet cannot tell"
    );
}

#[test]
fn a_version_from_the_future_is_refused_and_untouched() {
    let (disk, _, path, mut file) = disk_with(&small(1));
    file[17] = 2;
    reseal(&mut file, 0);
    disk.overwrite(&path, file.clone());
    let Err(SnapshotError::UnknownVersion { file: named, found, .. }) = try_open(&disk) else {
        panic!("it was not noticed")
    };
    assert_eq!((named, found), (path.clone(), 2));
    assert_eq!(disk.files(""), [(path, file)]);
}

#[test]
fn a_file_of_something_else_is_damage() {
    let disk = SimulatedDisk::new();
    let path = Path::new(DIR).join("0000000000000002-0000000000000003.snapshot");
    for bytes in [Vec::new(), vec![0; 5000], vec![0xff; 5000], b"PUT a b\n".repeat(100)] {
        disk.overwrite(&path, bytes);
        assert_eq!(found_at(&disk.copy(), &path), 0);
    }
}
