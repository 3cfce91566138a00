//! What befalls state machines: their disks, their link to raft, restores, and rafts that are none of their business.

use rand::RngExt;
use state_machine::rpc::{Attach, CONTRACT_VERSION};

use super::super::World;
use super::super::agenda::MS;
use super::super::event::{Event, Heard, MachineWork, Part, ToMachine};
use super::super::machine::{MachineFault, MachineProcess};
use super::super::random::pick;

impl World {
    pub(super) fn fault_machine_refuses(&mut self) -> bool {
        let (slot, after) = (self.any(), self.nemesis.rng.random_range(0..12));
        self.slots[slot].machine_disk.fail_after(after, MachineFault::Refuse);
        false
    }

    pub(super) fn fault_machine_crashes(&mut self) -> bool {
        let (slot, after) = (self.any(), self.nemesis.rng.random_range(0..12));
        self.slots[slot].machine_disk.fail_after(after, MachineFault::Crash);
        false
    }

    /// The machine is to be rebuilt from a snapshot or the whole log.
    pub(super) fn fault_machine_forgets(&mut self) -> bool {
        let slot = self.any();
        self.forget_machine(slot);
        true
    }

    fn forget_machine(&mut self, slot: usize) {
        self.kill_machine(slot);
        self.slots[slot].machine_disk.throw_away();
    }

    /// Restores are rare: this one is brought about, and so is its end.
    pub(super) fn fault_restore_ends(&mut self) -> bool {
        let slot = self.any();
        self.slots[slot].restore_ends += self.nemesis.rng.random_range(1..=2);
        if self.nemesis.rng.random_bool(0.7) {
            self.forget_machine(slot);
        }
        false
    }

    /// The connection stalls and breaks while both processes live. What raft had sent by then arrives, however late.
    pub(super) fn fault_link_breaks(&mut self) -> bool {
        let slot = self.likely_leader();
        let stall = pick([MS, 30 * MS, 300 * MS], &mut self.nemesis.rng);
        let stall = self.nemesis.rng.random_range(0..stall);
        let late = self.nemesis.rng.random_range(0..800 * MS);
        let process = self.raft_of(slot);
        let until = self.now + stall + late;
        let Some(raft) = &mut self.slots[slot].raft else { return false };
        let attachment = raft.link.attachment;
        raft.link.stragglers = (attachment, until);
        let broken = Heard::Down(attachment, "the connection broke".to_owned());
        self.at(stall, Event::Link(process, Box::new(broken)));
        attachment != 0
    }

    /// A raft that has nothing to do with this machine dials it: of another cluster, or of another node, as after a disk was copied or an
    /// address given away.
    pub(super) fn fault_stray(&mut self) -> bool {
        let (slot, other) = (self.any(), self.any());
        let machine = self.slots[slot].process(slot, Part::Machine);
        let Some(ours) = self.slots[slot].machine.as_ref().and_then(MachineProcess::attachment)
        else {
            return false;
        };
        let rng = &mut self.nemesis.rng;
        let boot = (ours.boot + 2).saturating_sub(rng.random_range(0..=3));
        let mut attach = Attach {
            contract: CONTRACT_VERSION,
            cluster: if rng.random_bool(0.7) { rng.random() } else { ours.cluster },
            node: if rng.random_bool(0.7) { ours.node } else { self.slots[other].node.0 },
            boot,
        };
        if (attach.cluster, attach.node) == (ours.cluster, ours.node) {
            attach.cluster ^= 1;
        }
        let what = MachineWork::Stray(attach);
        let call = ToMachine { start: 0, boot, attachment: 0, what };
        self.at(MS, Event::Machine(machine, Box::new(call)));
        true
    }
}
