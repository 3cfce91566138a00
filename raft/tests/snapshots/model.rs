//! Snapshots to take, and what must come back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::consensus::{Index, LogId, Membership, NodeId, SnapshotMeta, Term};
use raft::snapshot::{Description, SnapshotDamage, SnapshotError, Store};
use raft::wal::Disk;

use crate::simulated_disk::SimulatedDisk;

/// Where the snapshots of these tests lie.
pub(crate) const DIR: &str = "/snapshots";
pub(crate) const CLUSTER: u128 = 0x0123_4567_89ab_cdef;
/// Bytes of the last frame of every file.
pub(crate) const END_BYTES: usize = 29;

/// What one snapshot holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Content {
    pub(crate) meta: SnapshotMeta,
    pub(crate) image: Vec<u8>,
    pub(crate) machine: Vec<u8>,
}

/// A snapshot up to `index`, of which every byte says where it is from.
pub(crate) fn content(index: u64, image_bytes: usize, machine_bytes: usize) -> Content {
    let bytes = |seed: u64, count: usize| {
        let start = usize::try_from((index * 7 + seed) % 251).unwrap();
        (0..=250).cycle().skip(start).take(count).collect::<Vec<u8>>()
    };
    let membership = Membership { voters: [NodeId(7)].into(), ..Membership::default() };
    let last = LogId::new(Term(3), Index(index));
    let meta = SnapshotMeta { last, membership, membership_index: Index(1) };
    Content { meta, image: bytes(1, image_bytes), machine: bytes(2, machine_bytes) }
}

/// A few bytes in every frame.
pub(crate) fn small(index: u64) -> Content {
    content(index, 10, 20)
}

/// Opens the store, in which nothing may be damaged.
pub(crate) fn open(disk: &Arc<SimulatedDisk>) -> Store {
    let (store, damages) = try_open(disk).unwrap();
    assert_eq!(damages, []);
    store
}

pub(crate) fn try_open(
    disk: &Arc<SimulatedDisk>,
) -> Result<(Store, Vec<SnapshotDamage>), SnapshotError> {
    let disk: Arc<dyn Disk> = Arc::<SimulatedDisk>::clone(disk);
    Store::open(disk, Path::new(DIR), Some(CLUSTER), 2)
}

/// Takes a snapshot, pushing the machine's stream in pieces of this many bytes.
pub(crate) fn take_in(
    store: &Store,
    content: &Content,
    piece_bytes: usize,
) -> Result<Description, SnapshotError> {
    let mut taking = store.take(&content.meta, CLUSTER, &content.image)?;
    for piece in content.machine.chunks(piece_bytes) {
        taking.push(piece)?;
    }
    taking.finish()
}

pub(crate) fn take(store: &Store, content: &Content) -> Result<Description, SnapshotError> {
    take_in(store, content, 1 << 20)
}

/// Reads a whole snapshot.
pub(crate) fn read(store: &Store, of: &Description) -> Result<Content, SnapshotError> {
    let image = store.image(of)?;
    let mut reader = store.machine_bytes(of)?;
    let mut machine = Vec::new();
    while let Some(piece) = reader.next_piece()? {
        machine.extend_from_slice(&piece);
    }
    Ok(Content { meta: of.meta.clone(), image, machine })
}

/// A disk with one snapshot: its description, its file and the file's bytes.
pub(crate) fn disk_with(content: &Content) -> (Arc<SimulatedDisk>, Description, PathBuf, Vec<u8>) {
    let disk = SimulatedDisk::new();
    let description = take(&open(&disk), content).unwrap();
    let (path, bytes) = disk.files(".snapshot").pop().unwrap();
    assert_eq!(description.bytes, bytes.len() as u64);
    (disk, description, path, bytes)
}

/// Where the frames of a file begin, as the format says.
pub(crate) fn frame_starts(file: &[u8]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut at = 0;
    while at < file.len() {
        starts.push(at);
        let length = u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        at += 9 + usize::try_from(length).unwrap();
    }
    starts
}

/// Start of the frame that holds this byte.
pub(crate) fn frame_of(starts: &[usize], byte: usize) -> u64 {
    starts[starts.partition_point(|start| *start <= byte) - 1] as u64
}

/// The damage that an error tells of.
#[track_caller]
pub(crate) fn damage_of<T>(outcome: Result<T, SnapshotError>) -> SnapshotDamage {
    match outcome {
        Err(SnapshotError::Damaged(damage)) => damage,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("damage was not noticed"),
    }
}

/// Writes the checksum of the frame at `at` anew, as who wants to deceive would.
pub(crate) fn reseal(file: &mut [u8], at: usize) {
    let end = frame_starts(file).into_iter().find(|start| *start > at).unwrap_or(file.len());
    let id: [u8; 16] = file[21..37].try_into().unwrap();
    let seed = crc32c::crc32c_append(crc32c::crc32c(&id), &(at as u64).to_le_bytes());
    let sum = crc32c::crc32c_append(seed, &file[at..at + 4]);
    let sum = crc32c::crc32c_append(sum, &file[at + 8..end]);
    file[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
}
