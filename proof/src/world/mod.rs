//! A whole cluster in one thread, from one seed: the real code of every layer that does no I/O, and a world around it in which
//! everything goes wrong.
//!
//! ```text
//!             agenda: what happens when ──▶ one event at a time, each folded into the trace
//!  slot (a machine)          │
//!   ├ member  swim core ─────┤ datagrams                   ┌ clients: sessions, retries, histories
//!   ├ raft    both stages ───┼ calls ── network: loss, ────┤
//!   │          log, snapshots│          delay, cuts        └ nemesis: kills, pauses, cuts, bad disks
//!   ├ state machine  host ───┘ pipe
//!   └ disk (of raft), disk (of the machine): memory that tears, loses, refuses and lies
//! ```
//!
//! | module | what it knows |
//! |---|---|
//! | `agenda`, `random`, `trace` | order, chance and the trace's digest: all that determinism needs |
//! | `plan` | what a run is like, drawn from its seed |
//! | `disk`, `network`, `shadow` | how the world fails; what is really on a disk |
//! | `slot`, `raft_process`, `machine`, `member_process` | a machine and its processes |
//! | `stages`, `log`, `peers`, `callers`, `link`, `restore`, `keeper`, `sending`, `receiving`, `roster` | what the tasks around the stages do, as events |
//! | `clients`, `operation` | what clients want, what they saw |
//! | `nemesis`, `atlas`, `lifecycle`, `replacing` | what goes wrong; what of it a cluster must bear; processes that end and start; machines with new disks |
//! | `invariants` | what holds after each step |
//! | `healing`, `coverage`, `scenarios` | the end of a run: everything works again, and the run was not thin |
//!
//! What may be lost is in `atlas`: never an acknowledged write while a majority of disks is sound.
//!
//! Not here: the tasks around the stages are modelled, not run (so are the client library and the ends of connections), queues have no
//! bounds, only appends go through their codec, the identity file never fails, and a state machine's store is a value that keeps whole writes. Elections that disturb without
//! harm pass unseen: nothing bounds how long the cluster may be without a leader while things go wrong, only once they are mended.

#![allow(unreachable_pub, reason = "the parts are private; `pub` says what they are to each other")]

mod agenda;
mod atlas;
mod callers;
mod clients;
pub mod coverage;
mod disk;
mod event;
mod healing;
mod invariants;
mod keeper;
mod lifecycle;
mod link;
mod log;
mod machine;
mod member_process;
mod nemesis;
mod network;
mod operation;
mod peers;
mod plan;
mod raft_process;
mod random;
mod receiving;
mod replacing;
mod restore;
mod roster;
mod run;
pub mod scenarios;
mod sending;
mod shadow;
mod slot;
mod stages;
mod trace;

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::time::Instant;

use raft::consensus::NodeId;

pub use self::agenda::{SECOND, Time};
pub use self::plan::{Plan, Plant};
pub use self::run::{Failure, Report, run};

use self::agenda::Agenda;
use self::atlas::Atlas;
use self::clients::Clients;
use self::coverage::Coverage;
use self::event::{Event, Part, Process};
use self::invariants::Invariants;
use self::nemesis::Nemesis;
use self::network::Network;
use self::random::Rng;
use self::shadow::Lost;
use self::slot::Slot;
use self::trace::Fnv;

/// The cluster that is founded in every run.
const CLUSTER: u128 = 0x000c_1a57_e4ed;

/// Everything there is in a run.
struct World {
    seed: u64,
    plan: Plan,
    now: Time,
    agenda: Agenda<Event>,
    slots: Vec<Slot>,
    /// Where a node lives. One that is gone for good lives nowhere.
    places: BTreeMap<NodeId, usize>,
    /// What was on disks that are gone for good, by the node that lived there.
    lost: BTreeMap<NodeId, Lost>,
    network: Network,
    clients: Clients,
    nemesis: Nemesis,
    atlas: Atlas,
    invariants: Invariants,
    coverage: Coverage,
    /// Chance of schedules: how long things take.
    rng: Rng,
    trace: Fnv,
    /// What the machine's host takes for the beginning of time.
    epoch: Instant,
    prints: bool,
}

impl World {
    /// Carries out the next event.
    fn step(&mut self) {
        let (at, event) = self.agenda.pop().expect("there is always a next tick");
        self.now = self.now.max(at);
        self.coverage.steps += 1;
        if let Some(process) = event.process() {
            let slot = &self.slots[process.slot];
            if !slot.runs(process) {
                return;
            }
            if let Some(until) = slot.paused(process.part, self.now) {
                return self.agenda.push(until, event);
            }
        }
        self.trace.write_u64(self.now << 8 | event.number());
        self.say(|| format!("{event:?}"));
        self.dispatch(event);
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Tick(process) => self.tick(process),
            Event::Wake(process) => self.wake(process.slot),
            Event::WakeCommits(process) => self.wake_commits(process.slot),
            Event::Synced(process) => self.finish_sync(process.slot),
            Event::Hear(process, event) => self.hear(process.slot, *event),
            Event::Packet(packet) => self.receive(*packet),
            Event::Link(process, heard) => self.hear_link(process.slot, *heard),
            Event::Connect(process) => self.connect_link(process.slot),
            Event::Machine(process, call) => self.call_machine(process.slot, *call),
            Event::MachineSync(process) => self.sync_machine(process.slot),
            Event::Look(process) => self.look(process.slot),
            Event::Leaving(process) => self.ask_to_leave(process.slot),
            Event::Roster(process) => self.look_at_roster(process.slot),
            Event::SendLate(process, peer, attempt) => {
                self.sending_is_late(process.slot, peer, attempt);
            }
            Event::Gossip(process) => self.gossip(process.slot),
            Event::Client(client, what) => self.client(client, what),
            Event::Start(slot, part) => self.start(slot, part),
            Event::Replace(slot, generation) if generation == self.slots[slot].generation => {
                self.replace(slot);
            }
            Event::Replace(..) => {}
            Event::End(process) => self.end_start(process.slot),
            Event::Nemesis => self.strike(),
            Event::Relief(relief) => self.relieve(relief),
        }
    }

    /// For people who follow a run.
    #[allow(clippy::print_stdout, reason = "that is what they asked for")]
    fn say(&self, what: impl FnOnce() -> String) {
        if self.prints {
            println!("{} {}", self.now, what());
        }
    }

    /// Later.
    fn at(&mut self, delay: Time, event: Event) {
        self.agenda.push(self.now + delay, event);
    }

    fn raft_of(&self, slot: usize) -> Process {
        self.slots[slot].process(slot, Part::Raft)
    }

    fn host_now(&self) -> Instant {
        self.epoch + std::time::Duration::from_micros(self.now)
    }
}
