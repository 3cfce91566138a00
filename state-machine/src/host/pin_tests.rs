//! Who holds a pinned state, for how long, and who does not have to wait for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use super::*;
use crate::attachment::MemoryAttachment;
use crate::entries::{EntryBlobBuilder, EntryHeader, EntryKind};
use crate::probe::{BODY_BYTES, Control, Probe};
use crate::rpc::{
    BeginRestore, BeginSnapshot, FinishRestore, MAX_CHUNK_BYTES, ReadSnapshot, RestoreError,
    SnapshotChunk, SnapshotError, WriteRestore,
};

type TestHost = Host<Probe, ()>;

fn attach(host: &mut TestHost, boot: u64) -> Info {
    let request = Attach { contract: CONTRACT_VERSION, cluster: 1, node: 1, boot };
    host.attach(&request).unwrap().0.unwrap()
}

/// A host that boot 1 attached to.
fn start() -> (TestHost, Control) {
    let control = Control::default();
    let mut host =
        Host::new(Probe::new(control.clone()), Box::new(MemoryAttachment::default())).unwrap();
    attach(&mut host, 1);
    (host, control)
}

fn apply(host: &mut TestHost) -> Applied {
    let kind = EntryKind::Command;
    let mut builder = EntryBlobBuilder::new();
    let header = EntryHeader { kind, term: 1, time_ms: 0, session: 0, sequence: 0 };
    builder.push(&header, b"x");
    let first_index = host.machine().applied().index + 1;
    let request = Apply { boot: 1, first_index, entries: builder.finish() };
    let mut answers = host.apply(Instant::now(), &request, ()).unwrap();
    answers.pop().unwrap().1.unwrap()
}

fn pin(host: &mut TestHost, now: Instant) -> Arc<PinnedSnapshot> {
    host.begin_snapshot(now, &BeginSnapshot { boot: 1 }).unwrap().unwrap().1
}

fn read(host: &mut TestHost, snapshot: u64, offset: u64) -> Result<SnapshotChunk, SnapshotError> {
    let request = ReadSnapshot { boot: 1, snapshot, offset };
    host.pinned_snapshot(Instant::now(), &request)?.read(offset).unwrap()
}

/// All pieces, in order.
fn read_all(snapshot: &PinnedSnapshot) -> Vec<SnapshotChunk> {
    let mut pieces: Vec<SnapshotChunk> = Vec::new();
    while !pieces.last().is_some_and(|piece| piece.last) {
        let offset = pieces.iter().map(|piece| piece.bytes.len() as u64).sum();
        pieces.push(snapshot.read(offset).unwrap().unwrap());
    }
    pieces
}

fn begin_restore(host: &mut TestHost, applied_index: u64) -> u64 {
    let applied_term = applied_index.min(1);
    let request = BeginRestore { boot: 1, applied_term, applied_index };
    host.begin_restore(&request).unwrap().unwrap().restore
}

fn write(host: &mut TestHost, restore: u64, piece: &SnapshotChunk) -> u64 {
    let SnapshotChunk { offset, bytes, checksum, .. } = piece.clone();
    let request = WriteRestore { boot: 1, restore, offset, bytes, checksum };
    host.write_restore(&request).unwrap().unwrap().offset
}

fn finish(host: &mut TestHost, restore: u64, snapshot_bytes: u64) -> Result<Info, RestoreError> {
    host.finish_restore(&FinishRestore { boot: 1, restore, snapshot_bytes }).unwrap()
}

#[test]
fn a_state_is_kept_for_no_longer_than_somebody_may_read_it() {
    type Event = fn(&mut TestHost, Arc<PinnedSnapshot>, Instant) -> Option<Arc<PinnedSnapshot>>;
    let cases: [(&str, Event); 6] = [
        ("nobody holds it", |_, _, _| None),
        ("it was read to its end", |_, held, _| {
            read_all(&held);
            Some(held)
        }),
        ("a newer boot attached", |host, held, _| {
            attach(host, 2);
            Some(held)
        }),
        ("its store was replaced", |host, held, _| {
            let pieces = {
                let (mut source, _) = start();
                apply(&mut source);
                apply(&mut source);
                read_all(&pin(&mut source, Instant::now()))
            };
            let restore = begin_restore(host, 2);
            let end = pieces.iter().map(|piece| write(host, restore, piece)).max();
            finish(host, restore, end.unwrap()).unwrap();
            Some(held)
        }),
        ("nobody read it for long", |host, held, now| {
            host.expire(now + SNAPSHOT_IDLE);
            Some(held)
        }),
        ("another one was begun, and dropped", |host, held, now| {
            drop(pin(host, now));
            Some(held)
        }),
    ];
    for (name, event) in cases {
        let (mut host, control) = start();
        apply(&mut host);
        let now = Instant::now();
        let held = pin(&mut host, now);
        assert_eq!(control.pins(), 1);
        let held = event(&mut host, held, now);
        assert_eq!(control.pins(), 0, "{name}");
        drop(held);
    }
}

#[test]
fn a_snapshot_that_is_read_is_not_abandoned() {
    let (mut host, control) = start();
    let now = Instant::now();
    let held = pin(&mut host, now);
    let request = ReadSnapshot { boot: 1, snapshot: held.name(), offset: 0 };
    let half = now + SNAPSHOT_IDLE / 2;
    host.pinned_snapshot(half, &request).unwrap();
    host.expire(now + SNAPSHOT_IDLE);
    assert_eq!((control.pins(), host.next_expiry()), (1, Some(half + SNAPSHOT_IDLE)));
    host.expire(half + SNAPSHOT_IDLE);
    assert_eq!((control.pins(), host.next_expiry()), (0, None));
    let unknown = SnapshotError::Unknown { snapshot: held.name() };
    assert_eq!(read(&mut host, held.name(), 0), Err(unknown));
}

#[test]
fn neither_applying_nor_letting_go_waits_for_a_read() {
    let (mut host, control) = start();
    apply(&mut host);
    let held = pin(&mut host, Instant::now());
    control.gate.close();
    let (reading, name) = (Arc::clone(&held), held.name());
    let reader = thread::spawn(move || reading.read(0).unwrap());
    assert_eq!(apply(&mut host).first_index, 2);
    let newer = pin(&mut host, Instant::now());
    attach(&mut host, 2);
    // The store may be gone by now, so it fails, and that is nobody's concern any more.
    control.fails.store(true, Ordering::SeqCst);
    control.gate.open();
    assert_eq!(reader.join().unwrap(), Err(SnapshotError::Unknown { snapshot: name }));
    assert_eq!(control.pins(), 0);
    drop((held, newer));
}

#[test]
fn a_failed_read_is_a_broken_machine() {
    let (mut host, control) = start();
    let held = pin(&mut host, Instant::now());
    control.fails.store(true, Ordering::SeqCst);
    let error = held.read(0).unwrap_err().to_string();
    assert_eq!(error, "storage failed while reading a snapshot: as the test asks for");
}

#[test]
fn a_second_connection_of_the_same_boot_disturbs_no_transfer() {
    let (mut source, _) = start();
    apply(&mut source);
    let held = pin(&mut source, Instant::now());
    let (mut host, _) = start();
    let restore = begin_restore(&mut host, 1);
    let mut offset = 0;
    for piece in 0.. {
        attach(&mut source, 1);
        attach(&mut host, 1);
        apply(&mut source);
        let piece = read(&mut source, held.name(), offset)
            .unwrap_or_else(|error| panic!("{piece}: {error}"));
        offset = write(&mut host, restore, &piece);
        if piece.last {
            break;
        }
        assert_eq!(piece.bytes.len(), MAX_CHUNK_BYTES);
    }
    assert!(offset > BODY_BYTES as u64);
    assert_eq!(finish(&mut host, restore, offset).unwrap().applied_index, 1);
}

#[test]
fn a_wish_for_a_snapshot_goes_out_with_every_answer() {
    let (mut host, _) = start();
    for wish in [false, true, false] {
        host.machine.wants_snapshot = wish;
        assert_eq!(apply(&mut host).wants_snapshot, wish);
        assert_eq!(attach(&mut host, 1).wants_snapshot, wish);
    }
}

#[test]
fn what_a_snapshot_holds_is_durable() {
    let (mut host, _) = start();
    assert_eq!(apply(&mut host).durable_index, 0);
    drop(pin(&mut host, Instant::now()));
    assert_eq!(apply(&mut host).durable_index, 1);
}

#[test]
fn a_restore_that_finds_no_room_is_refused_and_may_be_tried_again() {
    let (mut host, _) = start();
    let begin = BeginRestore { boot: 1, applied_term: 1, applied_index: 1 };
    host.machine.has_no_place = true;
    let reason = "storage failed while restoring: no storage space".to_owned();
    let refused = host.begin_restore(&begin).unwrap();
    assert_eq!((refused, host.machine.abandoned), (Err(RestoreError::NoPlace { reason }), 1));
    host.machine.has_no_place = false;
    assert!(host.begin_restore(&begin).unwrap().is_ok());
}

#[test]
fn what_may_be_the_state_of_the_next_start_is_not_thrown_away() {
    let (mut source, _) = start();
    let pieces = read_all(&pin(&mut source, Instant::now()));
    let (mut host, _) = start();
    let restore = begin_restore(&mut host, 0);
    let snapshot_bytes = pieces.iter().map(|piece| write(&mut host, restore, piece)).max().unwrap();
    host.machine.finish_breaks = true;
    let finish = FinishRestore { boot: 1, restore, snapshot_bytes };
    assert!(host.finish_restore(&finish).is_err());
    assert_eq!(host.machine.abandoned, 0);
}
