//! Second stage: owns the session table and the link to the state machine, and answers the callers.
//!
//! Committed entries arrive in order. Each is folded into the session table exactly once; those that are to be applied go
//! to the state machine in batches, several of which may be in flight. A state machine that was away is fed again from where
//! it is: what it needs then of an entry that was folded before is remembered in `passed_over`.
//!
//! ```text
//!             Attached                 FeedStarted
//!  Detached ───────────▶ Attaching ──────────────────▶ Attached
//!     ▲                   │     ▲                         │ Install, Compacted: it lacks what is gone
//!     │      MachineBehind│     │Restored     none left   ▼
//!     │                   ▼     │         ┌─────────── Settling: waits for the batches in flight
//!   (from               Restoring         ▼
//!    each)                            Attaching
//! ```
//!
//! A snapshot from the leader brings the session table of another node; the machine is then behind the log, and restored
//! as any other that is. Batches that it had by then are waited for: their results are those of their entries, and nothing
//! that comes later can be taken for them.

mod callers;
mod captures;
mod events;
mod flow;
mod history;
mod reads;

use std::sync::Arc;

use state_machine::rpc::CommandResult;

pub use self::events::{
    Capture, CaptureRefused, CommitsActions, CommitsEvent, CommitsStatus, MachineCall,
    MachineEvent, MachineTask,
};

use self::callers::{Callers, answer};
use self::captures::Captures;
use self::events::ATTACHED;
use self::flow::{Flow, Sent};
use self::history::{Fate, History};
use self::reads::Reads;
use super::pending::Waiting;
use super::{Committed, FromCommits, ToCommits};
use crate::consensus::{Index, LogId, SnapshotMeta};
use crate::rpc::client::Outcome;
use crate::session::Image;

/// Ticks between two looks at what has expired.
const HOUSEKEEPING_TICKS: u64 = 5;

#[derive(Debug)]
enum Machine {
    /// Not there.
    Detached,
    /// There; the first stage is asked whether it fits and to feed it.
    Attaching {
        /// Its newest applied entry.
        applied: LogId,
    },
    /// Loads a snapshot.
    Restoring,
    /// Fed in order.
    Attached,
    /// A snapshot has replaced what it was to be fed: it is asked about again when it has answered what it was sent.
    Settling,
}

/// The stage.
#[derive(Debug)]
pub struct DigestCommits {
    history: History,
    machine: Machine,
    attachment: u64,
    reason: Arc<str>,
    applied: LogId,
    flow: Flow,
    callers: Callers,
    reads: Reads,
    captures: Captures,
    now: u64,
}

impl DigestCommits {
    /// Begins after what `image` holds; without one, before entry `first`.
    pub fn new(first: Index, image: Option<Image>) -> Self {
        let history = match image {
            Some(image) => History::from_image(image),
            None => History::after(first.prev()),
        };
        Self {
            history,
            machine: Machine::Detached,
            attachment: 0,
            reason: Arc::from("not connected yet"),
            applied: LogId::default(),
            flow: Flow::default(),
            callers: Callers::default(),
            reads: Reads::default(),
            captures: Captures::default(),
            now: 0,
        }
    }

    /// Digests everything that waits.
    pub fn handle(&mut self, events: &mut Vec<CommitsEvent>) -> CommitsActions {
        let mut actions = CommitsActions::default();
        for event in events.drain(..) {
            match event {
                CommitsEvent::FromEntries(message) => self.hear_from_entries(message, &mut actions),
                CommitsEvent::Machine(event) => self.hear_from_machine(event, &mut actions),
                CommitsEvent::Capture(capture) => self.captures.wait(capture, self.now),
            }
        }
        self.send_batches(&mut actions);
        self.ask_ready_reads(&mut actions);
        self.captures.settle(&self.history, self.results_up_to());
        actions
    }

    /// What others may know.
    pub fn status(&self) -> CommitsStatus {
        let machine = match self.machine {
            Machine::Attached => Arc::from(ATTACHED),
            Machine::Detached
            | Machine::Attaching { .. }
            | Machine::Restoring
            | Machine::Settling => Arc::clone(&self.reason),
        };
        CommitsStatus { applied: self.applied.index, machine }
    }

    fn hear_from_entries(&mut self, message: ToCommits, actions: &mut CommitsActions) {
        match message {
            ToCommits::Committed(batch) => self.take(batch, actions),
            ToCommits::FeedStarted { attachment } => {
                if let Some(applied) = self.attaching(attachment) {
                    self.begin_feeding(applied, actions);
                }
            }
            ToCommits::MachineBehind { attachment, snapshot } => {
                if self.attaching(attachment).is_some() {
                    self.restore(snapshot, actions);
                }
            }
            ToCommits::MachineRefused { attachment, reason } => {
                if attachment == self.attachment {
                    self.refuse(&reason, actions);
                }
            }
            ToCommits::Install { meta, image, callers } => {
                self.install(&meta, *image, callers, actions);
            }
            ToCommits::Compacted(base) => {
                self.history.compacted(base);
                self.look_behind(base, actions);
            }
            ToCommits::Query { read_index, read } => self.reads.wait(read_index, read),
            ToCommits::Tick(now) => {
                self.now = now;
                if now.is_multiple_of(HOUSEKEEPING_TICKS) {
                    self.expire();
                }
            }
        }
    }

    fn hear_from_machine(&mut self, event: MachineEvent, actions: &mut CommitsActions) {
        match event {
            MachineEvent::Attached { attachment, applied } => {
                self.detach("attaching");
                self.attachment = attachment;
                self.ask_to_feed(applied, actions);
            }
            MachineEvent::Detached { reason } => {
                self.detach(&reason);
                self.release_taken(actions);
            }
            MachineEvent::Applied { results } => self.digest_results(results, actions),
            MachineEvent::Answered { query, result } => self.reads.answer(query, outcome(result)),
            MachineEvent::Restored { applied } => {
                if matches!(self.machine, Machine::Restoring) {
                    self.ask_to_feed(applied, actions);
                }
            }
        }
    }

    /// What the machine of this attachment has applied, if the first stage is being asked about it.
    fn attaching(&self, attachment: u64) -> Option<LogId> {
        match self.machine {
            Machine::Attaching { applied } if attachment == self.attachment => Some(applied),
            Machine::Attaching { .. }
            | Machine::Detached
            | Machine::Restoring
            | Machine::Attached
            | Machine::Settling => None,
        }
    }

    /// Asks the first stage what a machine that has applied so much needs.
    fn ask_to_feed(&mut self, applied: LogId, actions: &mut CommitsActions) {
        self.machine = Machine::Attaching { applied };
        let from = applied.index.min(self.history.folded()).next();
        let attachment = self.attachment;
        actions.to_entries.push(FromCommits::Attach { attachment, applied, from });
    }

    /// Folds a batch in, and keeps what a state machine that is there lacks.
    fn take(&mut self, batch: Vec<Committed>, actions: &mut CommitsActions) {
        let Some(last) = batch.last().map(|committed| committed.entry.id.index) else { return };
        for Committed { entry, waiting } in batch {
            let index = entry.id.index;
            if index > self.history.folded() || waiting.is_some() {
                let fate = self.history.digest(&entry);
                self.inform(index, waiting, fate);
            }
            if matches!(self.machine, Machine::Attached) && index > self.last_given() {
                self.flow.push(self.history.prepare(&entry));
            }
        }
        self.flow.took(last);
        self.release_taken(actions);
    }

    /// Newest entry that the state machine has or is about to get.
    fn last_given(&self) -> Index {
        self.flow.last().unwrap_or(self.applied.index)
    }

    /// Answers a caller, at once if everything is known.
    fn inform(&mut self, index: Index, waiting: Option<Waiting>, fate: Fate) {
        match fate {
            Fate::Settled(outcome) => answer(waiting, outcome),
            Fate::Awaits(source) if source.first <= self.applied.index => {
                answer(waiting, Ok((source.first, self.history.result(source))));
            }
            Fate::Awaits(source) => {
                if let Some(waiting) = waiting {
                    self.callers.wait(index, waiting, source);
                }
            }
        }
    }

    /// A snapshot from the leader stands in the place of the log. What it holds of the callers' commands is said at once;
    /// a machine that is there lacks what is in it.
    fn install(
        &mut self,
        meta: &SnapshotMeta,
        image: Image,
        callers: Vec<Waiting>,
        actions: &mut CommitsActions,
    ) {
        self.history.install(image);
        for waiting in callers {
            let outcome = self.history.known_of(waiting.name);
            waiting.answer(outcome);
        }
        self.look_behind(meta.last.index, actions);
    }

    /// The log holds nothing up to `base` any more: a machine that is fed and has not got all of that will not get it.
    fn look_behind(&mut self, base: Index, actions: &mut CommitsActions) {
        if matches!(self.machine, Machine::Attached) && self.last_given() < base {
            self.flow.stop();
            self.release_taken(actions);
            self.machine = Machine::Settling;
            self.reason = Arc::from(format!("behind the log, which begins after index {base}"));
            self.ask_when_settled(actions);
        }
    }

    fn ask_when_settled(&mut self, actions: &mut CommitsActions) {
        if matches!(self.machine, Machine::Settling) && self.flow.nothing_in_flight() {
            self.ask_to_feed(self.applied, actions);
        }
    }

    fn restore(&mut self, snapshot: SnapshotMeta, actions: &mut CommitsActions) {
        self.machine = Machine::Restoring;
        self.reason = Arc::from(format!("restoring the snapshot at index {}", snapshot.last.index));
        actions.calls.push(self.call(MachineTask::Restore(snapshot)));
    }

    fn send_batches(&mut self, actions: &mut CommitsActions) {
        while let Some((first, entries)) = self.flow.next_batch() {
            actions.calls.push(self.call(MachineTask::Apply { first, entries }));
        }
        self.release_taken(actions);
    }

    /// Tells the first stage which of its batches are no longer held here.
    fn release_taken(&mut self, actions: &mut CommitsActions) {
        actions.to_entries.extend(self.flow.released().into_iter().map(FromCommits::Taken));
    }

    fn digest_results(&mut self, results: Vec<CommandResult>, actions: &mut CommitsActions) {
        let Some(batch) = self.flow.returned() else { return };
        if results.len() != batch.len() {
            let (expected, got) = (batch.len(), results.len());
            let reason = format!("it gave {got} results for a batch of {expected} entries");
            return self.refuse(&reason, actions);
        }
        for (Sent { id, name }, result) in batch.into_iter().zip(results) {
            self.applied = id;
            let outcome = outcome(result);
            if let Some(name) = name {
                self.history.keep_result(name, id.index, &outcome);
            }
            self.callers.applied(id.index, outcome, &self.history);
        }
        actions.to_entries.push(FromCommits::Applied(self.applied.index));
        self.ask_when_settled(actions);
    }

    fn begin_feeding(&mut self, applied: LogId, actions: &mut CommitsActions) {
        self.machine = Machine::Attached;
        self.applied = applied;
        self.callers.overtaken(applied.index, &self.history);
        actions.to_entries.push(FromCommits::Applied(applied.index));
    }

    /// Up to here a machine that is there has told its results.
    fn results_up_to(&self) -> Index {
        match self.machine {
            Machine::Attached => self.applied.index,
            Machine::Detached
            | Machine::Attaching { .. }
            | Machine::Restoring
            | Machine::Settling => Index(u64::MAX),
        }
    }

    fn call(&self, task: MachineTask) -> MachineCall {
        MachineCall { attachment: self.attachment, task }
    }

    fn refuse(&mut self, reason: &str, actions: &mut CommitsActions) {
        actions.calls.push(self.call(MachineTask::Refuse(reason.to_owned())));
        self.detach(reason);
    }

    fn detach(&mut self, reason: &str) {
        self.machine = Machine::Detached;
        self.reason = Arc::from(reason);
        self.flow.abandon();
        self.reads.ask_again();
    }

    fn ask_ready_reads(&mut self, actions: &mut CommitsActions) {
        while matches!(self.machine, Machine::Attached)
            && let Some(task) = self.reads.next_ready(self.applied.index)
        {
            actions.calls.push(self.call(task));
        }
    }

    fn expire(&mut self) {
        self.callers.expire(self.now);
        self.reads.expire(self.now, &self.status().machine);
        self.captures.expire(self.now, self.history.folded());
    }
}

fn outcome(result: CommandResult) -> Outcome {
    match result {
        CommandResult::Done(bytes) => Outcome::Done(bytes),
        CommandResult::Refused(bytes) => Outcome::Refused(bytes),
        CommandResult::Skipped => Outcome::AlreadyApplied,
    }
}
