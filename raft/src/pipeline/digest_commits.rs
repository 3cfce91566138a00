//! Second stage: owns the session table and the link to the state machine, and answers the callers.
//!
//! Committed entries arrive in order. Each is folded into the session table exactly once; those that are to be applied go
//! to the state machine in batches, several of which may be in flight. A state machine that was away is fed again from where
//! it is: what it needs then of an entry that was folded before is remembered in `passed_over`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use state_machine::entries::{EntryBlob, EntryBlobBuilder, EntryHeader, EntryKind};
use state_machine::rpc::{CommandResult, MAX_APPLIES_IN_FLIGHT};

use super::pending::Waiting;
use super::{Committed, FromCommits, QueryRefused, Read, SubmitOutcome, SubmitRefused, ToCommits};
use crate::command::{Command, Kind};
use crate::consensus::{Entry, Index, LogId, Payload, Term};
use crate::rpc::client::{Answer, Outcome};
use crate::session::{Sessions, Verdict};

/// A batch for the state machine is closed when it holds this many bytes.
const BATCH_BYTES: usize = 1024 * 1024;
/// Ticks between two looks at what has expired.
const HOUSEKEEPING_TICKS: u64 = 5;

/// What can happen to this stage.
#[derive(Debug)]
pub enum CommitsEvent {
    /// From the first stage.
    FromEntries(ToCommits),
    /// From the link to the state machine.
    Machine(MachineEvent),
}

/// What the link to the state machine tells.
#[derive(Debug)]
pub enum MachineEvent {
    /// A state machine is there and has applied this much.
    Attached {
        /// Counts attachments: calls meant for another one are not carried out.
        attachment: u64,
        /// Its newest applied entry; zeros when there is none.
        applied: LogId,
    },
    /// It is gone, hung or refuses us; the link goes on trying.
    Detached {
        /// Why, for people.
        reason: String,
    },
    /// The oldest batch in flight is applied.
    Applied {
        /// One for each of its entries.
        results: Vec<CommandResult>,
    },
    /// A query is answered.
    Answered {
        /// Which.
        query: u64,
        /// The machine's word.
        result: CommandResult,
    },
}

/// What the link to the state machine is to do, under one attachment.
#[derive(Debug, PartialEq, Eq)]
pub struct MachineCall {
    /// Which attachment it is meant for.
    pub attachment: u64,
    /// What to do.
    pub task: MachineTask,
}

/// What is asked of a state machine.
#[derive(Debug, PartialEq, Eq)]
pub enum MachineTask {
    /// Apply a batch; batches are answered in order.
    Apply {
        /// Index of its first entry.
        first: Index,
        /// The entries.
        entries: EntryBlob,
    },
    /// Answer a query.
    Query {
        /// Names it in the answer.
        query: u64,
        /// The state must hold everything up to here.
        read_index: Index,
        /// The query.
        bytes: Bytes,
    },
    /// This state machine must not be used: let go of it, and try again later.
    Refuse(String),
}

/// What to do, in this order.
#[derive(Debug, Default)]
pub struct CommitsActions {
    /// For the link to the state machine.
    pub calls: Vec<MachineCall>,
    /// For the first stage.
    pub to_entries: Vec<FromCommits>,
}

/// What others may know of this stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitsStatus {
    /// Highest applied index.
    pub applied: Index,
    /// `attached`, or why not.
    pub machine: Arc<str>,
}

const ATTACHED: &str = "attached";

impl CommitsStatus {
    /// Whether the state machine is at hand.
    pub fn is_attached(&self) -> bool {
        &*self.machine == ATTACHED
    }
}

/// A caller whose entry is committed.
#[derive(Debug)]
struct Applying {
    waiting: Waiting,
    /// Where the command stood first, when the entry repeats it.
    first: Index,
}

#[derive(Debug)]
enum Machine {
    /// Not there.
    Detached,
    /// There; the first stage is asked whether it fits and to feed it.
    Attaching {
        /// Its applied index.
        applied: Index,
    },
    /// Fed in order.
    Attached,
}

/// An entry on its way to the state machine.
#[derive(Debug)]
struct Prepared {
    index: Index,
    header: EntryHeader,
    command: Bytes,
}

/// A batch at the state machine.
#[derive(Debug)]
struct InFlight {
    /// Index and whether duplicates may ask for the result.
    entries: Vec<(Index, bool)>,
}

/// The stage.
#[derive(Debug)]
pub struct DigestCommits {
    sessions: Sessions,
    folded: Index,
    /// Commands that are in the log but must not be applied: duplicates and refused ones. Few: they come of retries.
    passed_over: BTreeSet<Index>,
    machine: Machine,
    attachment: u64,
    reason: Arc<str>,
    applied: Index,
    unsent: VecDeque<Prepared>,
    /// Ends of the batches of the first stage that are in `unsent` in part or whole.
    untaken: VecDeque<Index>,
    in_flight: VecDeque<InFlight>,
    applying: BTreeMap<Index, Applying>,
    /// Reads that wait for their index to be applied.
    reads: BTreeMap<(Index, u64), Read>,
    /// Reads that the state machine is asked.
    asked: BTreeMap<u64, (Index, Read)>,
    next_query: u64,
}

impl DigestCommits {
    /// Begins before entry `first`.
    pub fn new(first: Index) -> Self {
        Self {
            sessions: Sessions::default(),
            folded: first.prev(),
            passed_over: BTreeSet::new(),
            machine: Machine::Detached,
            attachment: 0,
            reason: Arc::from("not connected yet"),
            applied: Index(0),
            unsent: VecDeque::new(),
            untaken: VecDeque::new(),
            in_flight: VecDeque::new(),
            applying: BTreeMap::new(),
            reads: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_query: 0,
        }
    }

    /// Digests everything that waits.
    pub fn handle(&mut self, events: &mut Vec<CommitsEvent>) -> CommitsActions {
        let mut actions = CommitsActions::default();
        for event in events.drain(..) {
            match event {
                CommitsEvent::FromEntries(message) => self.hear_from_entries(message, &mut actions),
                CommitsEvent::Machine(event) => self.hear_from_machine(event, &mut actions),
            }
        }
        self.send_batches(&mut actions);
        self.ask_ready_reads(&mut actions);
        actions
    }

    /// What others may know.
    pub fn status(&self) -> CommitsStatus {
        let machine = match self.machine {
            Machine::Attached => Arc::from(ATTACHED),
            Machine::Detached | Machine::Attaching { .. } => Arc::clone(&self.reason),
        };
        CommitsStatus { applied: self.applied, machine }
    }

    fn hear_from_entries(&mut self, message: ToCommits, actions: &mut CommitsActions) {
        match message {
            ToCommits::Committed(batch) => self.take(batch, actions),
            ToCommits::FeedStarted { attachment } => {
                if let Machine::Attaching { applied } = self.machine
                    && attachment == self.attachment
                {
                    self.begin_feeding(applied, actions);
                }
            }
            ToCommits::MachineRefused { attachment, reason } if attachment == self.attachment => {
                self.refuse(&reason, actions);
            }
            ToCommits::Query { read_index, read } => {
                self.next_query += 1;
                self.reads.insert((read_index, self.next_query), read);
            }
            ToCommits::Tick(now) if now.is_multiple_of(HOUSEKEEPING_TICKS) => self.expire(now),
            ToCommits::MachineRefused { .. } | ToCommits::Tick(_) => {}
        }
    }

    fn hear_from_machine(&mut self, event: MachineEvent, actions: &mut CommitsActions) {
        match event {
            MachineEvent::Attached { attachment, applied } => {
                self.detach("attaching");
                self.attachment = attachment;
                self.machine = Machine::Attaching { applied: applied.index };
                let from = applied.index.min(self.folded).next();
                actions.to_entries.push(FromCommits::Attach { attachment, applied, from });
            }
            MachineEvent::Detached { reason } => {
                self.detach(&reason);
                self.release_untaken(actions);
            }
            MachineEvent::Applied { results } => self.digest_results(results, actions),
            MachineEvent::Answered { query, result } => {
                if let Some((read_index, read)) = self.asked.remove(&query) {
                    read.answer(Ok(Answer { read_index: read_index.0, outcome: outcome(result) }));
                }
            }
        }
    }

    /// Folds a batch in, and keeps what a state machine that is there lacks.
    fn take(&mut self, batch: Vec<Committed>, actions: &mut CommitsActions) {
        let Some(last) = batch.last().map(|committed| committed.entry.id.index) else { return };
        for Committed { entry, waiting } in batch {
            let index = entry.id.index;
            if index > self.folded {
                assert_eq!(index, self.folded.next(), "committed entries come without gaps");
                self.folded = index;
                self.fold(&entry, waiting);
            }
            if matches!(self.machine, Machine::Attached) && index > self.last_given() {
                self.unsent.push_back(self.prepare(&entry));
            }
        }
        self.untaken.push_back(last);
        self.release_untaken(actions);
    }

    /// Newest entry that the state machine has or is about to get.
    fn last_given(&self) -> Index {
        let sent = || {
            self.in_flight.back().and_then(|batch| batch.entries.last()).map(|(index, _)| *index)
        };
        self.unsent.back().map(|entry| entry.index).or_else(sent).unwrap_or(self.applied)
    }

    fn fold(&mut self, entry: &Entry, waiting: Option<Waiting>) {
        let index = entry.id.index;
        let Payload::Command(payload) = &entry.payload else {
            return answer(waiting, Ok((index, Outcome::Done(Bytes::new()))));
        };
        let Some(command) = Command::decode(payload) else {
            self.passed_over.insert(index);
            let reason = format!("entry {index} is not a command of this version");
            return answer(waiting, Err(SubmitRefused::Unknown { reason }));
        };
        let verdict = self.sessions.fold(index, &command);
        if !matches!(verdict, Verdict::Apply | Verdict::Opened) {
            self.passed_over.insert(index);
        }
        match verdict {
            Verdict::Apply => self.await_result(index, index, waiting),
            Verdict::Duplicate { first } => self.await_result(index, first, waiting),
            Verdict::Opened => answer(waiting, Ok((index, Outcome::Done(Bytes::new())))),
            Verdict::Expired => answer(waiting, Err(SubmitRefused::SessionExpired)),
            Verdict::OutsideWindow => answer(waiting, Err(SubmitRefused::OutsideWindow)),
            Verdict::AlreadyAcknowledged => {
                answer(waiting, Err(SubmitRefused::AlreadyAcknowledged));
            }
        }
    }

    /// The caller is answered when `first` is applied, at once if it is.
    fn await_result(&mut self, index: Index, first: Index, waiting: Option<Waiting>) {
        let Some(waiting) = waiting else { return };
        if first <= self.applied {
            waiting.answer(Ok((first, self.kept_result(first))));
        } else {
            self.applying.insert(index, Applying { waiting, first });
        }
    }

    fn kept_result(&self, index: Index) -> Outcome {
        self.sessions.result(index).cloned().unwrap_or(Outcome::AlreadyApplied)
    }

    fn prepare(&self, entry: &Entry) -> Prepared {
        let LogId { index, term: Term(term) } = entry.id;
        let command = match &entry.payload {
            Payload::Command(payload) if !self.passed_over.contains(&index) => {
                Command::decode(payload)
            }
            Payload::Command(_) | Payload::Noop | Payload::Membership(_) => None,
        };
        match command {
            Some(Command { kind: Kind::Apply, time_ms, session, sequence, body, .. }) => {
                let header =
                    EntryHeader { kind: EntryKind::Command, term, time_ms, session, sequence };
                Prepared { index, header, command: body }
            }
            Some(Command { kind: Kind::OpenSession, .. }) | None => {
                let header = EntryHeader {
                    kind: EntryKind::Skip,
                    term,
                    time_ms: 0,
                    session: 0,
                    sequence: 0,
                };
                Prepared { index, header, command: Bytes::new() }
            }
        }
    }

    fn send_batches(&mut self, actions: &mut CommitsActions) {
        while self.in_flight.len() < MAX_APPLIES_IN_FLIGHT
            && let Some(first) = self.unsent.front().map(|entry| entry.index)
        {
            let mut blob = EntryBlobBuilder::default();
            let mut entries = Vec::new();
            while blob.len_bytes() < BATCH_BYTES
                && let Some(entry) = self.unsent.pop_front()
            {
                blob.push(&entry.header, &entry.command);
                entries.push((entry.index, entry.header.session != 0));
            }
            self.in_flight.push_back(InFlight { entries });
            let task = MachineTask::Apply { first, entries: blob.finish() };
            actions.calls.push(self.call(task));
        }
        self.release_untaken(actions);
    }

    /// Tells the first stage which of its batches are no longer held here.
    fn release_untaken(&mut self, actions: &mut CommitsActions) {
        let held_from = self.unsent.front().map(|entry| entry.index);
        while let Some(last) = self.untaken.front()
            && held_from.is_none_or(|held| *last < held)
        {
            actions.to_entries.push(FromCommits::Taken(*last));
            self.untaken.pop_front();
        }
    }

    fn digest_results(&mut self, results: Vec<CommandResult>, actions: &mut CommitsActions) {
        let Some(batch) = self.in_flight.pop_front() else { return };
        if results.len() != batch.entries.len() {
            let (expected, got) = (batch.entries.len(), results.len());
            let reason = format!("it gave {got} results for a batch of {expected} entries");
            return self.refuse(&reason, actions);
        }
        for ((index, in_session), result) in batch.entries.into_iter().zip(results) {
            self.applied = index;
            let outcome = outcome(result);
            if in_session {
                self.sessions.keep_result(index, &outcome);
            }
            if let Some(Applying { waiting, first }) = self.applying.remove(&index) {
                let outcome = if first == index { outcome } else { self.kept_result(first) };
                waiting.answer(Ok((first, outcome)));
            }
        }
        actions.to_entries.push(FromCommits::Applied(self.applied));
    }

    fn begin_feeding(&mut self, applied: Index, actions: &mut CommitsActions) {
        self.machine = Machine::Attached;
        self.applied = applied;
        // Applied before its answer reached us: the result is lost with the connection, the effect is not.
        let rest = self.applying.split_off(&applied.next());
        for (_, Applying { waiting, first }) in std::mem::replace(&mut self.applying, rest) {
            waiting.answer(Ok((first, self.kept_result(first))));
        }
        actions.to_entries.push(FromCommits::Applied(applied));
    }

    fn call(&self, task: MachineTask) -> MachineCall {
        MachineCall { attachment: self.attachment, task }
    }

    fn refuse(&mut self, reason: &str, actions: &mut CommitsActions) {
        actions.calls.push(self.call(MachineTask::Refuse(reason.to_owned())));
        self.detach(reason);
    }

    /// Reads are asked again when a state machine is back: they change nothing.
    fn detach(&mut self, reason: &str) {
        self.machine = Machine::Detached;
        self.reason = Arc::from(reason);
        self.unsent.clear();
        self.in_flight.clear();
        for (query, (read_index, read)) in std::mem::take(&mut self.asked) {
            self.reads.insert((read_index, query), read);
        }
    }

    fn ask_ready_reads(&mut self, actions: &mut CommitsActions) {
        if !matches!(self.machine, Machine::Attached) {
            return;
        }
        while let Some(first) = self.reads.first_entry()
            && first.key().0 <= self.applied
        {
            let ((read_index, query), read) = first.remove_entry();
            let bytes = read.query.clone();
            self.asked.insert(query, (read_index, read));
            actions.calls.push(self.call(MachineTask::Query { query, read_index, bytes }));
        }
    }

    fn expire(&mut self, now: u64) {
        for (index, Applying { waiting, .. }) in
            self.applying.extract_if(.., |_, applying| applying.waiting.expires <= now)
        {
            waiting.answer(Err(SubmitRefused::CommittedNotApplied { index }));
        }
        let reason =
            format!("the state machine did not answer in time ({})", self.status().machine);
        let waiting =
            self.reads.extract_if(.., |_, read| read.expires <= now).map(|(_, read)| read);
        let asked = self.asked.extract_if(.., |_, (_, read)| read.expires <= now);
        for read in waiting.chain(asked.map(|(_, (_, read))| read)) {
            read.answer(Err(QueryRefused::Unavailable { reason: reason.clone() }));
        }
    }
}

fn answer(waiting: Option<Waiting>, outcome: SubmitOutcome) {
    if let Some(waiting) = waiting {
        waiting.answer(outcome);
    }
}

fn outcome(result: CommandResult) -> Outcome {
    match result {
        CommandResult::Done(bytes) => Outcome::Done(bytes),
        CommandResult::Refused(bytes) => Outcome::Refused(bytes),
        CommandResult::Skipped => Outcome::AlreadyApplied,
    }
}
