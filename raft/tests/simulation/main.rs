//! Random runs of whole clusters. A run is a function of its seed: five cores (and joiners) on a network that loses, repeats,
//! delays and reorders, on disks that lose what was not synced, with crashes, partitions, snapshots, changes of the
//! configuration, leaders that hand over, and nodes that leave and come back. All invariants are checked after every step; at the end everything heals and progress is demanded.
//!
//! A failure prints the line that repeats it. `SEED=n` runs one seed, `SEEDS=n` that many from zero on, and `TRACE=1` prints all
//! that is said and done (with `-- --nocapture`).

#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(clippy::print_stdout, reason = "TRACE prints what happens")]

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod course;
mod coverage;
mod elections;
mod healing;
mod invariants;
mod large_messages;
mod leaving;
mod nemesis;
mod network;
mod partial_connectivity;
mod snapshots;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use coverage::Coverage;
use world::World;

const DEFAULT_SEEDS: u64 = 1000;
/// Below this many seeds nothing is said about coverage.
const SEEDS_FOR_COVERAGE: u64 = 100;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn every_invariant_holds_in_every_run() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(DEFAULT_SEEDS),
    };
    let count = seeds.end - seeds.start;
    let mut total = Coverage::default();
    for seed in seeds {
        let run = catch_unwind(AssertUnwindSafe(|| World::new(seed).run()));
        let coverage = run.unwrap_or_else(|_| {
            panic!("to repeat: SEED={seed} cargo test -p raft --test simulation")
        });
        total.add(&coverage);
    }
    println!("{count} seeds: {total:?}");
    if count >= SEEDS_FOR_COVERAGE {
        total.demand_per_hundred_seeds(count / 100);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..5 {
        assert_eq!(World::new(seed).run(), World::new(seed).run(), "seed {seed}");
    }
}
