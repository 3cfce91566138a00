//! What goes wrong, and when: drawn from a seed before anything runs, so that every protocol meets the same.

use std::collections::BTreeSet;

use rand::rngs::ChaCha12Rng;
use rand::{RngExt, SeedableRng};

use crate::network::INTRODUCERS;

/// One thing that goes wrong, or is mended.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A process stops for a while.
    Pause { member: usize, ms: u64 },
    /// A process ends without a word.
    Crash { member: usize },
    /// A member says good-bye.
    Leave { member: usize },
    /// A process starts.
    Start { member: usize },
    /// These are cut off from the others.
    Cut { group: BTreeSet<usize> },
    /// Everyone reaches everyone again.
    Heal,
}

/// Faults, with the time of each since the beginning, in ms.
pub(crate) struct Plan {
    members: usize,
    length_ms: u64,
    rng: ChaCha12Rng,
    faults: Vec<(u64, Fault)>,
}

impl Plan {
    pub(crate) fn new(seed: u64, members: usize, length_ms: u64) -> Self {
        let rng = ChaCha12Rng::seed_from_u64(seed ^ 0xfa_17);
        Self { members, length_ms, rng, faults: Vec::new() }
    }

    pub(crate) fn faults(mut self) -> Vec<(u64, Fault)> {
        self.faults.sort_by_key(|(at_ms, _)| *at_ms);
        self.faults
    }

    /// Each member is paused once in `every_ms` on average, for a time between `shortest_ms` and `longest_ms`; each
    /// doubling of the time is equally likely.
    pub(crate) fn pauses(mut self, every_ms: u64, shortest_ms: u64, longest_ms: u64) -> Self {
        let doublings = (longest_ms as f64 / shortest_ms as f64).log2();
        for _ in 0..self.length_ms * self.members as u64 / every_ms {
            let at_ms = self.rng.random_range(0..self.length_ms);
            let member = self.rng.random_range(0..self.members);
            let length = shortest_ms as f64 * self.rng.random_range(0.0..doublings).exp2();
            self.faults.push((at_ms, Fault::Pause { member, ms: length as u64 }));
        }
        self
    }

    /// Crashes and good-byes, as many of each; those members come back through the introducers after a minute.
    pub(crate) fn comings_and_goings(mut self, count: usize) -> Self {
        for _ in 0..count {
            let crashing = self.someone();
            let at_ms = self.rng.random_range(0..self.length_ms);
            self.faults.push((at_ms, Fault::Crash { member: crashing }));
            self.faults.push((at_ms + 60_000, Fault::Start { member: crashing }));
            let leaving = self.someone();
            let at_ms = self.rng.random_range(0..self.length_ms);
            self.faults.push((at_ms, Fault::Leave { member: leaving }));
            self.faults.push((at_ms + 2_000, Fault::Crash { member: leaving }));
            self.faults.push((at_ms + 60_000, Fault::Start { member: leaving }));
        }
        self
    }

    fn someone(&mut self) -> usize {
        self.rng.random_range(INTRODUCERS.len()..self.members)
    }

    /// One after the other: a group of any size is cut off for up to a minute, in every `every_ms`.
    pub(crate) fn partitions(mut self, every_ms: u64) -> Self {
        let mut at_ms = every_ms / 2;
        while at_ms < self.length_ms {
            let size = self.rng.random_range(1..=self.members / 2);
            let group = (0..size).map(|_| self.rng.random_range(0..self.members)).collect();
            self.faults.push((at_ms, Fault::Cut { group }));
            let heals_ms = at_ms + self.rng.random_range(1_000..60_000.min(every_ms));
            self.faults.push((heals_ms, Fault::Heal));
            at_ms += every_ms;
        }
        self
    }
}
