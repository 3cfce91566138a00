//! What befalls raft's disks: slow, hanging, refusing, full, dying in an operation, damaged.

use rand::RngExt;

use super::super::World;
use super::super::agenda::{MS, SECOND};
use super::super::disk::Fault;
use super::super::event::Event;
use super::super::random::pick;
use super::Relief;

impl World {
    pub(super) fn fault_slow_disk(&mut self) -> bool {
        let slot = self.likely_leader();
        self.slots[slot].sync = pick([MS, 5 * MS, 40 * MS, 150 * MS], &mut self.nemesis.rng);
        true
    }

    pub(super) fn fault_hanging_disk(&mut self) -> bool {
        let slot = self.likely_leader();
        let lasts = self.nemesis.rng.random_range(300 * MS..4 * SECOND);
        self.slots[slot].hangs_until = self.now + lasts;
        true
    }

    pub(super) fn fault_refuse(&mut self) -> bool {
        let (slot, after) = (self.any(), self.nemesis.rng.random_range(0..6));
        self.slots[slot].disk.fail_after(after, Fault::Refuse);
        false
    }

    pub(super) fn fault_full(&mut self) -> bool {
        let slot = self.any();
        self.slots[slot].disk.fill(true);
        self.slots[slot].machine_disk.fill(true);
        let lasts = self.nemesis.rng.random_range(500 * MS..4 * SECOND);
        self.at(lasts, Event::Relief(Relief::Room(slot)));
        true
    }

    pub(super) fn fault_crash_at_operation(&mut self) -> bool {
        let (slot, after) = (self.any(), self.nemesis.rng.random_range(0..40));
        self.slots[slot].disk.fail_after(after, Fault::Crash);
        false
    }

    /// Damages a disk, if the atlas permits it, and ends its process: sooner or later it is read again.
    pub(super) fn fault_damage(&mut self) -> bool {
        let slot = self.any();
        let node = self.slots[slot].node;
        let permits = self
            .invariants
            .newest_membership()
            .is_some_and(|membership| self.atlas.permits(node, membership));
        if !permits || self.slots[slot].is_over {
            return false;
        }
        let kind = self.nemesis.rng.random_range(0..4);
        let disk = &self.slots[slot].disk;
        match kind {
            0 if disk.flip(".wal") => self.coverage.count("bits flipped in a log"),
            1 if disk.flip(".snapshot") => self.coverage.count("bits flipped in a snapshot"),
            2 => {
                disk.lie(true);
                let lasts = self.nemesis.rng.random_range(SECOND..4 * SECOND);
                let generation = self.slots[slot].generation;
                self.at(lasts, Event::Relief(Relief::Truth(slot, generation)));
            }
            3 => disk.fail_after(0, Fault::Misdirect),
            _ => return false,
        }
        self.atlas.mark(slot, node, kind == 2);
        // An operator replaces what is suspect in the end, whether or not it was noticed.
        let pause = self.nemesis.rng.random_range(2 * SECOND..10 * SECOND);
        self.replace_later(slot, pause);
        // For a write that lands elsewhere it is too soon: see `finish_sync`.
        if kind != 3 && self.nemesis.rng.random_bool(0.7) {
            self.kill_raft(slot);
        }
        kind != 3
    }
}
