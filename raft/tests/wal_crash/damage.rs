//! Flipped bits, cut files and torn last frames: told apart, and never silently lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::consensus::{Entry, HardState, Index, LogId, NodeId, Payload, Persist, Term};
use raft::wal::{Damage, OpenError, ReadError, Wal};

use crate::model::{DIR, History, Model, Step, carry_out, open};
use crate::refusals::reseal;
use crate::simulated_disk::{SECTOR_BYTES, SimulatedDisk};

/// A log of a few frames in two segments, closed; the last frame takes several blocks.
pub(crate) fn small_log() -> (Arc<SimulatedDisk>, Model) {
    small_log_of(0)
}

fn small_log_of(seed: u64) -> (Arc<SimulatedDisk>, Model) {
    let (disk, mut model) = (SimulatedDisk::new(), Model::default());
    let (mut wal, _) = open(&disk, seed).unwrap();
    for number in 1..=4 {
        let step = append(&model, number, 700);
        carry_out(&mut wal, &step).unwrap();
        model.follow(&step);
    }
    assert_eq!(wal.segments(), 2);
    (disk, model)
}

fn append(model: &Model, number: u64, command_bytes: usize) -> Step {
    let term = Term(1 + number / 3);
    let elects = number.is_multiple_of(3);
    let vote = elects.then_some(NodeId(number));
    let hard_state = elects.then_some(HardState { term, vote });
    let next = model.last().index.0 + 1;
    let entry = |index| {
        let byte = u8::try_from(index).unwrap();
        Entry {
            id: LogId::new(term.max(model.last().term), Index(index)),
            payload: Payload::Command(vec![byte; command_bytes].into()),
        }
    };
    let commit_index = model.last().index;
    let append = vec![entry(next), entry(next + 1)];
    Step::Append(vec![Persist { hard_state, append, commit_index, ..Persist::default() }])
}

pub(crate) fn open_or_damage(
    disk: &Arc<SimulatedDisk>,
    seed: u64,
) -> Result<(Wal, raft::consensus::Restored), Damage> {
    open(disk, seed).map_err(|error| {
        let OpenError::Damaged(damage) = error else { panic!("{error}") };
        damage
    })
}

fn segments(disk: &SimulatedDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.files(".wal")
}

#[test]
fn every_flipped_bit_is_refused_with_its_place_or_harmless() {
    let (disk, model) = small_log();
    let mut refused = 0;
    for (path, bytes) in segments(&disk) {
        for bit in 0..bytes.len() * 8 {
            let disk = disk.copy();
            disk.flip(&path, bit);
            let before = segments(&disk);
            match open_or_damage(&disk, 9) {
                Ok((mut wal, restored)) => model.check(&mut wal, &restored),
                Err(damage) => {
                    refused += 1;
                    assert_eq!(damage.file, path, "bit {bit}");
                    assert_eq!(
                        damage.offset,
                        (bit / 8 / SECTOR_BYTES * SECTOR_BYTES) as u64,
                        "bit {bit}"
                    );
                    assert_eq!(segments(&disk), before, "a refused log is untouched");
                }
            }
        }
    }
    let bits: usize = segments(&disk).iter().map(|(_, bytes)| bytes.len() * 8).sum();
    assert_eq!(refused, bits, "no bit of this log is free");
}

#[test]
fn every_flipped_bit_of_an_open_log_is_noticed_when_it_is_read() {
    let (disk, model) = small_log();
    let (mut wal, _) = open(&disk, 9).unwrap();
    let last = model.last().index;
    let read = |wal: &mut Wal| wal.read(Index(1), last, usize::MAX);
    for (path, bytes) in segments(&disk) {
        for bit in (0..bytes.len() * 8).step_by(7) {
            disk.flip(&path, bit);
            match read(&mut wal) {
                Ok(entries) => assert_eq!(entries, model.entries),
                Err(ReadError::Damaged(damage)) => {
                    assert_eq!(damage.file, path);
                    assert_eq!(damage.offset, (bit / 8 / SECTOR_BYTES * SECTOR_BYTES) as u64);
                }
                Err(other) => panic!("{other}"),
            }
            disk.flip(&path, bit);
        }
    }
    assert_eq!(read(&mut wal).unwrap(), model.entries);
}

#[test]
fn a_whole_block_of_another_place_or_time_is_noticed_when_it_is_read() {
    let (disk, model) = small_log();
    let (mut wal, _) = open(&disk, 9).unwrap();
    let files = segments(&disk);
    let (path, bytes) = &files[0];
    let block =
        |bytes: &[u8], at: usize| bytes[at * SECTOR_BYTES..(at + 1) * SECTOR_BYTES].to_vec();
    // The second block of the first frame, as the same place of another segment says it.
    for foreign in [block(&files[1].1, 2), block(bytes, 3), block(bytes, 5), vec![0; SECTOR_BYTES]]
    {
        let mut misdirected = bytes.clone();
        misdirected[2 * SECTOR_BYTES..3 * SECTOR_BYTES].copy_from_slice(&foreign);
        disk.overwrite(path, misdirected);
        let error = wal.read(Index(1), Index(2), usize::MAX).unwrap_err();
        let ReadError::Damaged(damage) = error else { panic!("{error}") };
        assert_eq!((&damage.file, damage.offset), (path, 2 * SECTOR_BYTES as u64));
    }
    disk.overwrite(path, bytes.clone());
    model.check_entries(&mut wal);
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let (disk, model) = small_log();
    for (path, bytes) in segments(&disk) {
        for length in 0..bytes.len() {
            let disk = disk.copy();
            disk.overwrite(&path, bytes[..length].to_vec());
            let damage =
                open_or_damage(&disk, 9).err().unwrap_or_else(|| panic!("cut at {length}"));
            assert_eq!(damage.file, path, "cut at {length}");
            assert!(
                damage.offset <= length as u64,
                "cut at {length}, reported at {}",
                damage.offset
            );
        }
    }
    open(&disk, 9).map(|(mut wal, restored)| model.check(&mut wal, &restored)).unwrap();
}

#[test]
fn a_missing_segment_is_refused() {
    let (disk, mut model) = small_log();
    let (mut wal, _) = open(&disk, 9).unwrap();
    for number in 7..20 {
        let step = append(&model, number, 900);
        carry_out(&mut wal, &step).unwrap();
        model.follow(&step);
    }
    drop(wal);
    let files = segments(&disk);
    assert!(files.len() > 4);
    for (at, (path, _)) in files.iter().enumerate() {
        let disk = disk.copy();
        disk.destroy(path);
        let damage = open_or_damage(&disk, 10).err().expect("a segment is missing");
        if at + 1 < files.len() {
            assert_eq!(damage.file, *path);
        } else {
            assert_eq!(
                damage.file,
                files[at - 1].0,
                "the one before it says that it is not the last"
            );
        }
    }
}

/// The sectors of each frame in a segment, told by the sequence number in each block.
fn frames_of(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut frames: Vec<(u64, std::ops::Range<usize>)> = Vec::new();
    for (at, block) in bytes.chunks_exact(SECTOR_BYTES).enumerate() {
        let seq = u64::from_le_bytes(block[8..16].try_into().unwrap());
        match frames.last_mut() {
            Some((last, sectors)) if *last == seq => sectors.end = at + 1,
            _ if seq > 0 => frames.push((seq, at..at + 1)),
            _ => {}
        }
    }
    frames.into_iter().map(|(_, sectors)| sectors).collect()
}

/// The last frame of a log, taken apart: the bytes before it was written, and after.
struct LastFrame {
    disk: Arc<SimulatedDisk>,
    path: PathBuf,
    before: Vec<u8>,
    after: Vec<u8>,
    old: Model,
    new: Model,
}

impl LastFrame {
    /// `recycled`: the frame is written over blocks of an earlier use of the file.
    fn new(recycled: bool, command_bytes: usize) -> Self {
        let (disk, mut model) = (SimulatedDisk::new(), Model::default());
        let (mut wal, _) = open(&disk, 0).unwrap();
        let mut number = 0;
        let mut step = |model: &mut Model, wal: &mut Wal, bytes| {
            number += 1;
            let step = append(model, number, bytes);
            carry_out(wal, &step).unwrap();
            model.follow(&step);
        };
        let rounds = if recycled { 30 } else { 1 };
        for round in 0..rounds {
            step(&mut model, &mut wal, 300);
            if recycled && round % 5 == 4 {
                let compact = snapshot_of(&model);
                carry_out(&mut wal, &compact).unwrap();
                model.follow(&compact);
            }
        }
        // Right behind a segment change, so that the rest of the file is as it was before this use.
        let segments_before = segments(&disk).len();
        while segments(&disk).len() == segments_before {
            step(&mut model, &mut wal, 300);
        }
        let (path, before) = segments(&disk).pop().unwrap();
        let old = model.clone();
        step(&mut model, &mut wal, command_bytes);
        let (after_path, after) = segments(&disk).pop().unwrap();
        assert_eq!(path, after_path, "the frame fits");
        drop(wal);
        Self { disk, path, before, after, old, new: model }
    }

    /// The blocks that the frame changed.
    fn sectors(&self) -> Vec<usize> {
        let pairs = self.before.chunks(SECTOR_BYTES).zip(self.after.chunks(SECTOR_BYTES));
        pairs.enumerate().filter(|(_, (before, after))| before != after).map(|(at, _)| at).collect()
    }

    fn with(&self, bytes: Vec<u8>) -> Arc<SimulatedDisk> {
        let disk = self.disk.copy();
        disk.overwrite(&self.path, bytes);
        disk
    }
}

fn snapshot_of(model: &Model) -> Step {
    Step::Compact(raft::consensus::SnapshotMeta {
        last: model.last(),
        membership: raft::consensus::Membership::default(),
        membership_index: Index(0),
    })
}

#[test]
fn every_subset_of_the_last_frames_sectors_is_cut_off_unless_it_is_all_of_them() {
    for recycled in [false, true] {
        let frame = LastFrame::new(recycled, 900);
        let sectors = frame.sectors();
        assert!((4..=8).contains(&sectors.len()), "{sectors:?}");
        if recycled {
            assert!(frame.before[sectors[0] * SECTOR_BYTES..].iter().any(|byte| *byte != 0));
        }
        for kept in 0..1_u32 << sectors.len() {
            let mut bytes = frame.before.clone();
            for (bit, sector) in sectors.iter().enumerate().filter(|(bit, _)| kept >> bit & 1 == 1)
            {
                let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                bytes[range.clone()].copy_from_slice(&frame.after[range]);
                assert!(bit < 32);
            }
            let all = kept.count_ones() as usize == sectors.len();
            let (mut wal, restored) = open(&frame.with(bytes), 77).unwrap();
            if all { &frame.new } else { &frame.old }.check(&mut wal, &restored);
        }
    }
}

#[test]
fn a_last_frame_cut_at_any_byte_is_cut_off_or_refused() {
    for recycled in [false, true] {
        let frame = LastFrame::new(recycled, 700);
        let start = frame.sectors()[0] * SECTOR_BYTES;
        for length in start..frame.after.len() {
            let bytes = [&frame.after[..length], &frame.before[length..]].concat();
            let complete = bytes == frame.after;
            match open_or_damage(&frame.with(bytes), 77) {
                Ok((mut wal, restored)) if complete => frame.new.check(&mut wal, &restored),
                Ok((mut wal, restored)) => frame.old.check(&mut wal, &restored),
                Err(damage) => {
                    assert_ne!(length % SECTOR_BYTES, 0, "whole sectors are a torn write");
                    let sector = length / SECTOR_BYTES * SECTOR_BYTES;
                    assert_eq!((damage.file, damage.offset), (frame.path.clone(), sector as u64));
                }
            }
        }
    }
}

#[test]
fn damage_in_the_last_synced_frame_is_no_torn_write() {
    for recycled in [false, true] {
        let frame = LastFrame::new(recycled, 700);
        for sector in frame.sectors() {
            for byte in sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES {
                let mut bytes = frame.after.clone();
                bytes[byte] ^= 0x10;
                let damage = open_or_damage(&frame.with(bytes), 77).err().expect("damage");
                assert_eq!(damage.offset, (sector * SECTOR_BYTES) as u64);
                assert!(
                    damage.affected.contains(&format!("above index {}", frame.old.last().index))
                );
            }
        }
    }
}

/// The salt is what tells them apart: sequence number, place and content would all fit.
#[test]
fn a_frame_of_another_use_of_the_file_is_never_taken_for_ours() {
    let (ours, theirs) = (SimulatedDisk::new(), SimulatedDisk::new());
    for (disk, seed, frames) in [(&ours, 1, 1), (&theirs, 2, 2)] {
        let (mut wal, _) = open(disk, seed).unwrap();
        let mut model = Model::default();
        for number in 1..=frames {
            let step = append(&model, number, 100);
            carry_out(&mut wal, &step).unwrap();
            model.follow(&step);
        }
    }
    let (path, mut bytes) = segments(&ours).pop().unwrap();
    let (_, foreign) = segments(&theirs).pop().unwrap();
    let last = frames_of(&foreign).pop().unwrap();
    let range = last.start * SECTOR_BYTES..last.end * SECTOR_BYTES;
    assert!(bytes[range.clone()].iter().all(|byte| *byte == 0));
    bytes[range.clone()].copy_from_slice(&foreign[range.clone()]);
    ours.overwrite(&path, bytes);
    let damage = open_or_damage(&ours, 9).err().expect("it is not ours");
    assert_eq!((damage.file, damage.offset), (path, range.start as u64));
}

#[test]
fn a_lost_frame_before_a_whole_one_is_damage() {
    let (intact, mut model) = (SimulatedDisk::new(), Model::default());
    let (mut wal, _) = open(&intact, 0).unwrap();
    for (number, command_bytes) in [(1, 50), (2, 250), (3, 50), (4, 250)] {
        let step = append(&model, number, command_bytes);
        carry_out(&mut wal, &step).unwrap();
        model.follow(&step);
    }
    drop(wal);
    let (path, bytes) = segments(&intact).pop().unwrap();
    let frames = frames_of(&bytes);
    assert_eq!(frames.len(), 5, "the segment's start and four more");
    for sectors in &frames[1..frames.len() - 1] {
        let mut bytes = bytes.clone();
        let first = sectors.start;
        bytes[first * SECTOR_BYTES..sectors.end * SECTOR_BYTES].fill(0);
        let disk = intact.copy();
        disk.overwrite(&path, bytes);
        let damage = open_or_damage(&disk, 6).err().expect("a frame in the middle is lost");
        assert_eq!((&damage.file, damage.offset), (&path, (first * SECTOR_BYTES) as u64));
        assert!(damage.what.contains("is there"), "{damage}");
    }
}

#[test]
fn values_that_hold_copied_log_bytes_are_just_values() {
    let (disk, mut model) = small_log();
    let (mut wal, _) = open(&disk, 9).unwrap();
    for round in 0..12 {
        let (_, newest) = segments(&disk).pop().unwrap();
        let (_, oldest) = segments(&disk).remove(0);
        // At every alignment to the block that it will stand in, and torn off at every sector.
        let copied = [vec![0; round * 41], newest, oldest].concat();
        let id = LogId::new(model.last().term, model.last().index.next());
        let entry = Entry { id, payload: Payload::Command(copied.into()) };
        let step = Step::Append(vec![Persist { append: vec![entry], ..Persist::default() }]);
        let before = segments(&disk);
        let old = model.clone();
        carry_out(&mut wal, &step).unwrap();
        model.follow(&step);
        let (path, after) = segments(&disk).pop().unwrap();
        if before.last().unwrap().0 == path {
            torn_at_every_sector(&disk, &path, &before.last().unwrap().1, &after, &old);
        }
        drop(wal);
        let (again, restored) = open(&disk, round as u64 + 100).unwrap();
        wal = again;
        model.check(&mut wal, &restored);
    }
}

fn torn_at_every_sector(
    disk: &Arc<SimulatedDisk>,
    path: &Path,
    before: &[u8],
    after: &[u8],
    old: &Model,
) {
    for length in (0..after.len()).step_by(SECTOR_BYTES) {
        let bytes = [&after[..length], &before[length..]].concat();
        if bytes == after {
            break;
        }
        let disk = disk.copy();
        disk.overwrite(path, bytes);
        let (mut wal, restored) = open(&disk, 7).unwrap();
        old.check(&mut wal, &restored);
    }
}

#[test]
fn random_bytes_never_panic() {
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let steps = History::new(3).steps(30);
    let disk = SimulatedDisk::new();
    let (mut wal, _) = open(&disk, 0).unwrap();
    for (step, _) in &steps {
        carry_out(&mut wal, step).unwrap();
    }
    drop(wal);
    let files = segments(&disk);
    for round in 0..3000 {
        let disk = disk.copy();
        let (path, bytes) = &files[rng.random_range(0..files.len())];
        let mut bytes = bytes.clone();
        for _ in 0..rng.random_range(1..4) {
            let from = rng.random_range(0..bytes.len());
            let to = rng.random_range(from..=bytes.len().min(from + 2000));
            match rng.random_range(0..4) {
                0 => bytes[from..to].fill(0),
                1 => rng.fill(&mut bytes[from..to]),
                2 => bytes.copy_within(from..to, 0),
                _ => bytes.truncate(to.max(1)),
            }
        }
        disk.overwrite(path, bytes);
        if let Ok((mut wal, restored)) = open(&disk, round) {
            let mut states = steps.iter().map(|(_, model)| model).rev();
            let state = states.find(|model| model.is_like(&restored));
            state.expect("a state that the log once had").check(&mut wal, &restored);
        }
    }
    disk.overwrite(&Path::new(DIR).join("00000077.wal"), vec![0; 100_000]);
    assert!(open(&disk, 1).is_err());
}

/// Nothing that a checksum lets through may panic either: a later version may have a bug.
#[test]
fn nonsense_under_good_checksums_never_panics() {
    let steps = History::new(3).steps(12);
    let disk = SimulatedDisk::new();
    let (mut wal, _) = open(&disk, 0).unwrap();
    for (step, _) in &steps {
        carry_out(&mut wal, step).unwrap();
    }
    drop(wal);
    let mut refused = 0;
    for (path, bytes) in segments(&disk) {
        for byte in (0..bytes.len()).filter(|byte| byte % SECTOR_BYTES >= 4) {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = bytes.clone();
                let start = byte / SECTOR_BYTES * SECTOR_BYTES;
                if bytes[byte] == value || bytes[start..start + 4] == [0; 4] {
                    continue;
                }
                bytes[byte] = value;
                reseal(&mut bytes[start..start + SECTOR_BYTES], start as u64);
                let disk = disk.copy();
                disk.overwrite(&path, bytes);
                refused += usize::from(open(&disk, 5).is_err());
            }
        }
    }
    assert!(refused > 0);
}
