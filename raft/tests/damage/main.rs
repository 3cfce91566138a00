//! A node's whole directory (log, snapshots, identity) against power cuts and flipped bits, by the ten thousand: each image
//! opens to exactly what was acknowledged, and perhaps what was under way, or is refused with its place.
//!
//! `DAMAGE_IMAGES` and `DAMAGE_FLIPS` ask for more of them (`scripts/damage.sh`); what was tried is printed, and too little is
//! a failure.

#![allow(dead_code, reason = "the models of logs and of snapshots serve other tests, too")]
#![expect(clippy::unwrap_used, reason = "here a failed unwrap is a failed test")]

mod flips;
mod images;
#[path = "../wal_crash/model.rs"]
mod log_model;
mod node;
#[path = "../support/simulated_disk.rs"]
mod simulated_disk;
#[path = "../snapshots/model.rs"]
mod snapshot_model;
mod workload;

use std::collections::BTreeMap;

/// What was tried, by kind.
#[derive(Default)]
struct Tally(BTreeMap<&'static str, usize>);

impl Tally {
    fn count(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    fn of(&self, kind: &str) -> usize {
        self.0.get(kind).copied().unwrap_or_default()
    }

    /// Panics unless each of these was met so often.
    fn require(&self, kinds: &[&str], least: usize) {
        for kind in kinds {
            assert!(self.of(kind) >= least, "{kind}: only {} of {least}", self.of(kind));
        }
    }

    #[expect(clippy::print_stderr, reason = "how much was tried is a part of the result")]
    fn print(&self, title: &str) {
        eprintln!("{title}");
        for (kind, count) in &self.0 {
            eprintln!("{count:>10} {kind}");
        }
    }
}

/// How many are asked for; by default so many that the gate has some seconds of them.
fn wanted(variable: &str, by_default: usize) -> usize {
    const LEAST: usize = 20_000;
    std::env::var(variable).map_or(by_default, |text| text.parse().unwrap()).max(LEAST)
}
