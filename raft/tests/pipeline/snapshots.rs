//! Both stages around a snapshot: taken, installed, restored; the session table goes along, and nobody waits for ever.

use bytes::Bytes;
use raft::command::{Command, Kind};
use raft::consensus::{
    AppendOutcome, AppendRequest, Entry, Envelope, Index, LogId, Membership, Message, NodeId,
    NodeInfo, Payload, SnapshotMeta, Term, Token,
};
use raft::pipeline::digest_commits::{Capture, CaptureRefused, CommitsEvent, MachineEvent};
use raft::pipeline::digest_entries::{DigestEntries, EntriesActions, EntriesEvent, FetchFor};
use raft::pipeline::{Committed, FromCommits, SubmitOutcome, SubmitRefused, ToCommits};
use raft::rpc::client::Outcome;
use raft::session::Image;
use state_machine::rpc::CommandResult;
use tokio::sync::oneshot;

use super::commits::{World, command, done, entry, open, read_at, with_caller, without_caller};
use super::entries;

fn id(index: u64) -> LogId {
    LogId::new(Term(1), Index(index))
}

fn meta(index: u64) -> SnapshotMeta {
    let node = NodeId(1);
    let membership = Membership {
        voters: [node].into(),
        nodes: [(node, NodeInfo::default())].into(),
        ..Membership::default()
    };
    SnapshotMeta { last: id(index), membership, membership_index: Index(1) }
}

/// The log that everything here is about: a session, a command, its repetition, another command, one that is refused.
fn log() -> Vec<Entry> {
    vec![open(1), command(2, 1, 1), command(3, 1, 1), command(4, 1, 2), command(5, 9, 1)]
}

fn plain(entries: &[Entry]) -> Vec<Committed> {
    entries.iter().cloned().map(without_caller).collect()
}

/// The world of another node that has applied the log up to `index`.
fn elsewhere(index: usize) -> World {
    let mut world = World::attached();
    world.commit(plain(&log()[..index]));
    world.answer_all();
    world
}

fn capture(world: &mut World, at_least: u64) -> oneshot::Receiver<Result<Image, CaptureRefused>> {
    let (reply, image) = oneshot::channel();
    world.handle(CommitsEvent::Capture(Capture { at_least: Index(at_least), reply }));
    image
}

fn captured(world: &mut World, at_least: u64) -> Image {
    capture(world, at_least).try_recv().expect("at once").expect("it is as new")
}

/// An image as it comes out of a file.
fn image_at(index: usize) -> Image {
    let image = captured(&mut elsewhere(index), 0);
    assert_eq!(image.folded(), Index(index as u64));
    Image::decode(&image.encode()).expect("our own")
}

fn install(world: &mut World, index: u64, image: Image) {
    let (image, callers) = (Box::new(image), Vec::new());
    world.hear(ToCommits::Install { meta: meta(index), image, callers });
    world.hear(ToCommits::Compacted(Index(index)));
}

/// The first stage finds the machine behind the snapshot at `index`, and the link restores it from there.
fn restore(world: &mut World, index: u64) {
    let attachment = world.attachment;
    world.hear(ToCommits::MachineBehind { attachment, snapshot: meta(index) });
    assert_eq!(world.restores.pop(), Some(index));
    world.machine(MachineEvent::Restored { applied: id(index) });
}

/// What the machine that is there asks for: its applied index, and from where it wants to be fed.
fn last_asked(world: &World) -> (u64, u64) {
    let asked = world.to_entries.iter().rev().find_map(|message| match message {
        FromCommits::Attach { attachment, applied, from } => {
            assert_eq!(*attachment, world.attachment);
            Some((applied.index.0, from.0))
        }
        FromCommits::Taken(_) | FromCommits::Applied(_) => None,
    });
    asked.expect("it asks")
}

#[test]
fn capture_waits_until_the_table_is_as_new_as_the_machine() {
    let mut world = World::new();
    world.attach(2);
    world.start_feed();
    let mut early = capture(&mut world, 2);
    assert!(early.try_recv().is_err(), "the machine is ahead of what has passed here");
    world.commit(plain(&log()[..1]));
    assert!(early.try_recv().is_err());
    world.commit(plain(&log()[1..3]));
    assert_eq!(early.try_recv().unwrap().unwrap().folded(), Index(3));
}

#[test]
fn capture_waits_for_results_that_are_on_their_way() {
    let mut world = World::attached();
    world.commit(plain(&log()[..2]));
    let mut image = capture(&mut world, 2);
    assert!(image.try_recv().is_err(), "the answer to entry 2 comes on another connection");
    world.answer_all();
    let mut other = World::with_image(Some(image.try_recv().unwrap().unwrap()));
    other.attach(2);
    other.start_feed();
    let again = other.commit_one(command(3, 1, 1)).try_recv().unwrap();
    assert_eq!(again, Ok(done(2, "r2")));
}

#[test]
fn capture_that_takes_too_long_or_is_overtaken_is_refused() {
    let mut world = World::new();
    world.hear(ToCommits::Tick(5));
    let mut first = capture(&mut world, 7);
    let mut second = capture(&mut world, 8);
    assert_eq!(first.try_recv().unwrap(), Err(CaptureRefused::Superseded));
    world.hear(ToCommits::Tick(3_000));
    assert!(second.try_recv().is_err());
    world.hear(ToCommits::Tick(3_005));
    let late = CaptureRefused::Late { folded: Index(0), at_least: Index(8) };
    assert_eq!(second.try_recv().unwrap(), Err(late));
}

#[test]
fn node_that_starts_with_an_image_goes_on_as_if_it_had_folded_the_log() {
    let mut world = World::with_image(Some(image_at(3)));
    assert_eq!(world.attach(1), 2, "the machine lacks what is folded already");
    world.start_feed();
    world.commit(plain(&log()[1..]));
    world.answer_all();
    assert_eq!(world.applied_indexes(), [2, 4], "3 repeats 2, 5 has no session");
    let again = world.commit_one(command(6, 1, 1)).try_recv().unwrap();
    assert_eq!(again, Ok(done(2, "r2")));
    world.answer_all();
    assert_eq!(world.applied_indexes(), [2, 4]);
}

#[test]
fn machine_behind_the_log_is_restored_and_fed_from_there() {
    let mut world = World::with_image(Some(image_at(3)));
    assert_eq!(world.attach(0), 1);
    let mut read = read_at(&mut world, 4);
    let attachment = world.attachment;
    world.hear(ToCommits::MachineBehind { attachment, snapshot: meta(2) });
    assert_eq!(world.restores, [2]);
    assert!(world.stage.status().machine.contains("restoring"));
    world.commit(plain(&log()[3..4]));
    assert_eq!(world.applied_indexes(), [] as [u64; 0], "nothing is sent while it restores");
    world.machine(MachineEvent::Restored { applied: id(2) });
    assert_eq!(last_asked(&world), (2, 3));
    world.start_feed();
    world.commit(plain(&log()[2..4]));
    assert!(world.queries.is_empty() && read.try_recv().is_err());
    world.answer_all();
    assert_eq!(world.applied_indexes(), [4]);
    assert_eq!(world.queries.len(), 1);
}

#[test]
fn restore_that_fails_is_asked_for_again_by_the_next_attachment() {
    let mut world = World::with_image(Some(image_at(3)));
    world.attach(0);
    let attachment = world.attachment;
    world.hear(ToCommits::MachineBehind { attachment, snapshot: meta(2) });
    world.detach();
    world.machine(MachineEvent::Restored { applied: id(2) });
    assert_eq!(&*world.stage.status().machine, "killed", "an answer too late means nothing");
    world.hear(ToCommits::MachineBehind { attachment, snapshot: meta(2) });
    assert_eq!(world.restores, [2], "nor does an answer to an earlier attachment");
    world.attach(0);
    restore(&mut world, 2);
    assert_eq!(last_asked(&world), (2, 3));
}

#[test]
fn install_brings_the_verdicts_and_results_of_another_node() {
    let mut world = World::attached();
    world.commit(plain(&log()[..1]));
    world.answer_all();
    install(&mut world, 4, image_at(5));
    assert_eq!(last_asked(&world), (1, 2));
    assert!(world.stage.status().machine.contains("behind the log"));
    restore(&mut world, 4);
    world.start_feed();
    world.commit(plain(&log()[4..]));
    world.answer_all();
    assert_eq!(world.applied_indexes(), [] as [u64; 0]);
    let repeated = world.commit_one(command(6, 1, 2)).try_recv().unwrap();
    assert_eq!(repeated, Ok(done(4, "r4")));
    world.answer_all();
    let mut fresh = world.commit_one(command(7, 1, 3));
    world.answer_all();
    assert_eq!(fresh.try_recv().unwrap(), Ok(done(7, "r7")));
}

#[test]
fn batches_in_flight_at_an_install_are_answered_with_their_own_results() {
    let mut world = World::attached();
    let (second, mut answer) = with_caller(command(2, 1, 1));
    world.commit(vec![without_caller(open(1)), second]);
    install(&mut world, 4, image_at(5));
    let asked = |world: &World| {
        world.to_entries.iter().filter(|m| matches!(m, FromCommits::Attach { .. })).count()
    };
    assert_eq!(asked(&world), 1, "it has not answered yet");
    world.commit(plain(&log()[4..]));
    assert_eq!(world.unanswered.len(), 1, "nothing more is sent");
    world.answer_all();
    assert_eq!(answer.try_recv().unwrap(), Ok(done(2, "r2")));
    assert_eq!((asked(&world), last_asked(&world)), (2, (2, 3)));
    restore(&mut world, 4);
    world.start_feed();
    world.commit(vec![without_caller(log()[4].clone()), without_caller(command(6, 0, 0))]);
    world.answer_all();
    assert_eq!(world.applied_indexes(), [2, 6]);
}

#[test]
fn callers_of_entries_that_an_install_covers_are_answered_truthfully() {
    // The machine is away: what is committed waits for it.
    let mut world = World::new();
    let (own, mut own_answer) = with_caller(command(2, 1, 1));
    let (repeated, mut repeated_answer) = with_caller(command(3, 1, 1));
    let (free, mut free_answer) = with_caller(command(4, 0, 0));
    world.commit(vec![without_caller(open(1)), own, repeated, free]);
    // Not committed here when the snapshot came: one is in its table, one is not, one has no name.
    let (listed, mut listed_answer) = with_caller(command(9, 1, 2));
    let (unlisted, mut unlisted_answer) = with_caller(command(9, 1, 77));
    let (nameless, mut nameless_answer) = with_caller(command(9, 0, 0));
    let callers = [listed, unlisted, nameless].map(|committed| committed.waiting.unwrap()).into();
    let image = Box::new(image_at(5));
    world.hear(ToCommits::Install { meta: meta(5), image, callers });
    assert_eq!(listed_answer.try_recv().unwrap(), Ok(done(4, "r4")));
    for answer in [&mut unlisted_answer, &mut nameless_answer] {
        let unknown = answer.try_recv().unwrap();
        assert!(matches!(unknown, Err(SubmitRefused::Unknown { .. })), "{unknown:?}");
    }
    assert!(own_answer.try_recv().is_err(), "committed, and the machine is not there");
    world.attach(0);
    restore(&mut world, 5);
    world.start_feed();
    for answer in [&mut own_answer, &mut repeated_answer] {
        assert_eq!(answer.try_recv().unwrap(), Ok(done(2, "r2")));
    }
    let forgotten = Ok((Index(4), Outcome::AlreadyApplied));
    assert_eq!(free_answer.try_recv().unwrap(), forgotten, "it has no session to keep a result");
}

#[test]
fn callers_of_entries_that_only_the_table_knows_learn_their_fate() {
    let mut source = elsewhere(5);
    let extra = [
        open(6),
        of_kind(7, Kind::CloseSession, 6),
        of_kind(8, Kind::RenewSession, 1),
        of_kind(9, Kind::RenewSession, 6),
        command(10, 0, 0),
        command(11, 1, 2),
        command(12, 6, 1),
        command(13, 1, 3),
    ];
    source.commit(plain(&extra));
    source.answer_all();
    let image = captured(&mut source, 13);
    let mut world = World::new();
    install(&mut world, 5, image);
    let mut answers: Vec<oneshot::Receiver<SubmitOutcome>> = Vec::new();
    let batch = extra.iter().cloned().map(|entry| {
        let (committed, answer) = with_caller(entry);
        answers.push(answer);
        committed
    });
    world.attach(0);
    let batch = batch.collect();
    restore(&mut world, 5);
    world.start_feed();
    world.commit(batch);
    world.answer_all();
    let answers: Vec<_> = answers.iter_mut().map(|answer| answer.try_recv().unwrap()).collect();
    let nothing = |index| Ok(done(index, ""));
    assert_eq!(answers[..3], [nothing(6), nothing(7), nothing(8)]);
    assert_eq!(answers[3], Err(SubmitRefused::SessionExpired));
    assert_eq!(answers[4], Ok(done(10, "r10")), "applied here");
    assert_eq!(answers[5], Ok(done(4, "r4")), "its first one's");
    assert!(matches!(answers[6], Err(SubmitRefused::Unknown { .. })), "{:?}", answers[6]);
    assert_eq!(answers[7], Ok(done(13, "r13")));
    assert_eq!(world.applied_indexes(), [10, 13]);
}

fn of_kind(index: u64, kind: Kind, session: u64) -> Entry {
    let body = Bytes::new();
    let command = Command { kind, time_ms: 0, session, sequence: 0, acked_below: 0, body };
    entry(index, Payload::Command(command.encode()))
}

#[test]
fn sessions_are_renewed_and_closed_without_the_machine() {
    let mut world = World::new();
    world.commit(plain(&[open(1)]));
    let renewed = world.commit_one(of_kind(2, Kind::RenewSession, 1)).try_recv().unwrap();
    assert_eq!(renewed, Ok(done(2, "")));
    let closed = world.commit_one(of_kind(3, Kind::CloseSession, 1)).try_recv().unwrap();
    assert_eq!(closed, Ok(done(3, "")));
    let late = world.commit_one(command(4, 1, 1)).try_recv().unwrap();
    assert_eq!(late, Err(SubmitRefused::SessionExpired));
    let late = world.commit_one(of_kind(5, Kind::RenewSession, 1)).try_recv().unwrap();
    assert_eq!(late, Err(SubmitRefused::SessionExpired));
    world.attach(0);
    world.start_feed();
    let closed = of_kind(3, Kind::CloseSession, 1);
    world.commit(plain(&[open(1), of_kind(2, Kind::RenewSession, 1), closed, command(4, 1, 1)]));
    world.answer_all();
    assert_eq!(world.applied_indexes(), [] as [u64; 0]);
    assert_eq!(world.stage.status().applied, Index(4));
}

#[test]
fn an_image_forgets_what_stands_below_the_log() {
    let with = |base: u64| {
        let mut world = elsewhere(5);
        world.hear(ToCommits::Compacted(Index(base)));
        let image = captured(&mut world, 5);
        image.encode().len()
    };
    assert_eq!([with(0), with(2), with(3), with(5)].map(|bytes| with(0) - bytes), [0, 0, 8, 16]);
}

#[test]
fn machine_that_went_back_while_the_log_was_compacted_is_restored() {
    let mut world = elsewhere(5);
    world.detach();
    world.attach(1);
    world.start_feed();
    world.commit(plain(&log()[1..3]));
    world.hear(ToCommits::Compacted(Index(3)));
    world.commit(plain(&log()[3..4]));
    assert!(world.stage.status().is_attached(), "it was given all that is gone");
    world.hear(ToCommits::Compacted(Index(5)));
    assert!(!world.stage.status().is_attached(), "entry 5 is gone, and it never got it");
    world.answer_all();
    assert_eq!(last_asked(&world), (4, 5));
    restore(&mut world, 5);
    assert_eq!(last_asked(&world), (5, 6));
}

/// A leader whose machine lacks entries that are no longer in memory, and the generation of the read for it.
fn leader_that_reads_for_its_machine() -> (DigestEntries, u64) {
    let mut stage = entries::leader(4 * 1024);
    for _ in 0..20 {
        let (event, _answer) = entries::submission(Bytes::from(vec![7; 1024]));
        entries::settle(&mut stage, vec![event]);
    }
    let attach = FromCommits::Attach { attachment: 3, applied: LogId::default(), from: Index(1) };
    let actions = entries::settle(&mut stage, vec![EntriesEvent::FromCommits(attach)]);
    let (FetchFor::Feed(generation), ..) = actions.fetch[0] else { panic!("{:?}", actions.fetch) };
    (stage, generation)
}

#[test]
fn feed_goes_on_from_where_a_compacted_log_begins() {
    let (mut stage, generation) = leader_that_reads_for_its_machine();
    let compact_to = Index(15);
    let meta = stage.raft().describe(compact_to).expect("it is committed");
    let taken = EntriesEvent::SnapshotTaken { meta: meta.clone(), oldest: compact_to };
    let events =
        vec![taken, EntriesEvent::Trailing(compact_to), EntriesEvent::FeedGone { generation }];
    let actions = entries::settle(&mut stage, events);
    assert_eq!(actions.compact, [(0, meta)]);
    assert!(matches!(actions.to_commits[0], ToCommits::Compacted(Index(15))));
    let fed = actions.to_commits.iter().filter_map(entries::batch).flatten();
    let fed = fed.map(|committed| committed.entry.id.index);
    let first = fed.chain(actions.fetch.iter().map(|(_, range, _)| range.from)).min();
    assert_eq!(first, Some(Index(16)));
}

#[test]
fn older_image_takes_nothing_back() {
    let mut world = elsewhere(5);
    install(&mut world, 2, image_at(2));
    assert!(world.stage.status().is_attached(), "the machine has all that is in it");
    let refused = world.commit_one(command(6, 9, 1)).try_recv().unwrap();
    assert_eq!(refused, Err(SubmitRefused::SessionExpired));
    let again = world.commit_one(command(7, 1, 2)).try_recv().unwrap();
    assert_eq!(again, Ok(done(4, "r4")));
}

/// A follower of node 2 that has heard of nothing yet.
struct Follower {
    stage: DigestEntries,
}

impl Follower {
    fn new() -> Self {
        let mut follower = Self { stage: entries::stage(1024 * 1024) };
        follower.append(LogId::default(), Vec::new());
        follower
    }

    fn receives(&mut self, index: u64, image: Image) -> EntriesActions {
        let (meta, image) = (meta(index), Box::new(image));
        entries::settle(&mut self.stage, vec![EntriesEvent::SnapshotReceived { meta, image }])
    }

    fn attach(&mut self, applied: u64, from: u64) -> ToCommits {
        let (applied, from) = (id(applied), Index(from));
        let attach = FromCommits::Attach { attachment: 3, applied, from };
        let mut actions = entries::settle(&mut self.stage, vec![EntriesEvent::FromCommits(attach)]);
        actions.to_commits.remove(0)
    }

    /// The leader says that these entries are committed.
    fn append(&mut self, prev: LogId, entries: Vec<Entry>) -> EntriesActions {
        let commit_index = entries.last().map_or(prev.index, |entry| entry.id.index);
        let request = AppendRequest { prev, entries, commit_index, read_seq: 0 };
        let (from, to, token) = (NodeId(2), NodeId(1), Token::default());
        let body = Message::Append(request);
        let question = Envelope { from, to, term: Term(1), token, body };
        let (reply, mut answer) = oneshot::channel();
        let asks = EntriesEvent::PeerAsks { question, reply };
        let actions = entries::settle(&mut self.stage, vec![asks]);
        let Ok(Envelope { body: Message::AppendResponse(response), .. }) = answer.try_recv() else {
            panic!("no answer to an append")
        };
        assert!(matches!(response.outcome, AppendOutcome::Accepted { .. }), "{response:?}");
        actions
    }
}

#[test]
fn snapshot_from_the_leader_is_passed_on_and_the_feed_goes_on_after_it() {
    let mut follower = Follower::new();
    let actions = follower.receives(4, image_at(5));
    let [ToCommits::Install { meta, image, callers }, ToCommits::Compacted(base)] =
        &actions.to_commits[..]
    else {
        panic!("{:?}", actions.to_commits)
    };
    assert_eq!((meta.last.index, image.folded(), *base), (Index(4), Index(5), Index(4)));
    assert!(callers.is_empty());
    let bases: Vec<_> = actions.compact.iter().map(|(_, base)| base.last).collect();
    assert_eq!(bases, [id(4)]);
    let again = follower.receives(3, image_at(5));
    assert!(again.to_commits.is_empty(), "the core has no use for an older one");
    let actions = follower.append(id(4), vec![command(5, 9, 1), command(6, 0, 0)]);
    let batches = actions.to_commits.iter().filter_map(entries::batch);
    let indexes: Vec<_> = batches.flatten().map(|committed| committed.entry.id.index.0).collect();
    assert_eq!(indexes, [5, 6]);
}

/// Found by reading: both came in one step of the stage, and the log was given the entries before it began after the snapshot.
#[test]
fn entries_behind_a_snapshot_go_to_the_log_after_it() {
    let mut follower = Follower::new();
    let (meta, image) = (meta(4), Box::new(image_at(5)));
    let received = EntriesEvent::SnapshotReceived { meta, image };
    let entries = vec![command(5, 9, 1)];
    let request = AppendRequest { prev: id(4), entries, commit_index: Index(4), read_seq: 0 };
    let (from, to, token) = (NodeId(2), NodeId(1), Token::default());
    let question = Envelope { from, to, term: Term(1), token, body: Message::Append(request) };
    let (reply, _answer) = oneshot::channel();
    let mut events = vec![received, EntriesEvent::PeerAsks { question, reply }];
    let actions = follower.stage.handle(&mut events, 0);
    let [(place, base)] = &actions.compact[..] else { panic!("{:?}", actions.compact) };
    assert_eq!(base.last, id(4));
    let (before, after) = actions.persist.split_at(*place);
    assert!(before.iter().all(|persist| persist.append.is_empty()), "{before:?}");
    assert!(after.iter().any(|persist| persist.append.iter().any(|entry| entry.id == id(5))));
}

#[test]
fn machine_below_the_base_gets_the_snapshot_and_one_at_it_is_fed() {
    let mut follower = Follower::new();
    follower.receives(4, image_at(5));
    for applied in [0, 3] {
        let answer = follower.attach(applied, applied + 1);
        let ToCommits::MachineBehind { attachment: 3, snapshot } = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(snapshot.last, id(4));
    }
    let answer = follower.attach(4, 5);
    assert!(matches!(answer, ToCommits::FeedStarted { attachment: 3 }), "{answer:?}");
}

#[test]
fn machine_that_asked_before_the_second_stage_heard_of_the_snapshot_is_fed_what_there_is() {
    let mut follower = Follower::new();
    follower.receives(4, image_at(5));
    let answer = follower.attach(4, 1);
    assert!(matches!(answer, ToCommits::FeedStarted { attachment: 3 }), "{answer:?}");
    let actions = follower.append(id(4), vec![command(5, 9, 1)]);
    assert!(actions.fetch.is_empty(), "{:?}", actions.fetch);
    assert!(actions.to_commits.iter().any(|message| entries::batch(message).is_some()));
}

#[test]
fn read_of_the_log_for_an_earlier_attachment_that_finds_nothing_does_no_harm() {
    let (mut stage, generation) = leader_that_reads_for_its_machine();
    let attach = FromCommits::Attach { attachment: 4, applied: LogId::default(), from: Index(1) };
    entries::settle(&mut stage, vec![EntriesEvent::FromCommits(attach)]);
    let actions = entries::settle(&mut stage, vec![EntriesEvent::FeedGone { generation }]);
    assert!(actions.to_commits.is_empty() && actions.fetch.is_empty());
}

#[test]
fn callers_wait_no_longer_for_entries_that_a_snapshot_stands_in_for() {
    let mut stage = entries::leader(1024 * 1024);
    let (event, mut answer) = entries::submission(Bytes::from_static(b"x"));
    // Its disk hangs, another one leads, and this node is given a snapshot.
    stage.handle(&mut vec![event], 1_000);
    let place = stage.raft().last();
    let term = Term(place.term.0 + 1);
    let (from, to, token) = (NodeId(2), NodeId(1), Token::default());
    let heartbeat =
        AppendRequest { prev: place, entries: Vec::new(), commit_index: Index(0), read_seq: 0 };
    let deposed = Envelope { from, to, term, token, body: Message::Append(heartbeat) };
    stage.handle(&mut vec![EntriesEvent::PeerSays(deposed)], 1_000);
    let last = LogId::new(term, Index(place.index.0 + 5));
    let meta = SnapshotMeta { last, ..meta(0) };
    let image = covering(last.index.0);
    let received = EntriesEvent::SnapshotReceived { meta, image: Box::new(image) };
    let mut actions = stage.handle(&mut vec![received], 1_000);
    let place = actions.to_commits.iter().position(|m| matches!(m, ToCommits::Install { .. }));
    let ToCommits::Install { meta, image, callers } =
        actions.to_commits.swap_remove(place.expect("it is installed"))
    else {
        unreachable!()
    };
    assert_eq!(callers.len(), 1);
    let mut world = World::new();
    world.hear(ToCommits::Install { meta, image, callers });
    assert!(matches!(answer.try_recv().unwrap(), Err(SubmitRefused::Unknown { .. })));
}

/// An image that is as new as an entry of no meaning.
fn covering(index: u64) -> Image {
    let mut world = World::new();
    let noops = (1..=index).map(|index| without_caller(entry(index, Payload::Noop)));
    world.commit(noops.collect());
    captured(&mut world, index)
}

#[test]
fn stamps_do_not_fall_behind_the_time_of_a_snapshot() {
    let mut world = World::new();
    let late = Command {
        kind: Kind::Apply,
        time_ms: 9_000,
        session: 0,
        sequence: 0,
        acked_below: 0,
        body: Bytes::new(),
    };
    world.commit(vec![without_caller(entry(1, Payload::Command(late.encode())))]);
    let image = captured(&mut world, 1);
    assert_eq!(image.time_ms(), 9_000);
    let mut stage = entries::leader(1024 * 1024).after_time(image.time_ms());
    let (event, _answer) = entries::submission(Bytes::new());
    let actions = stage.handle(&mut vec![event], 5_000);
    let stamps: Vec<_> = actions
        .persist
        .iter()
        .flat_map(|persist| &persist.append)
        .filter_map(|entry| match &entry.payload {
            Payload::Command(command) => Some(Command::time_ms_of(command)),
            Payload::Noop | Payload::Membership(_) => None,
        })
        .collect();
    assert_eq!(stamps, [9_000]);
}

#[test]
fn results_that_do_not_fit_their_batch_are_refused_while_an_install_waits_for_them() {
    let mut world = World::attached();
    world.commit(plain(&log()[..2]));
    install(&mut world, 4, image_at(5));
    let results = vec![CommandResult::Skipped; 3];
    world.machine(MachineEvent::Applied { results });
    assert!(world.stage.status().machine.contains("3 results for a batch of 2"));
    world.attach(0);
    restore(&mut world, 4);
    assert_eq!(last_asked(&world), (4, 5));
}
