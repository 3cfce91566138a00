//! Power cuts: at every operation, with every kind of loss.

use std::sync::Arc;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::model::{At, History, Model, Step, carry_out, open, open_to};
use crate::simulated_disk::SimulatedDisk;

/// Runs the history; the disk's mark says how many steps were acknowledged.
fn run(disk: &Arc<SimulatedDisk>, steps: &[(Step, Model)]) {
    let (mut wal, _) = open(disk, 0).unwrap();
    for (number, (step, model)) in steps.iter().enumerate() {
        if matches!(step, Step::Reopen) {
            drop(wal);
            let (again, restored) = open(disk, number as u64).unwrap();
            wal = again;
            model.check(&mut wal, &restored);
        } else {
            carry_out(&mut wal, step).unwrap();
        }
        model.check_entries(&mut wal);
        disk.mark(number + 1);
    }
}

/// Opens to an allowed state, then goes on from there for a while.
fn check(disk: &Arc<SimulatedDisk>, steps: &[(Step, Model)], acknowledged: usize, seed: u64) {
    let (mut wal, mut model) = open_to(disk, steps, acknowledged, seed);
    let mut history = History::new(seed);
    for number in 0..3 {
        let step = history.step(&model);
        if matches!(step, Step::Reopen) {
            drop(wal);
            wal = open(disk, seed + number + 1).unwrap().0;
        }
        carry_out(&mut wal, &step).unwrap();
        model.follow(&step);
    }
    drop(wal);
    let (mut wal, restored) = open(&disk.power_cut(|| false), seed + 10).unwrap();
    model.check(&mut wal, &restored);
}

#[test]
fn a_power_cut_while_opening_after_a_power_cut_loses_nothing_either() {
    for seed in 100..104 {
        let steps = History::new(seed).steps(25);
        let disk = SimulatedDisk::new();
        disk.record();
        run(&disk, &steps);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for (operation, (acknowledged, snapshot)) in
            disk.snapshots().into_iter().enumerate().step_by(3)
        {
            let _at = At { seed, operation };
            let disk = snapshot.power_cut(|| rng.random_bool(0.5));
            disk.record();
            drop(open(&disk, 500).unwrap());
            for (_, snapshot) in disk.snapshots() {
                check(&snapshot.power_cut(|| rng.random_bool(0.5)), &steps, acknowledged, 600);
            }
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    for seed in 0..12 {
        let steps = History::new(seed).steps(40);
        let disk = SimulatedDisk::new();
        disk.record();
        run(&disk, &steps);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for (operation, (acknowledged, snapshot)) in disk.snapshots().into_iter().enumerate() {
            let _at = At { seed, operation };
            let seed = 1000 + operation as u64;
            check(&snapshot.power_cut(|| false), &steps, acknowledged, seed);
            check(&snapshot.power_cut(|| true), &steps, acknowledged, seed);
            for share in [0.1, 0.5, 0.9] {
                check(&snapshot.power_cut(|| rng.random_bool(share)), &steps, acknowledged, seed);
            }
        }
    }
}
