//! Single bits that flip anywhere in a directory that nobody uses.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::snapshot::SnapshotError;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::log_model::At;
use crate::node::{Refused, is_identity, open_identity, open_log, open_store, run};
use crate::simulated_disk::{SECTOR_BYTES, SimulatedDisk};
use crate::snapshot_model::{frame_of, frame_starts, read};
use crate::workload::{State, workload};
use crate::{Tally, wanted};

/// Flips in the directory of one workload.
const FLIPS: usize = 1000;

const LOG: &str = "flips in the log";
const SNAPSHOTS: &str = "flips in snapshots";
const IDENTITY: &str = "flips in the identity";
const LOG_REFUSED: &str = "refused with its place: a log";
const LOG_HARMLESS: &str = "harmless: behind the end of the log, or in a file that counts no more";
const SNAPSHOT_REFUSED: &str = "refused with its place: a snapshot";
const IDENTITY_REFUSED: &str = "refused with its file: an identity";
const IDENTITY_HARMLESS: &str = "harmless: in the identity, which says the same";

/// One bit of one file.
struct Flip {
    path: PathBuf,
    bit: usize,
}

impl Flip {
    /// Where a log says that the damage is: at its block.
    fn block(&self) -> u64 {
        (self.bit / 8 / SECTOR_BYTES * SECTOR_BYTES) as u64
    }

    fn choose(files: &[(PathBuf, Vec<u8>)], rng: &mut ChaCha8Rng) -> Option<Self> {
        let bits: usize = files.iter().map(|(_, bytes)| bytes.len() * 8).sum();
        let mut bit = (bits > 0).then(|| rng.random_range(0..bits))?;
        for (path, bytes) in files {
            if bit < bytes.len() * 8 {
                return Some(Self { path: path.clone(), bit });
            }
            bit -= bytes.len() * 8;
        }
        None
    }
}

fn check_log(disk: &Arc<SimulatedDisk>, state: &State, flip: &Flip, tally: &mut Tally) {
    match open_log(disk, 1_000_000) {
        Ok((mut wal, restored)) => {
            state.log.check(&mut wal, &restored);
            tally.count(LOG_HARMLESS);
        }
        Err(Refused::Log(damage)) => {
            assert_eq!((&damage.file, damage.offset), (&flip.path, flip.block()), "{damage}");
            tally.count(LOG_REFUSED);
        }
        Err(refused) => panic!("{refused:?}"),
    }
}

fn check_snapshots(disk: &Arc<SimulatedDisk>, state: &State, flip: &Flip, tally: &mut Tally) {
    let (_, file) =
        disk.files(".snapshot").into_iter().find(|(path, _)| *path == flip.path).unwrap();
    // The flipped bit itself may be in a length.
    let mut whole = file.clone();
    whole[flip.bit / 8] ^= 1 << (flip.bit % 8);
    let frame = frame_of(&frame_starts(&whole), flip.bit / 8);
    let (store, mut damages) = open_store(disk);
    for description in store.all() {
        match read(&store, &description) {
            Ok(content) => assert_eq!(Some(&content), state.content(&description)),
            Err(SnapshotError::Damaged(damage)) => damages.push(damage),
            Err(error) => panic!("{error}"),
        }
    }
    let places: Vec<(&Path, u64)> =
        damages.iter().map(|damage| (damage.file.as_path(), damage.offset)).collect();
    assert_eq!(places, [(flip.path.as_path(), frame)]);
    tally.count(SNAPSHOT_REFUSED);
}

fn check_identity(disk: &Arc<SimulatedDisk>, state: &State, flip: &Flip, tally: &mut Tally) {
    match open_identity(disk) {
        Ok(data_dir) => {
            assert!(is_identity(data_dir.identity(), state.identity));
            tally.count(IDENTITY_HARMLESS);
        }
        Err(Refused::Identity(path)) => {
            assert_eq!(path, flip.path);
            tally.count(IDENTITY_REFUSED);
        }
        Err(refused) => panic!("{refused:?}"),
    }
}

#[test]
fn a_flipped_bit_never_yields_another_value() {
    type Check = fn(&Arc<SimulatedDisk>, &State, &Flip, &mut Tally);
    let (wanted, mut tally) = (wanted("DAMAGE_FLIPS", 40_000), Tally::default());
    let (mut flips, mut seed) = (0, 10_000);
    while flips < wanted {
        seed += 1;
        let mut acts = workload(seed);
        let disk = SimulatedDisk::new();
        run(&disk, &mut acts);
        let (_, state) = acts.pop().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let kinds: [(&'static str, &str, Check); 3] = [
            (LOG, ".wal", check_log),
            (SNAPSHOTS, ".snapshot", check_snapshots),
            (IDENTITY, "identity", check_identity),
        ];
        let files = kinds.map(|(_, suffix, _)| disk.files(suffix));
        for number in 0..FLIPS {
            let _at = At { seed, operation: number };
            let which = [0, 0, 0, 1, 1, 2][number % 6];
            let (kind, _, check) = kinds[which];
            let Some(flip) = Flip::choose(&files[which], &mut rng) else { continue };
            let disk = disk.copy();
            disk.flip(&flip.path, flip.bit);
            check(&disk, &state, &flip, &mut tally);
            tally.count(kind);
            flips += 1;
        }
    }
    tally.print(&format!("{flips} flipped bits in the directories of {} workloads", seed - 10_000));
    tally.require(&[LOG, SNAPSHOTS, IDENTITY, LOG_REFUSED, SNAPSHOT_REFUSED], 1000);
    tally.require(&[IDENTITY_REFUSED], 1000);
}
