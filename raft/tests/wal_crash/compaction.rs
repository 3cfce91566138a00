//! Where a log begins: files go as soon as, and only when, all that they hold is below that.

use std::sync::Arc;

use raft::consensus::{
    BatchNo, Entry, Index, LogId, Membership, Payload, Persist, SnapshotMeta, Term,
};
use raft::wal::Wal;

use crate::model::open;
use crate::simulated_disk::SimulatedDisk;

const ENTRIES: u64 = 60;

fn entry(index: u64) -> Entry {
    let payload = Payload::Command(vec![3; 500].into());
    Entry { id: LogId::new(Term(1), Index(index)), payload }
}

fn append(wal: &mut Wal, index: u64) {
    let append = vec![entry(index)];
    wal.append(&[Persist { batch: BatchNo(index), append, ..Persist::default() }]).unwrap();
}

fn base(index: u64) -> SnapshotMeta {
    let last = LogId::new(Term(1), Index(index));
    SnapshotMeta { last, membership: Membership::default(), membership_index: Index(0) }
}

/// Bytes that the named segments take.
fn disk_bytes(disk: &Arc<SimulatedDisk>) -> usize {
    disk.files(".wal").iter().map(|(_, bytes)| bytes.len()).sum()
}

#[test]
fn only_files_wholly_below_the_base_go() {
    let disk = SimulatedDisk::new();
    let (mut wal, _) = open(&disk, 0).unwrap();
    (1..=ENTRIES).for_each(|index| append(&mut wal, index));
    let (segments, per_entry) = (wal.segments(), disk_bytes(&disk) / 60);
    assert!(segments >= 10, "{segments}");
    for index in 1..ENTRIES {
        wal.compact(&base(index)).unwrap();
        let rest = wal.read(Index(index + 1), Index(ENTRIES), usize::MAX).unwrap();
        assert_eq!(rest, (index + 1..=ENTRIES).map(entry).collect::<Vec<_>>());
        let (_, restored) = open(&disk.power_cut(|| false), index).unwrap();
        assert_eq!((restored.base, restored.last.index), (Some(base(index)), Index(ENTRIES)));
        // What the compactions themselves have written comes on top, in the newest files.
        let kept = usize::try_from(ENTRIES - index).unwrap() * per_entry;
        let written = usize::try_from(index).unwrap() * 512;
        assert!(disk_bytes(&disk) <= kept + written + 3 * 4096, "after {index}");
    }
}

/// A log that is compacted as it grows takes the same space for ever, and soon the same files.
#[test]
fn a_log_that_is_compacted_as_it_grows_does_not_grow() {
    let disk = SimulatedDisk::new();
    let (mut wal, _) = open(&disk, 0).unwrap();
    let mut creates = Vec::new();
    for index in 1..=2000 {
        append(&mut wal, index);
        if index % 3 == 0 {
            let to = wal.trailing(Index(index - 3), 5000);
            wal.compact(&base(to.0)).unwrap();
            assert!(wal.segments() <= 8, "{} segments at {index}", wal.segments());
            assert!(wal.disk_bytes() <= 8 * 4096, "{} bytes at {index}", wal.disk_bytes());
        }
        if index % 1000 == 0 {
            creates.push(disk.trace().iter().filter(|name| name.starts_with("create ")).count());
        }
    }
    assert_eq!(creates[0], creates[1], "dropped files are used again");
}
