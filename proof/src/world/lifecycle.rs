//! Processes end and start, and machines lose their power.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use raft::consensus::{Config, HardState, Index, LogId, Membership, NodeInfo, Raft, Restored};
use raft::metrics::Metrics;
use raft::pipeline::digest_commits::DigestCommits;
use raft::pipeline::digest_entries::{DigestEntries, EntriesEvent};
use raft::process::{Places, RunError, Stored};
use raft::roster::Autopilot;
use raft::shelf::Shelf;
use raft::tasks::{Synced, log_events};
use raft::wal::{Disk, Options, Worker};
use rand::RngExt;
use state_machine::machine::MachineError;
use tokio::sync::{mpsc, watch};

use super::World;
use super::agenda::{MS, SECOND};
use super::disk::Fault;
use super::event::{Event, Part, Process};
use super::machine::MachineProcess;
use super::nemesis::{MACHINE_CRASH, MACHINE_REFUSAL};
use super::plan::Plant;
use super::raft_process::{Log, RaftProcess};
use super::random::pick;
use super::roster::raft_address;
use super::shadow::Shadow;

impl World {
    /// Starts a process, unless it runs or cannot.
    pub fn start(&mut self, slot: usize, part: Part) {
        match part {
            Part::Raft if self.slots[slot].raft.is_none() && !self.slots[slot].is_over => {
                self.start_raft(slot);
            }
            Part::Machine if self.slots[slot].machine.is_none() => self.start_machine(slot),
            Part::Member if self.slots[slot].member.is_none() => self.start_member(slot),
            Part::Raft | Part::Machine | Part::Member => {}
        }
    }

    fn start_raft(&mut self, slot: usize) {
        self.befall_start(slot);
        match self.open_disk(slot) {
            Ok(stored) => self.run_raft(slot, stored),
            Err(error) => self.disk_refused(slot, &error),
        }
    }

    /// What befalls a start: the machine dies in one of its writes, or right after it.
    fn befall_start(&mut self, slot: usize) {
        if self.slots[slot].start_ends == 0 {
            return;
        }
        self.slots[slot].start_ends -= 1;
        if self.rng.random_bool(0.3) {
            let operations = self.rng.random_range(0..12);
            return self.slots[slot].disk.fail_after(operations, Fault::Crash);
        }
        let starts = self.slots[slot].starts[Part::Raft as usize];
        let start = Process { slot, part: Part::Raft, start: starts + 1 };
        let delay = pick([MS, 10 * MS, 100 * MS], &mut self.rng);
        let delay = self.rng.random_range(0..delay);
        self.at(delay, Event::End(start));
    }

    fn open_disk(&mut self, slot: usize) -> Result<Stored, RunError> {
        let seed = self.rng.random();
        let here = &self.slots[slot];
        let places = Places {
            wal: PathBuf::from("wal"),
            snapshots: PathBuf::from("snapshots"),
            cluster: here.cluster,
            keep_snapshots: self.plan.keep_snapshots,
            log: Options {
                segment_bytes: self.plan.segment_bytes,
                tail_cache_bytes: self.plan.core.log_cache_bytes,
                sync: true,
                background: false,
                seed,
            },
        };
        let disk: Arc<dyn Disk> = Arc::new(here.disk.clone());
        let mut stored = Stored::open(&disk, &places)?;
        stored.store = stored.store.with_seed(seed);
        Ok(stored)
    }

    /// Raft does not start. For want of power or room, or because a write was refused, it is tried again; what is damaged stays down
    /// until an operator replaces it.
    fn disk_refused(&mut self, slot: usize, error: &RunError) {
        let hits = self.slots[slot].disk.take_hits();
        self.note_hits(&hits);
        self.say(|| format!("slot {slot} does not start: {error}"));
        if self.slots[slot].disk.is_dead() {
            return self.cut_power(slot);
        }
        self.slots[slot].disk.process_ends();
        if error.exit_code() == 11 {
            let unsound = self.atlas.is_unsound(self.slots[slot].node);
            assert!(unsound, "slot {slot} refuses a disk that nobody damaged: {error}");
            self.coverage.count("starts refused because of damage");
            self.slots[slot].is_over = true;
            let pause = self.rng.random_range(2 * SECOND..6 * SECOND);
            return self.replace_later(slot, pause);
        }
        let pause = self.rng.random_range(200 * MS..SECOND);
        self.at(pause, Event::Start(slot, Part::Raft));
    }

    fn run_raft(&mut self, slot: usize, stored: Stored) {
        if self.has_forgotten(slot, &stored.restored) {
            self.coverage.count("disks that forgot what they said was durable");
            drop(stored);
            self.slots[slot].disk.process_ends();
            self.slots[slot].is_over = true;
            return self.replace_later(slot, 2 * SECOND);
        }
        let hits = self.slots[slot].disk.take_hits();
        self.note_hits(&hits);
        let Stored { wal, restored, store, image } = stored;
        let (now, seed) = (self.now, self.rng.random());
        let here = &mut self.slots[slot];
        here.starts[Part::Raft as usize] += 1;
        here.paused_until[Part::Raft as usize] = 0;
        here.boot += 1;
        here.shadow = Shadow::of(&restored);
        here.snapshot = restored.snapshot.as_ref().map_or(LogId::default(), |meta| meta.last);
        here.perhaps.clear();
        let restored = if self.plan.plant == Some(Plant::ForgetVotes) {
            let hard_state = HardState { vote: None, ..restored.hard_state };
            Restored { hard_state, ..restored }
        } else {
            restored
        };
        let metrics = Arc::<Metrics>::default();
        let known = restored.snapshot.as_ref().map_or(Index(0), |meta| meta.last.index);
        let grown = wal.bytes_after(known);
        metrics.log_grown_bytes.store(grown, std::sync::atomic::Ordering::Relaxed);
        let (inbox, said) = mpsc::channel(4_096);
        let (synced, synced_seen) = watch::channel(Synced::default());
        let (failed, failures) = mpsc::channel(4);
        let shelf = Shelf::new(store.clone(), failed.clone());
        let worker = Worker::new(wal, log_events(inbox, synced, failed, Arc::clone(&metrics)));
        let base = restored.base.as_ref().map_or(Index(1), |base| base.last.index.next());
        let first = image.as_ref().map_or(base, |image| image.folded().next());
        let log_time_ms = image.as_ref().map_or(0, raft::session::Image::time_ms);
        let tail = restored.tail.clone();
        let founds = slot == 0 && here.generation == 0 && restored.last == LogId::default();
        let core = Raft::new(Config { id: here.node, seed, ..self.plan.core.clone() }, restored);
        let membership = Arc::new(core.status().membership);
        let entries = DigestEntries::new(core, &tail, first, Autopilot::new(self.plan.policy))
            .with_turns(self.plan.turn_ticks)
            .after_time(log_time_ms);
        let log = Log {
            worker,
            waiting: Vec::new(),
            under_way: Vec::new(),
            said,
            synced: synced_seen,
            failures,
        };
        here.raft = Some(RaftProcess {
            entries,
            inbox: Vec::new(),
            is_awake: false,
            commits: DigestCommits::new(first, image),
            commits_inbox: Vec::new(),
            commits_awake: false,
            log,
            planned: here.shadow.clone(),
            membership,
            leader: None,
            store,
            shelf,
            metrics,
            asked: Vec::new(),
            callers: Vec::new(),
            forwarded: BTreeMap::new(),
            last_forward: 0,
            link: super::link::Link::default(),
            keeping: super::keeper::Keeping::default(),
            sendings: BTreeMap::new(),
            reception: None,
            handovers: Vec::new(),
            leaves: false,
            told: None,
            seen: 0,
        });
        self.coverage.count("starts of raft");
        let process = self.raft_of(slot);
        let tick = self.slots[slot].tick;
        self.agenda.push(now + self.rng.random_range(1..=tick), Event::Tick(process));
        self.at(MS, Event::Connect(process));
        self.at(300 * MS, Event::Look(process));
        self.at(MS, Event::Roster(process));
        if let Some(raft) = &mut self.slots[slot].raft {
            raft.link.tries = true;
        }
        if founds {
            self.found(slot);
        }
    }

    /// The first node founds the cluster, with itself as its only voter.
    fn found(&mut self, slot: usize) {
        let here = &mut self.slots[slot];
        here.cluster = Some(super::CLUSTER);
        let info = NodeInfo {
            name: format!("node-{slot}"),
            raft_address: raft_address(slot),
            http_address: String::new(),
        };
        let membership = Membership {
            voters: [here.node].into(),
            nodes: [(here.node, info)].into(),
            ..Membership::default()
        };
        self.hear(slot, EntriesEvent::Bootstrap(membership));
    }

    fn start_machine(&mut self, slot: usize) {
        let here = &mut self.slots[slot];
        let machine = match MachineProcess::start(&here.machine_disk) {
            Ok(machine) => machine,
            Err(error) => return self.machine_broke(slot, &error),
        };
        here.machine = Some(machine);
        here.starts[Part::Machine as usize] += 1;
        here.paused_until[Part::Machine as usize] = 0;
        let process = here.process(slot, Part::Machine);
        self.at(500 * MS, Event::MachineSync(process));
    }

    /// Raft's process is killed; what it had handed to the system stays. A write that is under way may be broken off anywhere.
    pub fn kill_raft(&mut self, slot: usize) {
        self.break_off_write(slot);
        self.end_raft(slot);
    }

    /// Raft ends right after it has started, with or without its machine.
    pub fn end_start(&mut self, slot: usize) {
        self.coverage.count("ends of raft right after a start");
        if self.rng.random_bool(0.6) { self.cut_power(slot) } else { self.kill_raft(slot) }
    }

    fn break_off_write(&mut self, slot: usize) {
        let operations = self.rng.random_range(0..4);
        let here = &mut self.slots[slot];
        let Some(raft) = &mut here.raft else { return };
        let requests = std::mem::take(&mut raft.log.under_way);
        if requests.is_empty() {
            return;
        }
        let before = here.disk.take_hits();
        here.disk.fail_after(operations, Fault::Crash);
        drop(raft.log.worker.work(requests.iter().cloned()));
        drop(here.disk.take_hits());
        self.note_hits(&before);
        self.coverage.count("crashes in the middle of a write or sync");
        self.perhaps_written(slot, &requests);
    }

    /// Raft's process has ended, in whatever way; it is started again soon.
    pub fn end_raft(&mut self, slot: usize) {
        let node = self.slots[slot].node;
        let Some(raft) = self.slots[slot].raft.take() else { return };
        // It was killed: nothing of it cleans up.
        self.slots[slot].disk.stand_still();
        drop(raft);
        self.slots[slot].disk.process_ends();
        self.slots[slot].starts[Part::Raft as usize] += 1;
        for peer in 0..self.slots.len() {
            let process = self.raft_of(peer);
            if peer == slot || self.network.is_cut(slot, peer) || self.rng.random_bool(0.3) {
                continue;
            }
            let delay = self.rng.random_range(MS..20 * MS);
            self.at(delay, Event::Hear(process, Box::new(EntriesEvent::LinkLost(node))));
            self.at(delay, Event::Hear(process, Box::new(EntriesEvent::PeerUnreachable(node))));
        }
        if !self.slots[slot].is_over {
            let pause = self.rng.random_range(50 * MS..2 * SECOND);
            self.at(pause, Event::Start(slot, Part::Raft));
        }
    }

    /// The state machine's process is killed.
    pub fn kill_machine(&mut self, slot: usize) {
        let Some(machine) = self.slots[slot].machine.take() else { return };
        if machine.look().restores {
            self.coverage.count("ends of a state machine in the middle of a restore");
        }
        drop(machine);
        self.slots[slot].machine_disk.process_ends();
        self.slots[slot].starts[Part::Machine as usize] += 1;
        let pause = self.rng.random_range(20 * MS..2 * SECOND);
        self.at(pause, Event::Start(slot, Part::Machine));
        let process = self.raft_of(slot);
        if let Some(raft) = &self.slots[slot].raft {
            let heard = super::event::Heard::Down(raft.link.attachment, "it was killed".to_owned());
            self.at(2 * MS, Event::Link(process, Box::new(heard)));
        }
    }

    /// The state machine's process ends itself because its disk failed, or does not even start.
    pub fn machine_broke(&mut self, slot: usize, error: &MachineError) {
        self.say(|| format!("slot {slot}: {error}"));
        self.coverage.count("ends of a state machine because its disk failed");
        let ran = self.slots[slot].machine.is_some();
        let died = self.slots[slot].machine_disk.is_dead();
        self.coverage.fault(if died { MACHINE_CRASH } else { MACHINE_REFUSAL });
        if died {
            self.cut_power(slot);
        }
        if ran {
            return self.kill_machine(slot);
        }
        self.slots[slot].machine_disk.process_ends();
        let pause = self.rng.random_range(20 * MS..2 * SECOND);
        self.at(pause, Event::Start(slot, Part::Machine));
    }

    /// The member's process is killed.
    pub fn kill_member(&mut self, slot: usize) {
        let Some(member) = self.slots[slot].member.take() else { return };
        self.slots[slot].incarnation = member.swim.own_standing().incarnation.0;
        self.slots[slot].starts[Part::Member as usize] += 1;
        self.slots[slot].paused_until[Part::Member as usize] = 0;
        let pause = self.rng.random_range(20 * MS..2 * SECOND);
        self.at(pause, Event::Start(slot, Part::Member));
    }

    /// The whole machine loses its power.
    pub fn cut_power(&mut self, slot: usize) {
        self.coverage.count("power cuts");
        self.break_off_write(slot);
        self.end_raft(slot);
        self.slots[slot].disk.power_cut();
        self.kill_machine(slot);
        self.kill_member(slot);
        let pause = self.rng.random_range(100 * MS..2 * SECOND);
        self.at(pause, Event::Start(slot, Part::Raft));
    }

    /// Whether the process has to end because something that it read or wrote failed.
    pub fn end_if_failed(&mut self, slot: usize) {
        if self.slots[slot].disk.is_dead() {
            return self.cut_power(slot);
        }
        let Some(raft) = &mut self.slots[slot].raft else { return };
        if raft.log.failures.try_recv().is_ok() {
            self.coverage.count("ends of raft because of damage found while running");
            self.end_raft(slot);
        }
    }
}
