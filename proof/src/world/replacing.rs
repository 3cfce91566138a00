//! Operators give a machine new disks.

use raft::consensus::{LogId, NodeId};
use rand::RngExt;

use super::World;
use super::agenda::{MS, SECOND, Time};
use super::disk::SimulatedDisk;
use super::event::{Event, Part};
use super::machine::MachineDisk;
use super::random::stream;
use super::shadow::{Lost, Shadow};

impl World {
    /// An operator will look after a machine.
    pub fn replace_later(&mut self, slot: usize, pause: Time) {
        let generation = self.slots[slot].generation;
        self.at(pause, Event::Replace(slot, generation));
    }

    /// An operator gives a machine new, empty disks: what starts there then is another node.
    pub fn replace(&mut self, slot: usize) {
        self.coverage.count("machines with new disks");
        self.slots[slot].is_over = true;
        self.end_raft(slot);
        self.kill_machine(slot);
        self.kill_member(slot);
        let old = self.slots[slot].node;
        self.places.remove(&old);
        let lost =
            Lost { log: self.slots[slot].shadow.clone(), snapshot: self.slots[slot].snapshot };
        self.lost.insert(old, lost);
        let generation = self.slots[slot].generation + 1;
        let node = node_id(self.seed, slot, generation);
        self.places.insert(node, slot);
        let here = &mut self.slots[slot];
        here.generation = generation;
        here.node = node;
        here.boot = 0;
        here.cluster = None;
        here.incarnation = 0;
        here.disk = SimulatedDisk::new(stream(self.seed, &format!("disk {slot} {generation}")));
        let rng = stream(self.seed, &format!("machine {slot} {generation}"));
        here.machine_disk = MachineDisk::new(here.machine_disk.keeps(), rng);
        here.shadow = Shadow::default();
        here.snapshot = LogId::default();
        here.perhaps.clear();
        here.hangs_until = 0;
        here.is_over = false;
        let pause = self.rng.random_range(50 * MS..SECOND);
        self.at(pause, Event::Start(slot, Part::Raft));
    }
}

/// The node of a machine's how manieth life.
pub fn node_id(seed: u64, slot: usize, generation: u64) -> NodeId {
    let mut rng = stream(seed, &format!("node {slot} {generation}"));
    NodeId(rng.random_range(1..=u64::MAX >> 8) << 8 | (slot as u64 + 1))
}
