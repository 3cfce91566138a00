//! When this node takes a snapshot of its machine, and how: the states between the calls of the real keeper.

use std::sync::atomic::Ordering;

use raft::consensus::{Index, LogId, SnapshotMeta, Term};
use raft::keeper::Schedule;
use raft::pipeline::digest_commits::{Capture, CaptureRefused, CommitsEvent};
use raft::pipeline::digest_entries::EntriesEvent;
use raft::rpc::peer::TurnRequest;
use raft::session::Image;
use raft::snapshot::{SnapshotError, Taking};
use rand::RngExt;
use state_machine::rpc::{SnapshotChunk, SnapshotInfo};
use tokio::sync::oneshot;

use super::World;
use super::agenda::{MS, SECOND, Time};
use super::callers::Whom;
use super::event::{Call, Event, MachineWork, Reply};

/// Without progress for so long, an attempt is given up.
const PATIENCE: Time = 5 * SECOND;

/// How far it is.
#[derive(Default)]
pub struct Keeping {
    state: State,
    since: Time,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    /// The leader is asked for a turn.
    Turn,
    /// The machine is asked to pin its state.
    Pin,
    /// The second stage is asked for its table.
    Capture(SnapshotInfo, oneshot::Receiver<Result<Image, CaptureRefused>>),
    /// The first stage is asked what to call it.
    Describe(SnapshotInfo, Box<Image>, oneshot::Receiver<Option<SnapshotMeta>>),
    /// The machine's stream goes into the file.
    Read { snapshot: u64, file: Box<Taking>, offset: u64 },
}

impl Keeping {
    fn enter(&mut self, state: State, now: Time) {
        *self = Self { state, since: now };
    }
}

impl World {
    /// Looks whether a snapshot is due, and whether one that is being taken stands still.
    pub fn look(&mut self, slot: usize) {
        let process = self.raft_of(slot);
        let pause = self.rng.random_range(200 * MS..600 * MS);
        self.at(pause, Event::Look(process));
        let (now, node) = (self.now, self.slots[slot].node);
        let Some(raft) = &mut self.slots[slot].raft else { return };
        if !matches!(raft.keeping.state, State::Idle) {
            if now - raft.keeping.since <= PATIENCE {
                return;
            }
            raft.keeping.enter(State::Idle, now);
        }
        let newest = raft.store.newest();
        let taken = newest.as_ref().map_or(0, |newest| newest.meta.last.index.0);
        let status = raft.commits.status();
        let leads = raft.leader == Some(node);
        let bytes = newest.map_or(0, |newest| newest.bytes);
        let grown = raft.metrics.log_grown_bytes.load(Ordering::Relaxed);
        let schedule = Schedule { floor_bytes: self.plan.snapshot_floor_bytes, ratio_percent: 100 };
        if status.is_attached() && status.applied.0 > taken && schedule.is_due(grown, bytes, leads)
        {
            raft.keeping.enter(State::Turn, now);
            self.ask_leader(slot, Whom::Keeper, Call::Turn(node, TurnRequest::Wanted));
        }
    }

    /// The leader has answered.
    pub fn hear_turn(&mut self, slot: usize, reply: &Reply) {
        let now = self.now;
        let Some(raft) = &mut self.slots[slot].raft else { return };
        if !matches!(raft.keeping.state, State::Turn) {
            return;
        }
        if matches!(reply, Reply::Turn(true)) {
            raft.keeping.enter(State::Pin, now);
            self.tell_machine(slot, MachineWork::Pin);
        } else {
            raft.keeping.enter(State::Idle, now);
        }
    }

    /// The machine has pinned its state.
    pub fn hear_pinned(&mut self, slot: usize, info: Option<SnapshotInfo>) {
        let now = self.now;
        let Some(raft) = &mut self.slots[slot].raft else { return };
        if !matches!(raft.keeping.state, State::Pin) {
            return;
        }
        let newest = raft.store.newest().map_or(0, |newest| newest.meta.last.index.0);
        let Some(info) = info.filter(|info| info.applied_index > newest) else {
            return self.over(slot);
        };
        let (reply, image) = oneshot::channel();
        let at_least = Index(info.applied_index);
        raft.keeping.enter(State::Capture(info, image), now);
        self.hear_commits(slot, CommitsEvent::Capture(Capture { at_least, reply }));
    }

    /// Goes on with what the stages have answered.
    pub fn go_on_keeping(&mut self, slot: usize) {
        let now = self.now;
        let Some(raft) = &mut self.slots[slot].raft else { return };
        let keeping = &mut raft.keeping;
        match std::mem::take(&mut keeping.state) {
            State::Capture(info, mut image) => match image.try_recv() {
                Ok(Ok(image)) => {
                    let (reply, meta) = oneshot::channel();
                    let index = Index(info.applied_index);
                    keeping.enter(State::Describe(info, Box::new(image), meta), now);
                    self.hear(slot, EntriesEvent::Describe { index, reply });
                }
                Err(oneshot::error::TryRecvError::Empty) => {
                    keeping.state = State::Capture(info, image);
                }
                Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => self.over(slot),
            },
            State::Describe(info, image, mut meta) => match meta.try_recv() {
                Ok(Some(meta)) => self.begin_file(slot, &info, &image, &meta),
                Err(oneshot::error::TryRecvError::Empty) => {
                    keeping.state = State::Describe(info, image, meta);
                }
                Ok(None) | Err(oneshot::error::TryRecvError::Closed) => self.over(slot),
            },
            state @ (State::Idle | State::Turn | State::Pin | State::Read { .. }) => {
                keeping.state = state;
            }
        }
    }

    fn begin_file(&mut self, slot: usize, info: &SnapshotInfo, image: &Image, meta: &SnapshotMeta) {
        let now = self.now;
        self.check_described(meta);
        let Some(raft) = &mut self.slots[slot].raft else { return };
        let pinned = LogId::new(Term(info.applied_term), Index(info.applied_index));
        assert_eq!(meta.last, pinned, "the machine's entry is the log's");
        let taken = raft.store.take(meta, super::CLUSTER, &image.encode());
        match taken {
            Ok(file) => {
                let (snapshot, offset) = (info.snapshot, 0);
                let state = State::Read { snapshot, file: Box::new(file), offset };
                raft.keeping.enter(state, now);
                self.tell_machine(slot, MachineWork::ReadPinned(snapshot, 0));
            }
            Err(error) => self.file_failed(slot, &error),
        }
    }

    /// A piece of the machine's stream.
    pub fn hear_piece(&mut self, slot: usize, piece: Option<SnapshotChunk>) {
        let now = self.now;
        let Some(raft) = &mut self.slots[slot].raft else { return };
        let State::Read { snapshot, mut file, offset } = std::mem::take(&mut raft.keeping.state)
        else {
            return;
        };
        let Some(piece) = piece.filter(|piece| piece.offset == offset) else {
            drop(file);
            return self.over(slot);
        };
        if let Err(error) = file.push(&piece.bytes) {
            drop(file);
            return self.file_failed(slot, &error);
        }
        let offset = offset + piece.bytes.len() as u64;
        if !piece.last {
            raft.keeping.enter(State::Read { snapshot, file, offset }, now);
            return self.tell_machine(slot, MachineWork::ReadPinned(snapshot, offset));
        }
        match file.finish() {
            Ok(taken) => {
                self.coverage.count("snapshots taken");
                let kept = raft.store.all();
                let here = &mut self.slots[slot];
                // Meanwhile a newer one may have arrived.
                here.snapshot = here.snapshot.max(taken.meta.last);
                let oldest =
                    kept.first().map_or(taken.meta.last.index, |kept| kept.meta.last.index);
                self.hear(slot, EntriesEvent::SnapshotTaken { meta: taken.meta, oldest });
                self.over(slot);
            }
            Err(error) => self.file_failed(slot, &error),
        }
    }

    fn file_failed(&mut self, slot: usize, error: &SnapshotError) {
        self.coverage.count("snapshots that could not be taken");
        self.say(|| format!("slot {slot}: {error}"));
        self.over(slot);
        self.end_if_failed(slot);
    }

    fn over(&mut self, slot: usize) {
        let (now, node) = (self.now, self.slots[slot].node);
        let Some(raft) = &mut self.slots[slot].raft else { return };
        raft.keeping.enter(State::Idle, now);
        self.ask_leader(slot, Whom::Keeper, Call::Turn(node, TurnRequest::Over));
    }
}
