//! A directory of bytes, opened as a log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::consensus::{
    Entry, HardState, Index, LogId, NodeId, Payload, Persist, SnapshotMeta, Term,
};
use raft::wal::{Damage, Disk, OpenError, Options, ReadError, Wal, inspect};

use crate::simulated_disk::{SECTOR_BYTES, SimulatedDisk};
use crate::support::membership;

const DIR: &str = "/wal";
/// The checksums are written anew, so that what they protect is looked at.
const RESEALED: u8 = 1;
/// Bytes of a file's description: number, length in sectors, bytes that follow.
const DESCRIPTION_BYTES: usize = 5;
/// The disk in memory is copied many times: what the input says of it is bounded.
const MAX_SECTORS: usize = 16;
/// Likewise.
const MAX_FILES: usize = 8;

fn open(
    disk: &Arc<SimulatedDisk>,
    seed: u64,
) -> Result<(Wal, raft::consensus::Restored), OpenError> {
    let disk: Arc<dyn Disk> = Arc::<SimulatedDisk>::clone(disk);
    let options = Options {
        segment_bytes: 4096,
        tail_cache_bytes: 3000,
        sync: true,
        background: false,
        seed,
    };
    Wal::open(disk, Path::new(DIR), options)
}

/// A byte of flags, then files. One that opens is read, added to, and opens again to the same.
pub(crate) fn directory(bytes: &[u8]) -> bool {
    let Some((flags, bytes)) = bytes.split_first() else { return false };
    let disk = unpack(bytes, flags & RESEALED != 0);
    let faults = inspect(&*disk, Path::new(DIR), &mut |_| {}).unwrap().faults.len();
    let before = disk.files("");
    match open(&disk, 1) {
        Ok((mut wal, restored)) => {
            assert_eq!(faults, 0, "an inspection finds fault with what opens");
            read_all(&mut wal, &disk);
            drop(wal);
            goes_on(&disk, &restored);
            !before.is_empty()
        }
        Err(OpenError::Damaged(damage)) => {
            check_place(&damage, &disk);
            assert_eq!(disk.files(""), before, "what is refused is left alone");
            assert!(faults > 0, "an inspection overlooks {damage}");
            false
        }
        Err(_) => false,
    }
}

fn read_all(wal: &mut Wal, disk: &SimulatedDisk) {
    let (mut next, last) = (wal.first_index(), wal.last().index);
    while next <= last {
        match wal.read(next, last, 1500) {
            Ok(entries) => {
                assert_eq!(entries.first().map(|entry| entry.id.index), Some(next));
                next = Index(next.0 + entries.len() as u64);
            }
            Err(ReadError::Damaged(damage)) => return check_place(&damage, disk),
            Err(error) => panic!("{error}"),
        }
    }
}

/// It opens to the same again, and takes an entry that is there afterwards.
fn goes_on(disk: &Arc<SimulatedDisk>, before: &raft::consensus::Restored) {
    let (mut wal, restored) = open(disk, 2).unwrap();
    let state = |of: &raft::consensus::Restored| (of.last, of.hard_state, of.base.clone());
    assert_eq!(state(&restored), state(before));
    let Some(index) = wal.last().index.0.checked_add(1) else { return };
    let id = LogId::new(wal.last().term.max(wal.hard_state().term), Index(index));
    if wal
        .append(&[Persist {
            append: vec![Entry { id, payload: Payload::Noop }],
            ..Persist::default()
        }])
        .is_ok()
    {
        drop(wal);
        assert_eq!(open(&disk.power_cut(|| false), 3).unwrap().1.last, id);
    }
}

fn check_place(damage: &Damage, disk: &SimulatedDisk) {
    let files = disk.files("");
    let named = files.iter().find(|(path, _)| *path == damage.file);
    let length = named.map_or(0, |(_, bytes)| bytes.len() as u64);
    assert!(damage.offset <= length, "{damage}: the file has {length} bytes");
    assert!(!damage.what.is_empty() && !damage.affected.is_empty());
}

fn unpack(mut bytes: &[u8], resealed: bool) -> Arc<SimulatedDisk> {
    let disk = SimulatedDisk::new();
    for _ in 0..MAX_FILES {
        let Some((description, rest)) = bytes.split_first_chunk::<DESCRIPTION_BYTES>() else {
            break;
        };
        let [number, sectors, _, low, high] = *description;
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (content, rest) = rest.split_at(length);
        bytes = rest;
        let mut file = content.to_vec();
        file.resize(content.len().max(usize::from(sectors).min(MAX_SECTORS) * SECTOR_BYTES), 0);
        if resealed {
            file.chunks_exact_mut(SECTOR_BYTES).enumerate().for_each(reseal);
        }
        disk.overwrite(&name(number), file);
    }
    disk
}

fn pack(disk: &SimulatedDisk) -> Vec<u8> {
    let pack = |(path, bytes): (PathBuf, Vec<u8>)| {
        let number = u8::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
        let sectors = u8::try_from(bytes.len() / SECTOR_BYTES).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let length = u16::try_from(used).unwrap().to_le_bytes();
        [&[number, sectors, 0, length[0], length[1]], &bytes[..used]].concat()
    };
    disk.files(".wal").into_iter().flat_map(pack).collect()
}

fn name(number: u8) -> PathBuf {
    Path::new(DIR).join(match number {
        0xff => "next-1.tmp".to_owned(),
        number => format!("{number:08x}.wal"),
    })
}

/// As the format table says; a block of zeros was never written.
fn reseal((place, block): (usize, &mut [u8])) {
    if block.iter().any(|byte| *byte != 0) {
        let offset = (place * SECTOR_BYTES) as u64;
        let sum = crc32c::crc32c_append(crc32c::crc32c(&offset.to_le_bytes()), &block[4..]);
        block[..4].copy_from_slice(&sum.to_le_bytes());
    }
}

fn persist(index: u64, payload: Payload) -> Persist {
    let append = vec![Entry { id: LogId::new(Term(1 + index / 4), Index(index)), payload }];
    Persist { append, commit_index: Index(index.saturating_sub(1)), ..Persist::default() }
}

fn logs() -> Vec<Arc<SimulatedDisk>> {
    let disk = SimulatedDisk::new();
    let (mut wal, _) = open(&disk, 0).unwrap();
    let mut disks = vec![disk.copy()];
    let mut append = |batch: &Persist| wal.append(std::slice::from_ref(batch)).map(drop).unwrap();
    append(&persist(1, Payload::Membership(Box::new(membership(&[1, 2], &[3])))));
    append(&persist(2, Payload::Command(vec![7; 30].into())));
    append(&persist(3, Payload::Noop));
    disks.push(disk.copy());
    let hard_state = Some(HardState { term: Term(9), vote: Some(NodeId(2)) });
    let truncation = Persist { hard_state, truncate_from: Some(Index(3)), ..Persist::default() };
    append(&truncation);
    append(&persist(3, Payload::Command(vec![5; 900].into())));
    disks.push(disk.copy());
    append(&persist(4, Payload::Command(vec![6; 1200].into())));
    append(&persist(5, Payload::Command(vec![8; 500].into())));
    disks.push(disk.copy());
    let last = LogId::new(Term(1), Index(3));
    let base =
        SnapshotMeta { last, membership: membership(&[1, 2], &[3]), membership_index: Index(1) };
    wal.compact(&base).unwrap();
    disks.push(disk.copy());
    disks
}

/// A log as it grows, is cut and compacted; as it is, and to be resealed.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let packed = logs().into_iter().map(|disk| pack(&disk));
    packed.flat_map(|log| [0, RESEALED].map(|flags| [&[flags][..], &log].concat())).collect()
}
