//! What happened in a run, so that a thin one is not taken for a good one.

use std::collections::BTreeMap;
use std::fmt;

use super::World;
use super::disk::{Fault, Hit};
use super::nemesis::{CRASH, DAMAGE, REFUSAL, fault_names};

/// Counts, by what was counted.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Events.
    pub steps: u64,
    /// Misfortunes, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Everything else worth a line.
    pub seen: BTreeMap<&'static str, u64>,
}

/// What a long run must have seen, each at least once: else it is thin.
pub const EXPECTED: [&str; 22] = [
    "role changes",
    "configurations in force",
    "power cuts",
    "crashes in the middle of a write or sync",
    "crashes while a snapshot is written",
    "writes refused for want of room",
    "bits flipped in a log",
    "bits flipped in a snapshot",
    "ends of raft because its log failed",
    "starts refused because of damage",
    "disks that forgot what they said was durable",
    "machines with new disks",
    "snapshots taken",
    "transfers of snapshots finished",
    "transfers of snapshots resumed",
    "restores finished",
    "nodes that left",
    "ends of raft right after a start",
    "writes that landed elsewhere",
    "ends of a state machine because its disk failed",
    "ends of a state machine in the middle of a restore",
    "strays that were turned away",
];

impl Coverage {
    /// One more of these.
    pub fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// One more misfortune.
    pub fn fault(&mut self, what: &'static str) {
        *self.faults.entry(what).or_default() += 1;
    }

    /// Misfortunes of all kinds.
    pub fn faults_total(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        for (what, count) in &other.faults {
            *self.faults.entry(what).or_default() += count;
        }
        for (what, count) in &other.seen {
            *self.seen.entry(what).or_default() += count;
        }
    }

    /// What of the expected things was never seen.
    pub fn missing(&self) -> Vec<&'static str> {
        let unseen = EXPECTED.into_iter().filter(|what| !self.seen.contains_key(what));
        unseen.chain(fault_names().filter(|what| !self.faults.contains_key(what))).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "faults, by kind:")?;
        for (what, count) in &self.faults {
            writeln!(f, "  {count:>8}  {what}")?;
        }
        writeln!(f, "seen:")?;
        self.seen.iter().try_for_each(|(what, count)| writeln!(f, "  {count:>8}  {what}"))
    }
}

impl World {
    /// What was met on a disk.
    pub fn note_hits(&mut self, hits: &[Hit]) {
        for hit in hits {
            match hit {
                Hit::Fault(Fault::Crash) => self.coverage.fault(CRASH),
                Hit::Fault(Fault::Refuse) => self.coverage.fault(REFUSAL),
                Hit::Fault(Fault::Misdirect) => {
                    self.coverage.fault(DAMAGE);
                    self.coverage.count("writes that landed elsewhere");
                }
                Hit::CrashInSnapshot => self.coverage.count("crashes while a snapshot is written"),
                Hit::Full => self.coverage.count("writes refused for want of room"),
            }
        }
    }
}
