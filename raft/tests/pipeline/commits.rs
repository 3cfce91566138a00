//! `digest_commits`: every committed command is folded once, applied once, and answered truthfully, whatever the state
//! machine does.

use bytes::Bytes;
use raft::command::{Command, Kind};
use raft::consensus::{Entry, Index, LogId, Payload, Term};
use raft::pipeline::digest_commits::{
    CommitsActions, CommitsEvent, DigestCommits, MachineCall, MachineEvent, MachineTask,
};
use raft::pipeline::pending::Waiting;
use raft::pipeline::{
    Committed, FromCommits, QueryOutcome, QueryRefused, Read, SubmitOutcome, SubmitRefused, Ticket,
    ToCommits,
};
use raft::rpc::client::{Answer, Outcome};
use raft::session::{Image, Name};
use state_machine::entries::EntryKind;
use state_machine::rpc::CommandResult;
use tokio::sync::oneshot;

/// The stage with a state machine that counts what it applies.
pub(crate) struct World {
    pub(crate) stage: DigestCommits,
    pub(crate) attachment: u64,
    /// Index and command of every entry that the machine was given to apply, in order.
    pub(crate) applied: Vec<(u64, Bytes)>,
    /// Batches that the machine has not answered yet.
    pub(crate) unanswered: Vec<(u64, Vec<CommandResult>)>,
    pub(crate) queries: Vec<u64>,
    /// Last indexes of the snapshots that the machine was given to load.
    pub(crate) restores: Vec<u64>,
    pub(crate) to_entries: Vec<FromCommits>,
    refused: Vec<String>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_image(None)
    }

    /// As after a start with a snapshot.
    pub(crate) fn with_image(image: Option<Image>) -> Self {
        Self {
            stage: DigestCommits::new(Index(1), image),
            attachment: 0,
            applied: Vec::new(),
            unanswered: Vec::new(),
            queries: Vec::new(),
            restores: Vec::new(),
            to_entries: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// With a machine that has applied nothing.
    pub(crate) fn attached() -> Self {
        let mut world = Self::new();
        world.attach(0);
        world.start_feed();
        world
    }

    pub(crate) fn handle(&mut self, event: CommitsEvent) {
        let CommitsActions { calls, to_entries } = self.stage.handle(&mut vec![event]);
        self.to_entries.extend(to_entries);
        for MachineCall { attachment, task } in calls {
            assert_eq!(attachment, self.attachment);
            match task {
                MachineTask::Apply { first, entries } => {
                    let mut results = Vec::new();
                    for (index, entry) in (first.0..).zip(entries.decode().expect("well-formed")) {
                        if entry.header.kind == EntryKind::Command {
                            self.applied.push((index, entry.command.clone()));
                            results.push(CommandResult::Done(format!("r{index}").into()));
                        } else {
                            results.push(CommandResult::Skipped);
                        }
                    }
                    self.unanswered.push((first.0, results));
                }
                MachineTask::Query { query, .. } => self.queries.push(query),
                MachineTask::Restore(meta) => self.restores.push(meta.last.index.0),
                MachineTask::Refuse(reason) => self.refused.push(reason),
            }
        }
    }

    pub(crate) fn hear(&mut self, message: ToCommits) {
        self.handle(CommitsEvent::FromEntries(message));
    }

    pub(crate) fn machine(&mut self, event: MachineEvent) {
        self.handle(CommitsEvent::Machine(event));
    }

    /// A machine comes; returns from where it wants to be fed.
    pub(crate) fn attach(&mut self, applied: u64) -> u64 {
        self.attachment += 1;
        self.unanswered.clear();
        let attachment = self.attachment;
        let applied = LogId::new(Term(1), Index(applied));
        self.machine(MachineEvent::Attached { attachment, applied });
        let asked = self.to_entries.iter().rev().find_map(|message| {
            let FromCommits::Attach { attachment: a, applied: at, from } = message else {
                return None;
            };
            (*a == attachment && *at == applied).then_some(from.0)
        });
        asked.expect("the first stage is asked to feed it")
    }

    pub(crate) fn start_feed(&mut self) {
        self.hear(ToCommits::FeedStarted { attachment: self.attachment });
    }

    pub(crate) fn detach(&mut self) {
        self.machine(MachineEvent::Detached { reason: "killed".to_owned() });
    }

    pub(crate) fn answer_all(&mut self) {
        while !self.unanswered.is_empty() {
            let (_, results) = self.unanswered.remove(0);
            self.machine(MachineEvent::Applied { results });
        }
    }

    pub(crate) fn commit(&mut self, batch: Vec<Committed>) {
        self.hear(ToCommits::Committed(batch));
    }

    pub(crate) fn commit_one(&mut self, entry: Entry) -> oneshot::Receiver<SubmitOutcome> {
        let (committed, answer) = with_caller(entry);
        self.commit(vec![committed]);
        answer
    }

    pub(crate) fn applied_indexes(&self) -> Vec<u64> {
        self.applied.iter().map(|(index, _)| *index).collect()
    }
}

pub(crate) fn entry(index: u64, payload: Payload) -> Entry {
    Entry { id: LogId::new(Term(1), Index(index)), payload }
}

pub(crate) fn command(index: u64, session: u64, sequence: u64) -> Entry {
    let body = Bytes::from(format!("c{index}"));
    let command =
        Command { kind: Kind::Apply, time_ms: 0, session, sequence, acked_below: 0, body };
    entry(index, Payload::Command(command.encode()))
}

pub(crate) fn open(index: u64) -> Entry {
    let (kind, body) = (Kind::OpenSession, Bytes::new());
    let command = Command { kind, time_ms: 0, session: 0, sequence: 0, acked_below: 0, body };
    entry(index, Payload::Command(command.encode()))
}

pub(crate) fn with_caller(entry: Entry) -> (Committed, oneshot::Receiver<SubmitOutcome>) {
    let (reply, answer) = oneshot::channel();
    let name = name_of(&entry);
    let waiting = Waiting { reply, expires: 100, ticket: Ticket::default(), name };
    (Committed { entry, waiting: Some(waiting) }, answer)
}

fn name_of(entry: &Entry) -> Option<Name> {
    let Payload::Command(payload) = &entry.payload else { return None };
    let command = Command::decode(payload).expect("our own");
    Name::new(command.session, command.sequence)
}

pub(crate) fn without_caller(entry: Entry) -> Committed {
    Committed { entry, waiting: None }
}

pub(crate) fn read_at(world: &mut World, read_index: u64) -> oneshot::Receiver<QueryOutcome> {
    let (reply, answer) = oneshot::channel();
    let query = Bytes::from_static(b"GET");
    let read = Read { query, reply, expires: 100, ticket: Ticket::default() };
    world.hear(ToCommits::Query { read_index: Index(read_index), read });
    answer
}

pub(crate) fn done(index: u64, result: &str) -> (Index, Outcome) {
    (Index(index), Outcome::Done(Bytes::from(result.to_owned())))
}

#[test]
fn commands_are_applied_in_order_and_answered_with_their_results() {
    let mut world = World::attached();
    let (first, mut first_answer) = with_caller(command(2, 0, 1));
    let (second, mut second_answer) = with_caller(command(3, 0, 2));
    world.commit(vec![without_caller(entry(1, Payload::Noop)), first, second]);
    assert!(first_answer.try_recv().is_err(), "not before the machine says so");
    world.answer_all();
    assert_eq!(first_answer.try_recv().unwrap(), Ok(done(2, "r2")));
    assert_eq!(second_answer.try_recv().unwrap(), Ok(done(3, "r3")));
    assert_eq!(world.applied, [(2, "c2".into()), (3, "c3".into())]);
    assert_eq!(world.stage.status().applied, Index(3));
}

#[test]
fn a_retry_gets_the_first_result_and_is_not_applied() {
    let mut world = World::attached();
    let _opened = world.commit_one(open(1));
    let mut first = world.commit_one(command(2, 1, 7));
    let mut again_in_flight = world.commit_one(command(3, 1, 7));
    world.answer_all();
    let mut again_later = world.commit_one(command(4, 1, 7));
    world.answer_all();
    for answer in [&mut first, &mut again_in_flight, &mut again_later] {
        assert_eq!(answer.try_recv().unwrap(), Ok(done(2, "r2")));
    }
    assert_eq!(world.applied_indexes(), [2]);
}

#[test]
fn a_session_outlives_any_time_without_commands() {
    let mut world = World::attached();
    let _opened = world.commit_one(open(1));
    for now in 1..=1_000 {
        world.hear(ToCommits::Tick(now));
    }
    let mut answer = world.commit_one(command(2, 1, 1));
    world.answer_all();
    assert_eq!(answer.try_recv().unwrap(), Ok(done(2, "r2")), "only log time ends a session");
}

#[test]
fn session_opens_without_the_machine_and_unknown_session_is_refused() {
    let mut world = World::new();
    assert_eq!(world.commit_one(open(1)).try_recv().unwrap(), Ok(done(1, "")));
    let refused = world.commit_one(command(2, 99, 1)).try_recv().unwrap();
    assert_eq!(refused, Err(SubmitRefused::SessionExpired));
    world.attach(0);
    world.start_feed();
    world.commit(vec![without_caller(open(1)), without_caller(command(2, 99, 1))]);
    world.answer_all();
    assert_eq!(world.applied_indexes(), [] as [u64; 0]);
    assert_eq!(world.stage.status().applied, Index(2));
}

#[test]
fn machine_that_was_killed_is_fed_from_its_own_index_without_the_duplicates() {
    let mut world = World::attached();
    let log = [open(1), command(2, 1, 1), command(3, 1, 1), command(4, 1, 2), command(5, 0, 0)];
    world.commit(log.iter().cloned().map(without_caller).collect());
    world.answer_all();
    assert_eq!(world.applied_indexes(), [2, 4, 5]);
    world.detach();
    world.applied.clear();
    assert_eq!(world.attach(1), 2, "its disk went back to 1");
    world.start_feed();
    world.commit(log[1..].iter().cloned().map(without_caller).collect());
    world.answer_all();
    assert_eq!(world.applied_indexes(), [2, 4, 5], "3 is still a duplicate");
}

#[test]
fn callers_wait_while_the_machine_is_away_and_are_answered_when_it_is_back() {
    let mut world = World::attached();
    let mut sent = world.commit_one(command(1, 0, 0));
    world.detach();
    let mut unsent = world.commit_one(command(2, 0, 0));
    assert_eq!(world.attach(0), 1);
    world.start_feed();
    world.commit(vec![without_caller(command(1, 0, 0)), without_caller(command(2, 0, 0))]);
    assert!(sent.try_recv().is_err() && unsent.try_recv().is_err());
    world.answer_all();
    assert_eq!(sent.try_recv().unwrap(), Ok(done(1, "r1")));
    assert_eq!(unsent.try_recv().unwrap(), Ok(done(2, "r2")));
}

#[test]
fn applied_but_not_answered_is_said_to_be_applied() {
    let mut world = World::attached();
    let mut answer = world.commit_one(command(1, 0, 0));
    world.detach();
    world.attach(1);
    assert!(answer.try_recv().is_err(), "not before the first stage agrees that it is our machine");
    world.start_feed();
    assert_eq!(answer.try_recv().unwrap(), Ok((Index(1), Outcome::AlreadyApplied)));
}

#[test]
fn machine_ahead_after_our_restart_is_not_given_what_it_has() {
    let mut world = World::new();
    assert_eq!(world.attach(2), 1, "entries 1 and 2 must still be folded");
    world.start_feed();
    world.commit(vec![
        without_caller(open(1)),
        without_caller(command(2, 1, 1)),
        without_caller(command(3, 1, 2)),
    ]);
    world.answer_all();
    assert_eq!(world.applied_indexes(), [3]);
    let again = world.commit_one(command(4, 1, 1)).try_recv().unwrap();
    assert_eq!(
        again,
        Ok((Index(2), Outcome::AlreadyApplied)),
        "folded, though its result is not known"
    );
}

#[test]
fn feed_of_an_earlier_attachment_is_not_taken_for_ours() {
    let mut world = World::new();
    world.attach(5);
    world.attach(0);
    world.hear(ToCommits::FeedStarted { attachment: 1 });
    world.commit(vec![without_caller(command(1, 0, 0))]);
    assert_eq!(world.applied_indexes(), [] as [u64; 0]);
    world.start_feed();
    world.commit(vec![without_caller(command(1, 0, 0))]);
    assert_eq!(world.applied_indexes(), [1]);
}

#[test]
fn refused_machine_is_let_go_with_its_reason() {
    let mut world = World::new();
    let attachment = world.attachment + 1;
    world.attach(9);
    world.hear(ToCommits::MachineRefused { attachment, reason: "of another log".to_owned() });
    assert_eq!(world.refused, ["of another log"]);
    assert_eq!(&*world.stage.status().machine, "of another log");
}

#[test]
fn wrong_number_of_results_is_a_broken_machine() {
    let mut world = World::attached();
    let mut answer = world.commit_one(command(1, 0, 0));
    world.machine(MachineEvent::Applied { results: Vec::new() });
    assert_eq!(world.refused.len(), 1);
    assert!(answer.try_recv().is_err(), "nothing is known of it yet");
}

#[test]
fn reads_wait_for_their_index_and_survive_the_machine() {
    let mut world = World::attached();
    world.commit(vec![without_caller(command(1, 0, 0))]);
    let mut answer = read_at(&mut world, 1);
    assert!(world.queries.is_empty());
    world.answer_all();
    assert_eq!(world.queries.len(), 1);
    world.detach();
    world.attach(1);
    world.start_feed();
    assert_eq!(world.queries.len(), 2, "asked again");
    let query = world.queries[1];
    let result = CommandResult::Done(Bytes::from_static(b"v"));
    world.machine(MachineEvent::Answered { query, result });
    let outcome = Outcome::Done(Bytes::from_static(b"v"));
    assert_eq!(answer.try_recv().unwrap(), Ok(Answer { read_index: 1, outcome }));
}

#[test]
fn time_is_up_for_commands_and_reads_alike() {
    let mut world = World::new();
    let mut command_answer = world.commit_one(command(1, 0, 0));
    let mut read_answer = read_at(&mut world, 1);
    world.hear(ToCommits::Tick(95));
    assert!(command_answer.try_recv().is_err() && read_answer.try_recv().is_err());
    world.hear(ToCommits::Tick(100));
    let expected = SubmitRefused::CommittedNotApplied { index: Index(1) };
    assert_eq!(command_answer.try_recv().unwrap(), Err(expected));
    assert!(matches!(read_answer.try_recv().unwrap(), Err(QueryRefused::Unavailable { .. })));
}

#[test]
fn first_stage_gets_its_window_back_only_when_the_machine_was_given_the_entries() {
    let mut world = World::attached();
    let taken = |world: &World| {
        let taken = world.to_entries.iter().filter(|m| matches!(m, FromCommits::Taken(_)));
        taken.count()
    };
    // One batch of a megabyte per commit fills the four that may be in flight.
    let large = |index| {
        let body = Bytes::from(vec![0; 1024 * 1024]);
        let (kind, session) = (Kind::Apply, 0);
        let command = Command { kind, time_ms: 0, session, sequence: 0, acked_below: 0, body };
        without_caller(entry(index, Payload::Command(command.encode())))
    };
    for index in 1..=6 {
        world.commit(vec![large(index)]);
    }
    assert_eq!(taken(&world), 4);
    world.answer_all();
    assert_eq!(taken(&world), 6);
    assert_eq!(world.applied_indexes(), [1, 2, 3, 4, 5, 6]);
}
