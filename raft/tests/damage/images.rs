//! Power cuts at every operation, with every kind of loss.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use raft::continuity::join;
use raft::snapshot::SnapshotError;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::log_model::At;
use crate::node::{Refused, is_identity, open_identity, open_log, open_store, run};
use crate::simulated_disk::{Fate, SECTOR_BYTES, SimulatedDisk};
use crate::snapshot_model::read;
use crate::workload::{Act, LEAST_OPERATIONS, State, workload};
use crate::{Tally, wanted};

/// Random subsets of what was not synced, for each operation.
const SUBSETS: usize = 20;

const ALL_LOST: &str = "images: all lost";
const PREFIX: &str = "images: the first sectors kept";
const SUBSET: &str = "images: some sectors kept";
const TORN: &str = "images: a sector torn";
const TORN_REFUSED: &str = "refused with its place: a torn sector";

/// Two states that an image may show: what was acknowledged, and what was under way.
struct Allowed<'a>([&'a State; 2]);

impl<'a> Allowed<'a> {
    fn after(acts: &'a [(Act, State)], acknowledged: usize, nothing: &'a State) -> Self {
        let state = |count: usize| match count.min(acts.len()) {
            0 => nothing,
            count => &acts[count - 1].1,
        };
        Self([state(acknowledged), state(acknowledged + 1)])
    }

    fn check_identity(&self, disk: &Arc<SimulatedDisk>) {
        let found = open_identity(disk).unwrap().identity();
        let is_there = self.0.iter().any(|state| is_identity(found, state.identity));
        assert!(is_there, "an identity that was never acknowledged: {found:?}");
    }

    /// The log, and once more after a power cut that loses what the open itself did not sync.
    fn check_log(&self, disk: &Arc<SimulatedDisk>, seed: u64) -> Result<(), Refused> {
        let (mut wal, restored) = open_log(disk, seed)?;
        let model = self.0.iter().map(|state| &state.log).find(|model| model.is_like(&restored));
        let model =
            model.unwrap_or_else(|| panic!("a log that was never acknowledged: {restored:?}"));
        model.check(&mut wal, &restored);
        drop(wal);
        let (mut wal, again) = open_log(&disk.power_cut(|| false), seed + 1).unwrap();
        model.check(&mut wal, &again);
        let newest = open_store(disk).0.newest();
        join(restored, newest.map(|newest| newest.meta)).unwrap();
        Ok(())
    }

    fn check_snapshots(&self, disk: &Arc<SimulatedDisk>) {
        let (store, damages) = open_store(disk);
        assert_eq!(damages, [], "head and end are whole or not there");
        let found = store.all();
        let state = self.0.iter().find(|state| state.lists(&found));
        let state =
            state.unwrap_or_else(|| panic!("snapshots that were never acknowledged: {found:?}"));
        for description in &found {
            match read(&store, description) {
                Ok(read) => assert_eq!(Some(&read), state.content(description)),
                Err(SnapshotError::Damaged(_)) => {
                    let is_newest = found.last() == Some(description);
                    assert!(
                        is_newest && self.0.iter().any(|state| state.rotten),
                        "{description:?}"
                    );
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// All that may become of so many unsynced sectors and names.
fn fates(unsynced: usize, rng: &mut ChaCha8Rng) -> Vec<(&'static str, Vec<Fate>)> {
    let prefix = |kept: usize| (0..unsynced).map(|at| at < kept).collect::<Vec<_>>();
    let mut known = BTreeSet::from([prefix(0)]);
    let mut fates = vec![(ALL_LOST, prefix(0).into_iter().map(Fate::from).collect())];
    let mut add = |kind, kept: Vec<bool>| {
        if known.insert(kept.clone()) {
            fates.push((kind, kept.into_iter().map(Fate::from).collect()));
        }
    };
    for kept in 1..=unsynced {
        add(PREFIX, prefix(kept));
    }
    for _ in 0..SUBSETS {
        let share = rng.random_range(0.1..0.9);
        add(SUBSET, (0..unsynced).map(|_| rng.random_bool(share)).collect());
    }
    for torn in 0..unsynced {
        let mut fate: Vec<Fate> = prefix(torn).into_iter().map(Fate::from).collect();
        fate[torn] = Fate::Torn(rng.random_range(1..SECTOR_BYTES));
        fates.push((TORN, fate));
    }
    fates
}

fn check(disk: &Arc<SimulatedDisk>, allowed: &Allowed<'_>, kind: &'static str, tally: &mut Tally) {
    tally.count(kind);
    allowed.check_identity(disk);
    allowed.check_snapshots(disk);
    match allowed.check_log(disk, 1_000_000) {
        Ok(()) => {}
        Err(Refused::Log(damage)) if kind == TORN => {
            let files = disk.files(".wal");
            let file = files.iter().find(|(path, _)| *path == damage.file);
            let bytes = file.map_or(0, |(_, bytes)| bytes.len() as u64);
            assert!(damage.offset < bytes, "{damage}");
            tally.count(TORN_REFUSED);
        }
        Err(refused) => panic!("{refused:?}"),
    }
}

fn is_a(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|its| its == extension)
}

/// What the operations of a workload were.
fn count_operations(disk: &SimulatedDisk, tally: &mut Tally) {
    let trace = disk.trace();
    assert!(trace.len() >= LEAST_OPERATIONS, "only {} operations", trace.len());
    for operation in &trace {
        let kind = match operation.split_once(' ').unwrap() {
            ("write", path) if path.starts_with("/wal") => "operations: log written",
            ("rename", path) if is_a(path, "wal") => "operations: segment begun",
            ("rename", path) if path.contains("next-") => "operations: segment to be used again",
            ("rename", path) if is_a(path, "snapshot") => "operations: snapshot published",
            ("rename", path) if is_a(path, "damaged") => "operations: snapshot set aside",
            ("rename", "/identity") => "operations: identity replaced",
            _ => "operations: others",
        };
        tally.count(kind);
    }
}

fn count_acts(acts: &[(Act, State)], tally: &mut Tally) {
    for (act, _) in acts {
        match act {
            Act::Receive(_) => tally.count("acts: snapshot received"),
            Act::Take(_) => tally.count("acts: snapshot taken"),
            Act::Log(crate::log_model::Step::Append(batches))
                if batches.iter().any(|batch| batch.truncate_from.is_some()) =>
            {
                tally.count("acts: log truncated");
            }
            Act::Boot
            | Act::Found
            | Act::FinishFounding
            | Act::Log(_)
            | Act::Rot
            | Act::SetAside => {
                tally.count("acts: others");
            }
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let (wanted, nothing) = (wanted("DAMAGE_IMAGES", 80_000), State::default());
    let (mut tally, mut images, mut seed) = (Tally::default(), 0, 0);
    while images < wanted {
        seed += 1;
        let mut acts = workload(seed);
        let disk = SimulatedDisk::new();
        disk.record();
        run(&disk, &mut acts);
        count_operations(&disk, &mut tally);
        count_acts(&acts, &mut tally);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for (operation, (acknowledged, moment)) in disk.snapshots().into_iter().enumerate() {
            let _at = At { seed, operation };
            let allowed = Allowed::after(&acts, acknowledged, &nothing);
            for (kind, fates) in fates(moment.unsynced(), &mut rng) {
                let mut fates = fates.into_iter();
                let disk = moment.power_cut_by(|| fates.next().unwrap());
                check(&disk, &allowed, kind, &mut tally);
                images += 1;
            }
        }
    }
    tally.print(&format!("{images} crash images of {seed} workloads"));
    tally.require(&[ALL_LOST, PREFIX, SUBSET, TORN], 1000);
    tally.require(&[TORN_REFUSED, "acts: log truncated", "acts: snapshot taken"], 10);
    tally.require(&["acts: snapshot received", "operations: segment begun"], 3);
    tally.require(&["operations: segment to be used again", "operations: snapshot set aside"], 3);
}
