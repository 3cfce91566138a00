use std::io::Cursor;
use std::sync::Mutex;

use bytes::Bytes;
use state_machine::attachment::MemoryAttachment;
use state_machine::entries::{EntryBlob, EntryBlobBuilder, EntryHeader, EntryKind};
use state_machine::host::Host;
use state_machine::machine;
use state_machine::register::Register;
use state_machine::server;
use state_machine::snapshot::SnapshotReader;
use state_machine::worker::{self, SyncPolicy};
use tokio::task::JoinHandle;

use super::*;
use crate::consensus::{Membership, SnapshotMeta};
use crate::rpc::wire::Listener;

/// Far above what anything takes.
const PATIENCE: Duration = Duration::from_mins(1);
/// So small that a snapshot has several.
const PIECE_BYTES: usize = 16;
const VALUE: &[u8] = b"a value that does not fit into one piece of a snapshot";

/// What becomes of each piece of a snapshot.
#[derive(Clone, Debug)]
enum Disk {
    /// It can be read.
    Whole,
    /// The last one is not what was written.
    DamagedAtItsEnd,
    /// The file is not there.
    Gone,
    /// The second one is waited for until the sender is dropped.
    Slow(Arc<Mutex<std::sync::mpsc::Receiver<()>>>),
}

/// Snapshots of a register in memory, all of one value and up to `applied`.
#[derive(Debug)]
struct Memory {
    applied: LogId,
    disk: Disk,
    opened: mpsc::Sender<LogId>,
}

struct Pieces {
    rest: Vec<Bytes>,
    read: usize,
    disk: Disk,
}

impl SnapshotSource for Memory {
    fn open(&self, meta: &SnapshotMeta) -> Result<Box<dyn SnapshotPieces>, SourceError> {
        self.opened.try_send(meta.last).unwrap();
        if matches!(self.disk, Disk::Gone) {
            return Err(SourceError::Unavailable("no such file".to_owned()));
        }
        let applied = machine::LogId { term: self.applied.term.0, index: self.applied.index.0 };
        let mut reader = SnapshotReader::new("register", applied, Box::new(Cursor::new(VALUE)));
        let mut rest = Vec::new();
        while !reader.is_at_end() {
            rest.push(reader.next_piece(PIECE_BYTES).unwrap().into());
        }
        rest.reverse();
        Ok(Box::new(Pieces { rest, read: 0, disk: self.disk.clone() }))
    }
}

impl SnapshotPieces for Pieces {
    fn next_piece(&mut self) -> Result<Option<Bytes>, SourceError> {
        self.read += 1;
        match &self.disk {
            Disk::Slow(sender) if self.read == 2 => drop(sender.lock().unwrap().recv()),
            Disk::DamagedAtItsEnd if self.rest.is_empty() => {
                return Err(SourceError::Damaged("7.snapshot, byte 9: checksum".to_owned()));
            }
            Disk::Whole | Disk::DamagedAtItsEnd | Disk::Gone | Disk::Slow(_) => {}
        }
        Ok(self.rest.pop())
    }
}

/// A link to a machine that starts empty each time.
struct World {
    listener: Listener,
    told: mpsc::Receiver<CommitsEvent>,
    calls: mpsc::Sender<MachineCall>,
    opened: mpsc::Receiver<LogId>,
    _dir: tempfile::TempDir,
}

impl World {
    /// The snapshots are of `applied`.
    async fn new(applied: LogId, disk: Disk) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("machine.sock");
        let listener = Listener::unix(&socket).await.unwrap();
        let (events, told) = mpsc::channel(8);
        let (calls, queue) = mpsc::channel(8);
        let (opening, opened) = mpsc::channel(8);
        let feeder = Feeder { cluster: 1, node: NodeId(2), boot: 3 };
        let source = Arc::new(Memory { applied, disk, opened: opening });
        tokio::spawn(run(
            Endpoint::Unix(socket),
            feeder,
            source,
            watch::Sender::default(),
            events,
            queue,
        ));
        Self { listener, told, calls, opened, _dir: dir }
    }

    /// Serves one connection to an empty machine, and waits until it is attached.
    async fn serve_once(&mut self, expected: u64) -> JoinHandle<()> {
        let host = Host::new(Register::new(), Box::new(MemoryAttachment::default())).unwrap();
        let policy = SyncPolicy { interval: Duration::from_secs(1), entries: 1 };
        let (machine, _ended) = worker::spawn(host, policy).unwrap();
        let io = tokio::time::timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        let service = server::Connection::new(machine);
        let serving = tokio::spawn(async move { drop(contract::serve(io, true, service).await) });
        let attached = self.next().await;
        assert!(
            matches!(attached, MachineEvent::Attached { attachment, .. } if attachment == expected),
            "{attached:?}"
        );
        serving
    }

    async fn next(&mut self) -> MachineEvent {
        let event = tokio::time::timeout(PATIENCE, self.told.recv()).await;
        match event.expect("in time").expect("the link lives") {
            CommitsEvent::Machine(event) => event,
            other @ (CommitsEvent::FromEntries(_) | CommitsEvent::Capture(_)) => {
                panic!("not from the link: {other:?}")
            }
        }
    }

    async fn call(&self, attachment: u64, task: MachineTask) {
        self.calls.send(MachineCall { attachment, task }).await.unwrap();
    }

    async fn restore(&self, attachment: u64) {
        let (membership, membership_index) = (Membership::default(), Index(1));
        let meta = SnapshotMeta { last: LAST, membership, membership_index };
        self.call(attachment, MachineTask::Restore(meta)).await;
    }

    async fn value(&mut self) -> Bytes {
        let task = MachineTask::Query { query: 5, read_index: Index(0), bytes: Bytes::new() };
        self.call(1, task).await;
        let answered = self.next().await;
        let MachineEvent::Answered { query: 5, result: CommandResult::Done(value) } = answered
        else {
            panic!("{answered:?}")
        };
        value
    }

    async fn detached(&mut self) -> String {
        let event = self.next().await;
        let MachineEvent::Detached { reason } = event else { panic!("{event:?}") };
        reason
    }
}

/// Last entry of the snapshot that is asked for.
const LAST: LogId = LogId { term: Term(4), index: Index(7) };

fn batch(command: &[u8]) -> EntryBlob {
    let mut blob = EntryBlobBuilder::default();
    let (kind, term) = (EntryKind::Command, LAST.term.0);
    blob.push(&EntryHeader { kind, term, time_ms: 0, session: 0, sequence: 0 }, command);
    blob.finish()
}

#[tokio::test]
async fn a_machine_that_dies_while_nothing_is_asked_of_it_is_noticed_and_attached_again() {
    let mut world = World::new(LAST, Disk::Gone).await;
    for attachment in 1..3 {
        let machine = world.serve_once(attachment).await;
        machine.abort();
        world.detached().await;
    }
}

#[tokio::test]
async fn a_machine_is_restored_from_the_snapshot_and_takes_what_follows_it() {
    let mut world = World::new(LAST, Disk::Whole).await;
    let _machine = world.serve_once(1).await;
    world.restore(1).await;
    let restored = world.next().await;
    assert!(matches!(restored, MachineEvent::Restored { applied: LAST }), "{restored:?}");
    assert_eq!(world.opened.recv().await, Some(LAST));
    assert_eq!(world.value().await, VALUE);
    let next = MachineTask::Apply { first: Index(8), entries: batch(b"next") };
    world.call(1, next).await;
    let applied = world.next().await;
    let MachineEvent::Applied { results } = applied else { panic!("{applied:?}") };
    assert_eq!(results, [CommandResult::Done(Bytes::from_static(VALUE))]);
}

#[tokio::test]
async fn reads_are_answered_while_the_machine_is_restored_and_its_death_ends_it() {
    let (_held, slow) = std::sync::mpsc::channel();
    let mut world = World::new(LAST, Disk::Slow(Arc::new(Mutex::new(slow)))).await;
    let machine = world.serve_once(1).await;
    world.restore(1).await;
    assert_eq!(world.opened.recv().await, Some(LAST));
    assert_eq!(world.value().await, "", "the old state stays until the end");
    machine.abort();
    world.detached().await;
    let _machine = world.serve_once(2).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_snapshot_is_named_and_nothing_of_it_is_used() {
    let other = LogId { index: Index(6), ..LAST };
    for (applied, disk, word) in [
        (LAST, Disk::DamagedAtItsEnd, "is damaged: 7.snapshot, byte 9"),
        (LAST, Disk::Gone, "no such file"),
        (other, Disk::Whole, "does not take the snapshot"),
    ] {
        let mut world = World::new(applied, disk).await;
        let _machine = world.serve_once(1).await;
        world.restore(1).await;
        let reason = world.detached().await;
        assert!(reason.contains(word), "{word:?} in {reason:?}");
    }
}

#[tokio::test]
async fn a_restore_that_was_meant_for_another_machine_is_not_begun() {
    let mut world = World::new(LAST, Disk::Whole).await;
    world.serve_once(1).await.abort();
    world.detached().await;
    let _machine = world.serve_once(2).await;
    world.restore(1).await;
    world.restore(2).await;
    let restored = world.next().await;
    assert!(matches!(restored, MachineEvent::Restored { .. }), "{restored:?}");
    assert_eq!(world.opened.recv().await, Some(LAST));
    assert!(world.opened.try_recv().is_err(), "once");
}
