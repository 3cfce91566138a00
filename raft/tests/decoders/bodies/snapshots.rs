//! Files of snapshots, found in the directory or sent by a leader, and the session tables in them.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use raft::command::{Command, Kind};
use raft::consensus::{Index, LogId, SnapshotMeta, Term};
use raft::rpc::client::Outcome;
use raft::session::{Image, Name, Sessions};
use raft::snapshot::{Description, SnapshotError, SnapshotId, Store, inspect};
use raft::wal::Disk;

use crate::simulated_disk::SimulatedDisk;
use crate::support::membership;

const DIR: &str = "/snapshots";
const FILE: &str = "/snapshots/0000000000000009-0000000000000004.snapshot";
const CLUSTER: u128 = 5;
/// The checksums are written anew, so that what they protect is looked at.
const RESEALED: u8 = 1;
/// Bytes of a frame before its payload.
const HEADER_BYTES: usize = 9;
const END: u8 = 4;

fn open(disk: &Arc<SimulatedDisk>) -> Result<Store, SnapshotError> {
    let disk: Arc<dyn Disk> = Arc::<SimulatedDisk>::clone(disk);
    Store::open(disk, Path::new(DIR), Some(CLUSTER), 2).map(|(store, _)| store)
}

fn meta() -> SnapshotMeta {
    let last = LogId::new(Term(4), Index(9));
    SnapshotMeta { last, membership: membership(&[1, 2, 3], &[4]), membership_index: Index(2) }
}

/// A byte of flags, then a file under the name of a snapshot: refused, set aside with its place, or read to its end.
pub(crate) fn file(bytes: &[u8]) -> bool {
    let Some((flags, bytes)) = bytes.split_first() else { return false };
    let file = resealed(bytes, *flags);
    let disk = SimulatedDisk::new();
    disk.overwrite(Path::new(FILE), file.clone());
    let inspected = inspect(&*disk, Path::new(FILE));
    let is_sound = inspected.as_ref().is_ok_and(|inspection| inspection.fault.is_none());
    let Ok(store) = open(&disk) else { return false };
    let Some(found) = store.newest() else {
        assert_eq!(disk.files(".damaged").len(), 1, "it is kept for whoever looks into it");
        assert!(!is_sound, "an inspection finds no fault with it");
        return false;
    };
    match read(&store, &found) {
        Ok((image, machine_bytes)) => {
            let inspection = inspected.unwrap();
            assert!(inspection.fault.is_none(), "an inspection finds fault with it");
            assert_eq!(inspection.image_bytes, image.len() as u64);
            assert_eq!(inspection.machine_bytes, machine_bytes as u64);
            true
        }
        Err(SnapshotError::Damaged(damage)) => {
            assert!(!is_sound, "an inspection overlooks {damage}");
            assert_eq!(damage.file, Path::new(FILE));
            assert!(damage.offset <= file.len() as u64, "{damage}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// The table, and how long the machine's stream is.
fn read(store: &Store, of: &Description) -> Result<(Vec<u8>, usize), SnapshotError> {
    let image = store.image(of)?;
    let (mut machine, mut bytes) = (store.machine_bytes(of)?, 0);
    while let Some(piece) = machine.next_piece()? {
        bytes += piece.len();
    }
    Ok((image, bytes))
}

/// A byte of flags, a byte that says how long the pieces are, then what a leader sends. What is taken can be read.
pub(crate) fn pieces(bytes: &[u8]) -> bool {
    let [flags, piece_bytes, bytes @ ..] = bytes else { return false };
    let file = resealed(bytes, *flags);
    let disk = SimulatedDisk::new();
    let store = open(&disk).unwrap();
    let id = file.get(21..37).map_or([0; 16], |id| id.try_into().unwrap());
    let offered = Description {
        id: SnapshotId(u128::from_le_bytes(id)),
        meta: meta(),
        bytes: file.len() as u64,
    };
    if let Ok(taken) = receive(&store, &offered, &file, 1 + usize::from(*piece_bytes) * 4) {
        assert_eq!(taken, offered);
        read(&store, &taken).unwrap();
        assert_eq!(open(&disk.power_cut(|| false)).unwrap().newest(), Some(offered));
        return true;
    }
    assert_eq!(store.newest(), None, "what is refused is not there");
    false
}

fn receive(
    store: &Store,
    offered: &Description,
    file: &[u8],
    piece_bytes: usize,
) -> Result<Description, SnapshotError> {
    let mut receiving = store.receive(offered, CLUSTER)?;
    for piece in file.chunks(piece_bytes) {
        let offset = receiving.offset();
        assert_eq!(receiving.push(offset, piece)?, offset + piece.len() as u64);
    }
    let image = receiving.image()?;
    let taken = receiving.finish()?;
    assert_eq!(store.image(&taken)?, image);
    Ok(taken)
}

/// With every checksum as it should be, if that is wished, and the end saying what is before it.
fn resealed(bytes: &[u8], flags: u8) -> Vec<u8> {
    let mut file = bytes.to_vec();
    if flags & RESEALED == 0 || file.len() < 37 {
        return file;
    }
    let id: [u8; 16] = file[21..37].try_into().unwrap();
    let (mut at, mut frames, mut chain) = (0, 0_u64, 0);
    while let Some(end) = end_of_frame(&file, at) {
        let frame = &mut file[at..end];
        if frame[8] == END && frame.len() == HEADER_BYTES + 20 {
            frame[9..17].copy_from_slice(&frames.to_le_bytes());
            frame[17..25].copy_from_slice(&(at as u64).to_le_bytes());
            frame[25..].copy_from_slice(&u32::to_le_bytes(chain));
        }
        let place = crc32c::crc32c_append(crc32c::crc32c(&id), &(at as u64).to_le_bytes());
        let sum = crc32c::crc32c_append(place, &frame[..4]);
        let sum = crc32c::crc32c_append(sum, &frame[8..]).to_le_bytes();
        frame[4..8].copy_from_slice(&sum);
        chain = crc32c::crc32c_append(chain, &sum);
        (at, frames) = (end, frames + 1);
    }
    file
}

fn end_of_frame(file: &[u8], at: usize) -> Option<usize> {
    let length: [u8; 4] = file.get(at..at + 4)?.try_into().unwrap();
    let end = at + HEADER_BYTES + usize::try_from(u32::from_le_bytes(length)).unwrap();
    (end <= file.len()).then_some(end)
}

fn files() -> Vec<Vec<u8>> {
    let taken = |image: &[u8], machine: &[u8]| {
        let disk = SimulatedDisk::new();
        let store = open(&disk).unwrap();
        let mut taking = store.take(&meta(), CLUSTER, image).unwrap();
        for piece in machine.chunks(50) {
            taking.push(piece).unwrap();
        }
        taking.finish().unwrap();
        disk.files(".snapshot").pop().unwrap().1
    };
    vec![taken(b"", b""), taken(&image(), b"the machine's state"), taken(b"", &[3; 200])]
}

pub(crate) fn file_seeds() -> Vec<Vec<u8>> {
    files()
        .into_iter()
        .flat_map(|file| [0, RESEALED].map(|flags| [&[flags][..], &file].concat()))
        .collect()
}

pub(crate) fn piece_seeds() -> Vec<Vec<u8>> {
    let flagged =
        |file: Vec<u8>| [[0, 200], [RESEALED, 3]].map(|flags| [&flags[..], &file].concat());
    files().into_iter().flat_map(flagged).collect()
}

/// A session table: what is accepted is written as it was read, and goes on.
pub(crate) fn session_image(bytes: &[u8]) -> bool {
    let Ok(image) = Image::decode(bytes) else { return false };
    assert_eq!(image.encode(), bytes, "there is one way to write a table");
    let folded = image.folded();
    let (mut sessions, passed_over) = Sessions::from_image(image);
    assert!(passed_over.iter().all(|index| *index <= folded));
    let Some(next) = folded.0.checked_add(1) else { return true };
    sessions.fold(Index(next), &opening(u64::MAX));
    true
}

fn opening(time_ms: u64) -> Command {
    let body = Command::ttl_body(5000);
    Command { kind: Kind::OpenSession, time_ms, session: 0, sequence: 0, acked_below: 0, body }
}

/// A table with two sessions, results and entries that were passed over.
fn image() -> Vec<u8> {
    let mut sessions = Sessions::default();
    sessions.fold(Index(3), &opening(100));
    sessions.fold(Index(4), &opening(120));
    for (sequence, index) in [(1, 5), (2, 6), (4, 7)] {
        let (kind, body) = (Kind::Apply, Bytes::from_static(b"PUT a b"));
        let command = Command { kind, time_ms: 200, session: 3, sequence, acked_below: 1, body };
        sessions.fold(Index(index), &command);
    }
    let name = |sequence| Name::new(3, sequence).unwrap();
    sessions.keep_result(name(1), Index(5), &Outcome::Done(Bytes::from_static(b"ok")));
    sessions.keep_result(name(2), Index(6), &Outcome::Refused(Bytes::from_static(b"no")));
    sessions.image(Index(9), [Index(2), Index(8)].into()).encode()
}

pub(crate) fn session_image_seeds() -> Vec<Vec<u8>> {
    vec![Sessions::default().image(Index(0), [].into()).encode(), image()]
}
