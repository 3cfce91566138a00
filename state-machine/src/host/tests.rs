//! The rules of the contract, as plain calls with the register as the machine.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::attachment::MemoryAttachment;
use crate::entries::{BlobError, EntryBlob, EntryBlobBuilder, EntryHeader, EntryKind};
use crate::machine::LogId;
use crate::register::Register;
use crate::rpc::{
    BeginRestore, BeginSnapshot, FinishRestore, MAX_CHUNK_BYTES, Notice, ReadSnapshot,
    RestoreError, SnapshotChunk, SnapshotError, SnapshotInfo, WriteRestore,
};

const CLUSTER: u128 = 77;
const NODE: u64 = 5;

type TestHost = Host<Register, &'static str>;

fn attach(boot: u64) -> Attach {
    Attach { contract: CONTRACT_VERSION, cluster: CLUSTER, node: NODE, boot }
}

fn new_host() -> TestHost {
    Host::new(Register::new(), Box::new(MemoryAttachment::default())).unwrap()
}

/// A host that boot 1 attached to.
fn attached_host() -> TestHost {
    let mut host = new_host();
    host.attach(&attach(1)).unwrap().0.unwrap();
    host
}

/// A batch of commands, all of term 3; `-` stands for an entry without a command.
fn batch(first_index: u64, commands: &[&str]) -> Apply {
    let mut builder = EntryBlobBuilder::new();
    for command in commands {
        let skip = *command == "-";
        let kind = if skip { EntryKind::Skip } else { EntryKind::Command };
        let header = EntryHeader { kind, term: 3, time_ms: 0, session: 0, sequence: 0 };
        builder.push(&header, if skip { b"" } else { command.as_bytes() });
    }
    Apply { boot: 1, first_index, entries: builder.finish() }
}

fn done(bytes: &'static str) -> CommandResult {
    CommandResult::Done(Bytes::from_static(bytes.as_bytes()))
}

type Answer = (&'static str, Result<Applied, ApplyError>);

fn applied(ticket: &'static str, first_index: u64, results: &[CommandResult]) -> Answer {
    let results = results.to_vec();
    (ticket, Ok(Applied { first_index, results, durable_index: 0, wants_snapshot: false }))
}

fn gap(ticket: &'static str, expected: u64, got: u64) -> Answer {
    (ticket, Err(ApplyError::Gap { expected, got }))
}

fn ask(host: &TestHost, min_applied_index: u64) -> Result<CommandResult, QueryError> {
    host.query(&Query { boot: 1, min_applied_index, query: Bytes::new() }).unwrap()
}

#[test]
fn a_batch_has_one_result_for_each_entry() {
    let mut host = attached_host();
    let answers = host.apply(Instant::now(), &batch(1, &["a", "-", "", "b"]), "t").unwrap();
    let refused = CommandResult::Refused("an empty command has no value to write".into());
    let results = [done(""), CommandResult::Skipped, refused, done("a")];
    assert_eq!(answers, [applied("t", 1, &results)]);
    assert_eq!(host.machine().applied(), LogId { term: 3, index: 4 });
}

#[test]
fn entries_that_are_applied_are_skipped() {
    let mut host = attached_host();
    let now = Instant::now();
    host.apply(now, &batch(1, &["a", "b"]), "").unwrap();
    let skipped = CommandResult::Skipped;
    let cases = [
        (batch(1, &["x", "x"]), applied("t", 1, &[skipped.clone(), skipped.clone()])),
        (batch(2, &["x", "c"]), applied("t", 2, &[skipped.clone(), done("b")])),
        (
            batch(1, &["x", "x", "x", "d"]),
            applied("t", 1, &[skipped.clone(), skipped.clone(), skipped, done("c")]),
        ),
        (batch(5, &[]), applied("t", 5, &[])),
        (batch(1, &[]), applied("t", 1, &[])),
    ];
    for (request, answer) in cases {
        assert_eq!(host.apply(now, &request, "t").unwrap(), [answer]);
    }
    assert_eq!(ask(&host, 4), Ok(done("d")));
}

#[test]
fn a_batch_waits_for_its_predecessor() {
    let mut host = attached_host();
    let now = Instant::now();
    assert_eq!(host.apply(now, &batch(4, &["d"]), "third").unwrap(), []);
    assert_eq!(host.apply(now, &batch(2, &["b", "c"]), "second").unwrap(), []);
    let answers = host.apply(now, &batch(1, &["a"]), "first").unwrap();
    let expected = [
        applied("first", 1, &[done("")]),
        applied("second", 2, &[done("a"), done("b")]),
        applied("third", 4, &[done("c")]),
    ];
    assert_eq!(answers, expected);
    assert_eq!(host.next_expiry(), None);
}

#[test]
fn a_gap_that_stays_is_refused() {
    let mut host = attached_host();
    let start = Instant::now();
    host.apply(start, &batch(3, &["c"]), "early").unwrap();
    let later = start + Duration::from_millis(300);
    host.apply(later, &batch(4, &["d"]), "late").unwrap();
    assert_eq!(host.next_expiry(), Some(start + PREDECESSOR_WAIT));
    assert_eq!(host.expire(later), []);
    assert_eq!(host.expire(start + PREDECESSOR_WAIT), [gap("early", 1, 3)]);
    assert_eq!(host.expire(later + PREDECESSOR_WAIT), [gap("late", 1, 4)]);
    assert_eq!(host.machine().applied().index, 0);
}

#[test]
fn only_so_many_batches_wait() {
    let mut host = attached_host();
    let now = Instant::now();
    for n in 0..MAX_WAITING_BATCHES as u64 {
        assert_eq!(host.apply(now, &batch(10 + n, &["x"]), "waits").unwrap(), []);
    }
    assert_eq!(host.apply(now, &batch(9, &["x"]), "t").unwrap(), [gap("t", 1, 9)]);
}

#[test]
fn a_batch_that_came_twice_is_answered_twice_and_applied_once() {
    let mut host = attached_host();
    let now = Instant::now();
    host.apply(now, &batch(2, &["b"]), "once").unwrap();
    host.apply(now, &batch(2, &["b"]), "again").unwrap();
    let answers = host.apply(now, &batch(1, &["a"]), "first").unwrap();
    let skipped = applied("again", 2, &[CommandResult::Skipped]);
    assert_eq!(answers[1..], [applied("once", 2, &[done("a")]), skipped]);
}

/// The commands are numbers of their entries, so that what the machine answers says what it was given before.
#[test]
fn a_machine_gets_every_index_once_and_in_order_whatever_comes_again_or_early() {
    proptest!(|(batches in prop::collection::vec((1..12_u64, 0..5_u64), 1..40))| {
        let mut host = attached_host();
        let now = Instant::now();
        let mut answered = 0;
        for (first, length) in batches {
            let commands: Vec<String> = (first..first + length).map(|index| index.to_string()).collect();
            let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
            for (_, answer) in host.apply(now, &batch(first, &commands), "t").unwrap() {
                let Ok(answer) = answer else { continue };
                for (index, result) in (answer.first_index..).zip(answer.results) {
                    if index <= answered {
                        prop_assert_eq!(result, CommandResult::Skipped, "{} came again", index);
                        continue;
                    }
                    prop_assert_eq!(index, answered + 1, "none is left out");
                    let before = if answered == 0 { String::new() } else { answered.to_string() };
                    prop_assert_eq!(result, CommandResult::Done(before.into()));
                    answered = index;
                }
            }
            prop_assert_eq!(host.machine().applied().index, answered);
        }
    });
}

#[test]
fn bad_batches_change_nothing() {
    let mut host = attached_host();
    let cut = |mut request: Apply| {
        let bytes = request.entries.as_bytes();
        request.entries = EntryBlob::from_bytes(bytes.slice(..bytes.len() - 1));
        request
    };
    let cut_short = BlobError::CutShort { offset: 38, needed: 38, left: 37 };
    let bad_index = |first_index, entries| ApplyError::BadIndex { first_index, entries };
    let cases = [
        (cut(batch(1, &["a", "b"])), ApplyError::Malformed(cut_short)),
        (batch(0, &["a"]), bad_index(0, 1)),
        (batch(u64::MAX, &["a"]), bad_index(u64::MAX, 1)),
        (batch(u64::MAX - 1, &["a"]), bad_index(u64::MAX - 1, 1)),
    ];
    for (request, error) in cases {
        assert_eq!(host.apply(Instant::now(), &request, "t").unwrap(), [("t", Err(error))]);
    }
    assert_eq!(host.machine().applied(), LogId::default());
}

#[test]
fn only_the_right_raft_may_attach() {
    let mut host = attached_host();
    host.attach(&attach(4)).unwrap().0.unwrap();
    let cases = [
        (Attach { contract: 9, ..attach(5) }, AttachError::Contract { ours: 1, theirs: 9 }),
        (Attach { node: 0, ..attach(5) }, AttachError::NoNode),
        (
            Attach { cluster: 1, ..attach(5) },
            AttachError::ForeignCluster { ours: CLUSTER, theirs: 1 },
        ),
        (Attach { node: 1, ..attach(5) }, AttachError::ForeignNode { ours: NODE, theirs: 1 }),
        (attach(3), AttachError::Fenced { newest: 4, theirs: 3 }),
    ];
    for (request, error) in cases {
        assert_eq!(host.attach(&request).unwrap(), (Err(error), vec![]));
    }
    assert!(host.attach(&attach(4)).unwrap().0.is_ok(), "the same boot may come again");
}

#[test]
fn attach_tells_where_the_machine_stands() {
    let mut host = attached_host();
    host.apply(Instant::now(), &batch(1, &["a", "b"]), "").unwrap();
    let info = host.attach(&attach(2)).unwrap().0.unwrap();
    assert_eq!((info.name.as_str(), info.contract), ("register", CONTRACT_VERSION));
    assert_eq!((info.applied_term, info.applied_index, info.durable_index), (3, 2, 0));
}

#[test]
fn what_is_stored_about_the_raft_outlives_the_process() {
    let stored = Attachment { cluster: CLUSTER, node: NODE, boot: 9 };
    let mut store = MemoryAttachment::default();
    store.store(&stored).unwrap();
    let mut host: TestHost = Host::new(Register::new(), Box::new(store)).unwrap();
    let fenced = AttachError::Fenced { newest: 9, theirs: 8 };
    assert_eq!(host.attach(&attach(8)).unwrap().0, Err(fenced));
}

#[test]
fn data_of_unknown_origin_are_not_continued() {
    let mut machine = Register::new();
    machine.apply(&batch(1, &["a"]).entries.decode().unwrap()).unwrap();
    let mut host: TestHost = Host::new(machine, Box::new(MemoryAttachment::default())).unwrap();
    let error = AttachError::NoRecord { applied_index: 1 };
    assert_eq!(host.attach(&attach(1)).unwrap().0, Err(error));
}

#[test]
fn every_call_of_an_older_boot_is_fenced_and_of_an_unknown_one_refused() {
    let mut host = attached_host();
    host.attach(&attach(3)).unwrap().0.unwrap();
    assert_every_call_gets(&mut host, 2, AccessError::Fenced { newest: 3 });
    assert_every_call_gets(&mut host, 4, AccessError::NotAttached);
    assert_every_call_gets(&mut new_host(), 1, AccessError::NotAttached);
    assert_eq!(host.machine().applied(), LogId::default());
}

/// Makes each call but `attach` as a boot that may not make it.
fn assert_every_call_gets(host: &mut TestHost, boot: u64, error: AccessError) {
    let apply = Apply { boot, ..batch(1, &["x"]) };
    let answer = host.apply(Instant::now(), &apply, "t").unwrap();
    assert_eq!(answer, [("t", Err(ApplyError::Access(error)))]);
    let query = Query { boot, min_applied_index: 0, query: Bytes::new() };
    assert_eq!(host.query(&query).unwrap(), Err(QueryError::Access(error)));
    let notice = Notice::Leader { term: 1, leader: None, here: false };
    assert_eq!(host.notify(&Notify { boot, notice }), Err(error));
    let validate = Validate { boot, command: Bytes::new() };
    assert_eq!(host.validate(&validate), Err(error));

    let access = SnapshotError::Access(error);
    let now = Instant::now();
    let begun = host.begin_snapshot(now, &BeginSnapshot { boot }).unwrap();
    assert_eq!(begun.unwrap_err(), access);
    let read = ReadSnapshot { boot, snapshot: 1, offset: 0 };
    assert_eq!(host.pinned_snapshot(now, &read).unwrap_err(), access);

    let access = RestoreError::Access(error);
    let begin = BeginRestore { boot, applied_term: 1, applied_index: 1 };
    assert_eq!(host.begin_restore(&begin).unwrap(), Err(access.clone()));
    let write = WriteRestore { boot, restore: 1, offset: 0, bytes: Bytes::new(), checksum: 0 };
    assert_eq!(host.write_restore(&write).unwrap(), Err(access.clone()));
    let finish = FinishRestore { boot, restore: 1, snapshot_bytes: 0 };
    assert_eq!(host.finish_restore(&finish).unwrap(), Err(access));
}

#[test]
fn a_newer_boot_drops_what_the_older_one_left_waiting() {
    let mut host = attached_host();
    host.apply(Instant::now(), &batch(2, &["b"]), "waits").unwrap();
    let again = host.attach(&attach(1)).unwrap();
    assert_eq!(again.1, [], "a second connection of the same boot disturbs nothing");
    let (_, fenced) = host.attach(&attach(2)).unwrap();
    let error = ApplyError::Access(AccessError::Fenced { newest: 2 });
    assert_eq!(fenced, [("waits", Err(error))]);
    let first = Apply { boot: 2, ..batch(1, &["a"]) };
    assert_eq!(host.apply(Instant::now(), &first, "t").unwrap().len(), 1);
}

#[test]
fn a_query_of_the_future_is_refused() {
    let mut host = attached_host();
    host.apply(Instant::now(), &batch(1, &["a"]), "").unwrap();
    assert_eq!(ask(&host, 1), Ok(done("a")));
    let behind = QueryError::Behind { applied_index: 1, min_applied_index: 2 };
    assert_eq!(ask(&host, 2), Err(behind));
}

#[test]
fn giant_queries_and_answers_are_refused() {
    let mut host = attached_host();
    let giant = Bytes::from(vec![0; MAX_RESULT_BYTES + 1]);
    let bytes = giant.len() as u64;
    let query = Query { boot: 1, min_applied_index: 0, query: giant.clone() };
    assert_eq!(host.query(&query).unwrap(), Err(QueryError::TooLarge { bytes }));
    restore(&mut host, &giant).unwrap();
    assert_eq!(ask(&host, 0), Err(QueryError::TooLarge { bytes }));
}

#[test]
fn results_beyond_a_frame_are_left_out() {
    let result = |bytes: usize| CommandResult::Done(vec![0; bytes].into());
    let mut results = vec![result(MAX_RESULT_BYTES + 1)];
    results.extend((0..4).map(|_| result(MAX_RESULT_BYTES)));
    results.push(CommandResult::Done(Bytes::new()));
    bound_results(&mut results);
    let skipped: Vec<bool> =
        results.iter().map(|result| *result == CommandResult::Skipped).collect();
    assert_eq!(skipped, [true, false, false, false, true, false]);
}

/// Pins the state of a host that boot 1 attached to.
fn begin_snapshot(host: &mut TestHost) -> (SnapshotInfo, Arc<PinnedSnapshot>) {
    host.begin_snapshot(Instant::now(), &BeginSnapshot { boot: 1 }).unwrap().unwrap()
}

fn read(host: &mut TestHost, snapshot: u64, offset: u64) -> Result<SnapshotChunk, SnapshotError> {
    let request = ReadSnapshot { boot: 1, snapshot, offset };
    host.pinned_snapshot(Instant::now(), &request)?.read(offset).unwrap()
}

/// All pieces of a snapshot of a host that boot 1 attached to.
fn read_all(host: &mut TestHost) -> (SnapshotInfo, Vec<SnapshotChunk>) {
    let (info, _held) = begin_snapshot(host);
    let mut pieces: Vec<SnapshotChunk> = Vec::new();
    while !pieces.last().is_some_and(|piece| piece.last) {
        let offset = pieces.iter().map(|piece| piece.bytes.len() as u64).sum();
        pieces.push(read(host, info.snapshot, offset).unwrap());
    }
    (info, pieces)
}

/// Loads pieces into a host that boot 1 attached to.
fn load(
    host: &mut TestHost,
    info: &SnapshotInfo,
    pieces: &[SnapshotChunk],
) -> Result<Info, RestoreError> {
    let SnapshotInfo { applied_term, applied_index, .. } = *info;
    let begin = BeginRestore { boot: 1, applied_term, applied_index };
    let restore = host.begin_restore(&begin).unwrap()?.restore;
    for SnapshotChunk { offset, bytes, checksum, .. } in pieces.iter().cloned() {
        let write = WriteRestore { boot: 1, restore, offset, bytes, checksum };
        host.write_restore(&write).unwrap()?;
    }
    let snapshot_bytes = pieces.iter().map(|piece| piece.bytes.len() as u64).sum();
    host.finish_restore(&FinishRestore { boot: 1, restore, snapshot_bytes }).unwrap()
}

/// Gives a host the state of another one that holds `value` at entry 1.
fn restore(host: &mut TestHost, value: &Bytes) -> Result<Info, RestoreError> {
    let mut source = attached_host();
    source.machine.begin_restore().unwrap();
    source.machine.write_restore(value).unwrap();
    source.machine.finish_restore(LogId { term: 3, index: 1 }).unwrap();
    let (info, pieces) = read_all(&mut source);
    load(host, &info, &pieces)
}

#[test]
fn a_snapshot_moves_the_state_and_its_place() {
    let value = Bytes::from(vec![7; MAX_CHUNK_BYTES + 1]);
    let mut host = attached_host();
    let info = restore(&mut host, &value).unwrap();
    assert_eq!((info.applied_term, info.applied_index), (3, 1));
    assert_eq!(ask(&host, 1), Ok(CommandResult::Done(value)));
    let answers = host.apply(Instant::now(), &batch(2, &["next"]), "t").unwrap();
    assert!(answers[0].1.is_ok());
}

#[test]
fn a_snapshot_stays_while_entries_are_applied() {
    let mut host = attached_host();
    host.apply(Instant::now(), &batch(1, &["old"]), "").unwrap();
    let (info, _held) = begin_snapshot(&mut host);
    host.apply(Instant::now(), &batch(2, &["new"]), "").unwrap();
    let piece = read(&mut host, info.snapshot, 0).unwrap();
    let mut copy = attached_host();
    assert_eq!(load(&mut copy, &info, &[piece]).unwrap().applied_index, 1);
    assert_eq!(ask(&copy, 1), Ok(done("old")));
}

#[test]
fn pieces_are_read_in_order_and_the_last_one_again() {
    let mut host = attached_host();
    restore(&mut host, &Bytes::from(vec![7; 2 * MAX_CHUNK_BYTES])).unwrap();
    let (SnapshotInfo { snapshot, .. }, _held) = begin_snapshot(&mut host);
    let chunk_bytes = MAX_CHUNK_BYTES as u64;
    let mut read = |snapshot, offset| read(&mut host, snapshot, offset);
    let early = SnapshotError::BadOffset { expected: 0, got: chunk_bytes };
    assert_eq!(read(snapshot, chunk_bytes), Err(early));
    let mut last = None;
    for n in 0..3 {
        let piece = read(snapshot, n * chunk_bytes).unwrap();
        assert_eq!((piece.offset, piece.last), (n * chunk_bytes, n == 2));
        assert_eq!(read(snapshot, n * chunk_bytes), Ok(piece.clone()), "again");
        last = Some(piece);
    }
    let end = 2 * chunk_bytes + last.unwrap().bytes.len() as u64;
    assert_eq!(read(snapshot, 0), Err(SnapshotError::BadOffset { expected: end, got: 0 }));
    assert_eq!(read(99, 0), Err(SnapshotError::Unknown { snapshot: 99 }));
}

#[test]
fn a_repeated_piece_does_no_harm_and_a_bad_one_is_refused() {
    let mut source = attached_host();
    restore(&mut source, &Bytes::from(vec![7; MAX_CHUNK_BYTES])).unwrap();
    let (info, pieces) = read_all(&mut source);
    let mut host = attached_host();
    let begin = BeginRestore { boot: 1, applied_term: 3, applied_index: info.applied_index };
    let restore = host.begin_restore(&begin).unwrap().unwrap().restore;
    let SnapshotChunk { bytes, checksum, .. } = pieces[0].clone();
    let first = WriteRestore { boot: 1, restore, offset: 0, bytes, checksum };
    let damaged = WriteRestore { checksum: !first.checksum, ..first.clone() };
    let early = WriteRestore { offset: 9, ..first.clone() };
    let mut write = |request: &WriteRestore| {
        host.write_restore(request).unwrap().map(|restoring| restoring.offset)
    };
    let taken = first.bytes.len() as u64;
    assert_eq!(write(&damaged), Err(RestoreError::BadChunk { offset: 0 }));
    assert_eq!(write(&early), Err(RestoreError::BadOffset { expected: 0, got: 9 }));
    assert_eq!(write(&first), Ok(taken));
    assert_eq!(write(&first), Ok(taken), "again");
    assert_eq!(
        write(&WriteRestore { restore: 99, ..first }),
        Err(RestoreError::Unknown { restore: 99 })
    );
}

#[test]
fn a_bad_snapshot_leaves_the_old_state() {
    let mut source = attached_host();
    source.apply(Instant::now(), &batch(1, &["a", "b", "new"]), "").unwrap();
    let (info, pieces) = read_all(&mut source);
    let mut host = attached_host();
    host.apply(Instant::now(), &batch(1, &["old"]), "").unwrap();

    let mut flipped = pieces[0].clone();
    let mut bytes = flipped.bytes.to_vec();
    bytes[40] ^= 1;
    flipped.checksum = crc32c::crc32c(&bytes);
    flipped.bytes = bytes.into();
    let mut half = pieces[0].clone();
    half.bytes.truncate(40);
    half.checksum = crc32c::crc32c(&half.bytes);
    let elsewhere = SnapshotInfo { applied_index: 7, ..info.clone() };

    for (info, piece) in [(&info, flipped), (&info, half), (&elsewhere, pieces[0].clone())] {
        let error = load(&mut host, info, &[piece]).unwrap_err();
        assert!(matches!(error, RestoreError::BadSnapshot { .. }), "{error}");
        assert_eq!(ask(&host, 1), Ok(done("old")));
        assert_eq!(host.machine().applied().index, 1);
    }
    assert_eq!(load(&mut host, &info, &pieces).unwrap().applied_index, 3);
    assert_eq!(ask(&host, 3), Ok(done("new")));
}

#[test]
fn a_snapshot_older_than_the_state_is_refused() {
    let mut source = attached_host();
    source.apply(Instant::now(), &batch(1, &["a"]), "").unwrap();
    let (info, pieces) = read_all(&mut source);
    let mut host = attached_host();
    host.apply(Instant::now(), &batch(1, &["a", "b"]), "").unwrap();
    let behind = RestoreError::Behind { snapshot_index: 1, applied_index: 2 };
    assert_eq!(load(&mut host, &info, &pieces), Err(behind));
}

#[test]
fn entries_applied_during_a_restore_are_not_taken_back() {
    let mut source = attached_host();
    source.apply(Instant::now(), &batch(1, &["a"]), "").unwrap();
    let (_, pieces) = read_all(&mut source);
    let mut host = attached_host();
    let begin = BeginRestore { boot: 1, applied_term: 3, applied_index: 1 };
    let restore = host.begin_restore(&begin).unwrap().unwrap().restore;
    let SnapshotChunk { offset, bytes, checksum, .. } = pieces[0].clone();
    let snapshot_bytes = bytes.len() as u64;
    let write = WriteRestore { boot: 1, restore, offset, bytes, checksum };
    host.write_restore(&write).unwrap().unwrap();
    host.apply(Instant::now(), &batch(1, &["a", "b"]), "").unwrap();
    let finish = FinishRestore { boot: 1, restore, snapshot_bytes };
    let error = host.finish_restore(&finish).unwrap().unwrap_err();
    assert!(matches!(error, RestoreError::BadSnapshot { .. }), "{error}");
    assert_eq!(ask(&host, 2), Ok(done("b")));
}
