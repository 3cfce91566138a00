//! What is refused at the door: other versions, other logs, other processes, bad options. And what is left alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::consensus::{Entry, Index, LogId, Payload, Persist, Term};
use raft::wal::{Disk, OpenError, Options, ReadError, Wal};

use crate::model::{DIR, open, options};
use crate::simulated_disk::{SECTOR_BYTES, SimulatedDisk};

fn entry(index: u64) -> Entry {
    let payload = Payload::Command(vec![3; 500].into());
    Entry { id: LogId::new(Term(1), Index(index)), payload }
}

fn log_of(disk: &Arc<SimulatedDisk>, entries: u64, seed: u64) {
    let (mut wal, _) = open(disk, seed).unwrap();
    for index in 1..=entries {
        wal.append(&[Persist { append: vec![entry(index)], ..Persist::default() }]).unwrap();
    }
}

/// As the format table says: CRC32C of the offset, then of all but the checksum itself.
pub(crate) fn reseal(block: &mut [u8], offset: u64) {
    let place = crc32c::crc32c(&offset.to_le_bytes());
    let sum = crc32c::crc32c_append(place, &block[4..SECTOR_BYTES]);
    block[..4].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn an_unknown_version_is_refused_and_untouched() {
    let disk = SimulatedDisk::new();
    log_of(&disk, 3, 0);
    let (path, mut bytes) = disk.files(".wal").pop().unwrap();
    // Block header 24, record kind 1, length 4, magic 8.
    let version = 24 + 5 + 8;
    assert_eq!(&bytes[version - 8..version], b"OUTRIGGR");
    assert_eq!(bytes[version..version + 4], 1_u32.to_le_bytes());
    bytes[version] = 2;
    reseal(&mut bytes, 0);
    disk.overwrite(&path, bytes);
    let (before, operations) = (disk.files(""), disk.operations());
    let error = open(&disk, 1).err().expect("version 2 is refused");
    assert!(matches!(error, OpenError::UnknownVersion { found: 2, supported: 1, .. }), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert_eq!((disk.files(""), disk.operations()), (before, operations));
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let (ours, theirs) = (SimulatedDisk::new(), SimulatedDisk::new());
    log_of(&ours, 30, 0);
    log_of(&theirs, 30, 999);
    let (path, bytes) = theirs.files(".wal").remove(1);
    ours.overwrite(&path, bytes);
    let error = open(&ours, 1).err().expect("a foreign segment");
    assert!(matches!(&error, OpenError::Foreign { file, .. } if *file == path), "{error}");
}

#[test]
fn a_segment_under_another_name_is_refused() {
    let disk = SimulatedDisk::new();
    log_of(&disk, 30, 0);
    let files = disk.files(".wal");
    disk.overwrite(&files[1].0, files[2].1.clone());
    let error = open(&disk, 1).err().expect("a misplaced segment");
    assert!(matches!(&error, OpenError::Damaged(damage) if damage.file == files[1].0), "{error}");
}

#[test]
fn a_segment_that_contradicts_the_one_before_it_is_refused() {
    let disk = SimulatedDisk::new();
    log_of(&disk, 30, 0);
    let (path, mut bytes) = disk.files(".wal").remove(1);
    // The state behind the version, the numbers of segment and log and the length: no base, term, no vote.
    let term = 24 + 5 + 32 + 1;
    assert_eq!(bytes[term - 1..term + 2], [0, 0, 0]);
    bytes[term] = 5;
    reseal(&mut bytes, 0);
    disk.overwrite(&path, bytes);
    let error = open(&disk, 1).err().expect("term 5 comes from nowhere");
    assert!(matches!(&error, OpenError::Damaged(damage) if damage.file == path), "{error}");
}

#[test]
fn other_files_are_left_alone_and_unfinished_ones_are_removed() {
    let disk = SimulatedDisk::new();
    log_of(&disk, 3, 0);
    let kept =
        ["notes.txt", "1.wal", "0000000g.wal", "00000001.wal.bak", "next-1.tmp.bak", "lost+found"];
    for name in kept {
        disk.overwrite(&Path::new(DIR).join(name), b"not ours".to_vec());
    }
    let unfinished = Path::new(DIR).join("next-7.tmp");
    disk.overwrite(&unfinished, vec![0; 100]);
    let (_, restored) = open(&disk, 1).unwrap();
    assert_eq!(restored.last.index, Index(3));
    let names: Vec<PathBuf> = disk.files("").into_iter().map(|(path, _)| path).collect();
    assert!(kept.iter().all(|name| names.contains(&Path::new(DIR).join(name))), "{names:?}");
    assert!(!names.contains(&unfinished));
}

#[test]
fn a_file_that_is_no_segment_is_refused() {
    for bytes in [Vec::new(), vec![0; 4096], b"hello".repeat(1000)] {
        let disk = SimulatedDisk::new();
        let path = Path::new(DIR).join("00000001.wal");
        disk.overwrite(&path, bytes.clone());
        let error = open(&disk, 1).err().expect("no segment");
        assert!(matches!(&error, OpenError::Damaged(damage) if damage.file == path), "{error}");
        assert_eq!(disk.files(".wal"), [(path, bytes)]);
    }
}

#[test]
fn a_directory_has_one_owner_at_a_time() {
    let disk = SimulatedDisk::new();
    let first = open(&disk, 0).unwrap();
    assert!(matches!(open(&disk, 1), Err(OpenError::Locked { .. })));
    drop(first);
    open(&disk, 2).unwrap();
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    for segment_bytes in [0, 512, 4095, 4097, (1 << 30) + 512] {
        let disk: Arc<dyn Disk> = SimulatedDisk::new();
        let error =
            Wal::open(disk, Path::new(DIR), Options { segment_bytes, ..options() }).err().unwrap();
        assert!(error.to_string().contains("segment_bytes"), "{error}");
    }
}

#[test]
fn reading_outside_the_log_says_where_it_starts_and_ends() {
    let disk = SimulatedDisk::new();
    log_of(&disk, 5, 0);
    let (mut wal, _) = open(&disk, 1).unwrap();
    let meta = raft::consensus::SnapshotMeta {
        last: LogId::new(Term(1), Index(2)),
        membership: raft::consensus::Membership::default(),
        membership_index: Index(0),
    };
    wal.compact(&meta).unwrap();
    for (from, to) in [(0, 4), (1, 4), (2, 2)] {
        let error = wal.read(Index(from), Index(to), 1).unwrap_err();
        assert!(matches!(error, ReadError::Compacted { first: Index(3) }), "{from} {to}: {error}");
    }
    for (from, to) in [(3, 6), (6, 6), (7, 9), (5, 4)] {
        let error = wal.read(Index(from), Index(to), 1).unwrap_err();
        assert!(matches!(error, ReadError::Beyond { last: Index(5) }), "{from} {to}: {error}");
    }
    assert_eq!(wal.read(Index(3), Index(5), 1).unwrap(), [entry(3)], "at least one entry");
    assert_eq!(wal.read(Index(3), Index(5), 2 * 596).unwrap(), [entry(3), entry(4)]);
    assert_eq!(wal.read(Index(3), Index(5), 3 * 596 - 1).unwrap(), [entry(3), entry(4)]);
}

#[test]
fn restarts_leave_no_files_behind() {
    let disk = SimulatedDisk::new();
    log_of(&disk, 20, 0);
    drop(open(&disk, 1).unwrap());
    let count = disk.files("").len();
    for seed in 2..30 {
        let (_, restored) = open(&disk, seed).unwrap();
        assert_eq!(restored.last.index, Index(20));
        assert_eq!(disk.files("").len(), count);
    }
}

#[test]
fn segments_whose_removal_was_lost_are_removed_by_the_next_open() {
    let disk = SimulatedDisk::new();
    log_of(&disk, 60, 0);
    let (mut wal, _) = open(&disk, 1).unwrap();
    let dropped = disk.files(".wal");
    let meta = raft::consensus::SnapshotMeta {
        last: LogId::new(Term(1), Index(50)),
        membership: raft::consensus::Membership::default(),
        membership_index: Index(0),
    };
    wal.compact(&meta).unwrap();
    drop(wal);
    let kept = disk.files(".wal");
    assert!(kept.len() + 3 < dropped.len());
    for (path, bytes) in &dropped[1..3] {
        disk.overwrite(path, bytes.clone());
    }
    let (_, restored) = open(&disk, 2).unwrap();
    assert_eq!((restored.base, restored.last.index), (Some(meta), Index(60)));
    let names = |files: Vec<(PathBuf, Vec<u8>)>| {
        files.into_iter().map(|(path, _)| path).collect::<Vec<_>>()
    };
    assert!(
        names(disk.files(".wal"))
            .iter()
            .all(|path| !dropped[1..3].iter().any(|(old, _)| old == path))
    );
}

#[test]
fn an_append_of_nothing_new_writes_nothing() {
    let disk = SimulatedDisk::new();
    log_of(&disk, 2, 0);
    let (mut wal, _) = open(&disk, 1).unwrap();
    let empty = |number, commit| Persist {
        batch: raft::consensus::BatchNo(number),
        commit_index: Index(commit),
        ..Persist::default()
    };
    wal.append(&[empty(1, 2)]).unwrap();
    let operations = disk.operations();
    let durable = wal.append(&[empty(2, 2), empty(3, 1)]).unwrap();
    assert_eq!((durable.batch.0, durable.last.index), (3, Index(2)));
    assert_eq!(disk.operations(), operations);
}
