//! Everything at once, by seed.
//!
//! `FIRST_SEED`, `SEEDS` and `SIMULATED_SECONDS` say where to begin, how many, and how long each goes wrong. A failure names its seed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::harness::cluster::Cluster;
use crate::harness::faults::{Faults, Kind};
use crate::harness::number;
use crate::harness::verdict::{busy, judge};

/// Seeds of an ordinary run.
const SEEDS: u64 = 20;
/// Simulated time of each with faults.
const SECONDS: u64 = 60;
/// Answers in a second below which a run shows nothing.
const LEAST_ANSWERED_A_SECOND: u64 = 10;
/// Most requests in a hundred whose outcome may stay unknown in a run that shows something.
const MOST_UNKNOWN_PERCENT: usize = 20;
/// So many seeds together see every kind of fault.
const ENOUGH_SEEDS: u64 = 20;

/// What came of one run, or of several.
#[derive(Debug, Default)]
struct Report {
    answered: usize,
    unknown: usize,
    refused: usize,
    leaders: usize,
    compacted: usize,
    faults: BTreeMap<Kind, usize>,
}

impl Report {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.leaders += other.leaders;
        self.compacted += other.compacted;
        for (kind, count) in other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

fn run(seed: u64, seconds: u64) -> Report {
    let nodes = if seed.is_multiple_of(4) { 5 } else { 3 };
    let mut cluster = Cluster::formed(seed, nodes);
    let clients = busy(&mut cluster, seed);
    let mut faults = Faults::new(seed);
    let end = cluster.sim.elapsed() + Duration::from_secs(seconds);
    while cluster.sim.elapsed() < end {
        faults.step(&mut cluster);
        cluster.step();
    }
    faults.end_all(&mut cluster);
    let tally = judge(&mut cluster, &clients);
    Report {
        answered: tally.answered,
        unknown: tally.unknown,
        refused: tally.refused,
        leaders: cluster.leaders(),
        compacted: cluster.compacted(),
        faults: faults.counts,
    }
}

#[test]
fn clients_are_served_right_whatever_fails() {
    let (first, seeds) = (number("FIRST_SEED", 1), number("SEEDS", SEEDS));
    let seconds = number("SIMULATED_SECONDS", SECONDS);
    let mut all = Report::default();
    for seed in first..first + seeds {
        eprintln!("seed {seed}: FIRST_SEED={seed} SEEDS=1 SIMULATED_SECONDS={seconds} repeats it");
        let report = run(seed, seconds);
        eprintln!("seed {seed}: {report:?}");
        let done = report.answered + report.unknown;
        assert!(report.answered as u64 >= LEAST_ANSWERED_A_SECOND * seconds, "a thin run");
        assert!(report.unknown * 100 <= MOST_UNKNOWN_PERCENT * done, "nobody knows much");
        all.add(report);
    }
    eprintln!("all {seeds} seeds: {all:#?}");
    if seeds >= ENOUGH_SEEDS {
        assert_eq!(all.faults.len(), Kind::ALL.len(), "a kind of fault was missed");
        assert!(all.leaders as u64 > 2 * seeds, "too few elections");
        assert!(all.compacted > 0, "no log was ever compacted");
    }
}
