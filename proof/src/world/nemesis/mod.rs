//! What goes wrong, and for how long.

mod disks;
mod machines;
mod operators;

use raft::consensus::RoleName;
use raft::pipeline::digest_entries::EntriesEvent;
use rand::RngExt;

use super::World;
use super::agenda::{MS, SECOND};
use super::event::{Event, Part};
use super::network::Weather;
use super::random::{Rng, pick, stream};

/// Brings misfortune until it is told to stop.
pub struct Nemesis {
    rng: Rng,
    /// Nothing new goes wrong any more.
    pub stopped: bool,
    /// Counts what is to be relieved, so that a relief does not end what came later.
    cuts: u64,
}

/// Something that is over.
#[derive(Clone, Copy, Debug)]
pub enum Relief {
    /// A partition.
    Network(u64),
    /// A full disk.
    Room(usize),
    /// A lying disk.
    Truth(usize, u64),
}

impl Nemesis {
    /// Of this seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: stream(seed, "nemesis"), stopped: false, cuts: 0 }
    }
}

/// Brings it about, and says whether it did anything at once. What waits for an operation counts when that comes.
type Misfortune = fn(&mut World) -> bool;

// What is set up first, and counts when it is met.
pub const CRASH: &str = "crashes at a disk operation";
pub const REFUSAL: &str = "refused writes or syncs";
pub const DAMAGE: &str = "damaged disks";
pub const MACHINE_CRASH: &str = "crashes at an operation of a state machine's disk";
pub const MACHINE_REFUSAL: &str = "refused operations of a state machine's disk";
pub const RESTORE_ENDS: &str = "ends in the middle of a restore";

/// Everything that can go wrong, by how often it does.
const FAULTS: [(u32, &str, Misfortune); 29] = [
    (8, "kills of raft", World::fault_kill_raft),
    (5, "kills of a state machine", World::fault_kill_machine),
    (4, "kills of a member", World::fault_kill_member),
    (5, "power cuts of a machine", World::fault_power_cut),
    (1, "power cuts of all machines", World::fault_power_cut_all),
    (8, "pauses of raft", World::fault_pause_raft),
    (3, "pauses of a state machine", World::fault_pause_machine),
    (3, "pauses of a member", World::fault_pause_member),
    (4, "partitions in two", World::fault_halves),
    (5, "machines cut off", World::fault_cut_off),
    (4, "one-way cuts", World::fault_one_way),
    (4, "partial partitions", World::fault_partial),
    (4, "changes of weather", World::fault_weather),
    (5, "link resets", World::fault_reset),
    (3, "slow disks", World::fault_slow_disk),
    (3, "hanging disks", World::fault_hanging_disk),
    (4, REFUSAL, World::fault_refuse),
    (2, "full disks", World::fault_full),
    (6, CRASH, World::fault_crash_at_operation),
    (4, DAMAGE, World::fault_damage),
    (4, "ends of raft that follow each other", World::fault_starts_end),
    (3, MACHINE_REFUSAL, World::fault_machine_refuses),
    (2, MACHINE_CRASH, World::fault_machine_crashes),
    (2, "data of a state machine thrown away", World::fault_machine_forgets),
    (3, RESTORE_ENDS, World::fault_restore_ends),
    (5, "broken links to a state machine", World::fault_link_breaks),
    (3, "strays that dial a state machine", World::fault_stray),
    (3, "clock jumps", World::fault_clock),
    (5, "wishes of operators", World::fault_operator),
];

/// What each kind of misfortune is called.
pub fn fault_names() -> impl Iterator<Item = &'static str> {
    FAULTS.iter().map(|(_, name, _)| *name)
}

impl World {
    /// Something goes wrong, and the next thing is planned.
    pub fn strike(&mut self) {
        if self.nemesis.stopped {
            return;
        }
        let every = self.plan.fault_every;
        let pause = self.nemesis.rng.random_range(every / 4..=every * 7 / 4);
        self.at(pause, Event::Nemesis);
        let total: u32 = FAULTS.iter().map(|(weight, ..)| weight).sum();
        let mut drawn = self.nemesis.rng.random_range(0..total);
        for (weight, name, fault) in FAULTS {
            if drawn < weight {
                self.say(|| format!("nemesis: {name}"));
                if fault(self) {
                    self.coverage.fault(name);
                }
                return;
            }
            drawn -= weight;
        }
    }

    /// Something is over.
    pub fn relieve(&mut self, relief: Relief) {
        match relief {
            Relief::Network(cuts) if cuts == self.nemesis.cuts => self.network.mend(),
            Relief::Network(_) => {}
            Relief::Room(slot) => {
                self.slots[slot].disk.fill(false);
                self.slots[slot].machine_disk.fill(false);
            }
            Relief::Truth(slot, generation) => {
                self.slots[slot].disk.lie(false);
                // What it lied about is seen at a power cut only.
                if self.slots[slot].generation == generation && self.nemesis.rng.random_bool(0.8) {
                    self.cut_power(slot);
                }
            }
        }
    }

    fn any(&mut self) -> usize {
        self.nemesis.rng.random_range(0..self.slots.len())
    }

    fn runs(&self, slot: usize, part: Part) -> bool {
        let slot = &self.slots[slot];
        match part {
            Part::Raft => slot.raft.is_some(),
            Part::Machine => slot.machine.is_some(),
            Part::Member => slot.member.is_some(),
        }
    }

    /// A machine, often the leader's.
    fn likely_leader(&mut self) -> usize {
        let any = self.any();
        if self.nemesis.rng.random_bool(0.5) { self.leader().unwrap_or(any) } else { any }
    }

    /// Where somebody leads, in the highest term.
    pub fn leader(&self) -> Option<usize> {
        let leads = |slot: &usize| {
            let raft = self.slots[*slot].raft.as_ref()?;
            let core = raft.entries.raft();
            (core.role() == RoleName::Leader).then(|| core.hard_state().term)
        };
        (0..self.slots.len()).filter(|slot| leads(slot).is_some()).max_by_key(leads)
    }

    fn fault_kill_raft(&mut self) -> bool {
        let slot = self.likely_leader();
        let runs = self.runs(slot, Part::Raft);
        self.kill_raft(slot);
        runs
    }

    fn fault_kill_machine(&mut self) -> bool {
        let slot = self.any();
        let runs = self.runs(slot, Part::Machine);
        self.kill_machine(slot);
        runs
    }

    fn fault_kill_member(&mut self) -> bool {
        let slot = self.any();
        let runs = self.runs(slot, Part::Member);
        self.kill_member(slot);
        runs
    }

    /// Misfortune seldom comes alone: raft ends again as soon as it has started, or even while it does.
    fn fault_starts_end(&mut self) -> bool {
        let slot = self.likely_leader();
        let runs = self.runs(slot, Part::Raft);
        self.slots[slot].start_ends += self.nemesis.rng.random_range(1..=3);
        self.kill_raft(slot);
        runs
    }

    fn fault_power_cut(&mut self) -> bool {
        let slot = self.likely_leader();
        self.cut_power(slot);
        true
    }

    fn fault_power_cut_all(&mut self) -> bool {
        (0..self.slots.len()).for_each(|slot| self.cut_power(slot));
        true
    }

    fn fault_pause_raft(&mut self) -> bool {
        let slot = self.likely_leader();
        self.pause(slot, Part::Raft)
    }

    fn fault_pause_machine(&mut self) -> bool {
        let slot = self.any();
        self.pause(slot, Part::Machine)
    }

    fn fault_pause_member(&mut self) -> bool {
        let slot = self.any();
        self.pause(slot, Part::Member)
    }

    fn pause(&mut self, slot: usize, part: Part) -> bool {
        let longest = pick([300 * MS, SECOND, 4 * SECOND], &mut self.nemesis.rng);
        let until = self.now + self.nemesis.rng.random_range(50 * MS..=longest);
        self.slots[slot].paused_until[part as usize] = until;
        self.runs(slot, part)
    }

    fn until_relief(&mut self) {
        self.nemesis.cuts += 1;
        let lasts = self.nemesis.rng.random_range(200 * MS..5 * SECOND);
        self.at(lasts, Event::Relief(Relief::Network(self.nemesis.cuts)));
    }

    fn fault_halves(&mut self) -> bool {
        let count = self.slots.len();
        let side: Vec<bool> = (0..count).map(|_| self.nemesis.rng.random_bool(0.5)).collect();
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            if side[from] != side[to] {
                self.network.cut(from, to);
            }
        }
        self.until_relief();
        side.contains(&true) && side.contains(&false)
    }

    fn fault_cut_off(&mut self) -> bool {
        let slot = self.likely_leader();
        for other in 0..self.slots.len() {
            self.network.cut(slot, other);
            self.network.cut(other, slot);
        }
        self.until_relief();
        true
    }

    fn fault_one_way(&mut self) -> bool {
        let (slot, out) = (self.likely_leader(), self.nemesis.rng.random_bool(0.5));
        for other in 0..self.slots.len() {
            let (from, to) = if out { (slot, other) } else { (other, slot) };
            self.network.cut(from, to);
        }
        self.until_relief();
        true
    }

    fn fault_partial(&mut self) -> bool {
        let mut cuts = false;
        for _ in 0..2 {
            let (a, b) = (self.any(), self.any());
            self.network.cut(a, b);
            self.network.cut(b, a);
            cuts |= a != b;
        }
        self.until_relief();
        cuts
    }

    fn fault_weather(&mut self) -> bool {
        self.network.weather = Weather::random(&mut self.nemesis.rng);
        true
    }

    fn fault_reset(&mut self) -> bool {
        let (a, b) = (self.likely_leader(), self.any());
        for (here, there) in [(a, b), (b, a)] {
            let peer = self.slots[there].node;
            self.hear(here, EntriesEvent::PeerUnreachable(peer));
        }
        let peer = self.slots[a].node;
        if self.nemesis.rng.random_bool(0.3) && a != b {
            self.hear(b, EntriesEvent::LinkLost(peer));
        }
        a != b
    }

    fn fault_clock(&mut self) -> bool {
        let slot = self.likely_leader();
        let jump = self.nemesis.rng.random_range(-3_600_000..3_600_000);
        self.slots[slot].wall_offset_ms = jump;
        true
    }
}
