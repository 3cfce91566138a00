//! The writer's thread, and the thread that prepares segments, on simulated and real disks.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::consensus::{
    BatchNo, Entry, Index, LogId, Membership, Payload, Persist, SnapshotMeta, Term,
};
use raft::wal::{Disk, DiskFile, Options, RealDisk, Wal, WalEvent, WriteError, Writer};

use crate::model::{DIR, History, Model, Step, carry_out, open, options};
use crate::simulated_disk::{Fault, SimulatedDisk};

const DEADLINE: Duration = Duration::from_secs(30);

fn entry(index: u64) -> Entry {
    let payload = Payload::Command(vec![7; 200].into());
    Entry { id: LogId::new(Term(1), Index(index)), payload }
}

fn batch(number: u64) -> Persist {
    Persist { batch: BatchNo(number), append: vec![entry(number)], ..Persist::default() }
}

fn spawn(wal: Wal) -> (Writer, Receiver<WalEvent>) {
    let (sender, receiver) = channel();
    let writer = Writer::spawn(wal, Box::new(move |event| drop(sender.send(event)))).unwrap();
    (writer, receiver)
}

fn next(events: &Receiver<WalEvent>) -> WalEvent {
    events.recv_timeout(DEADLINE).expect("an event")
}

#[test]
fn every_batch_is_reported_by_a_batch_not_below_it_and_is_then_durable() {
    let disk = SimulatedDisk::new();
    let (writer, events) = spawn(open(&disk, 0).unwrap().0);
    for number in 1..=200 {
        writer.submit(batch(number));
    }
    let mut durable = 0;
    while durable < 200 {
        let WalEvent::Synced { batch, last, .. } = next(&events) else { panic!("not synced") };
        assert!(batch.0 > durable);
        assert_eq!(last, LogId::new(Term(1), Index(batch.0)));
        durable = batch.0;
        let (_, restored) = open(&disk.power_cut(|| false), durable).unwrap();
        assert!(restored.last >= last, "reported before it was durable");
    }
    writer.close();
    assert!(events.recv().is_err(), "nothing follows a close");
}

#[test]
fn close_finishes_what_was_submitted() {
    let disk = SimulatedDisk::new();
    let (writer, events) = spawn(open(&disk, 0).unwrap().0);
    (1..=50).for_each(|number| writer.submit(batch(number)));
    writer.fetch(9, Index(2), Index(50), usize::MAX);
    writer.close();
    let events: Vec<WalEvent> = events.into_iter().collect();
    let Some(WalEvent::Fetched { token: 9, entries }) = events.last() else { panic!("{events:?}") };
    assert_eq!(*entries.as_ref().unwrap(), (2..=50).map(entry).collect::<Vec<_>>());
    assert_eq!(open(&disk.power_cut(|| false), 1).unwrap().1.last.index, Index(50));
}

#[test]
fn compaction_stands_in_line_with_the_batches() {
    let disk = SimulatedDisk::new();
    let (writer, events) = spawn(open(&disk, 0).unwrap().0);
    (1..=20).for_each(|number| writer.submit(batch(number)));
    let meta = SnapshotMeta {
        last: LogId::new(Term(1), Index(15)),
        membership: Membership::default(),
        membership_index: Index(0),
    };
    writer.compact(meta.clone());
    writer.submit(batch(21));
    writer.fetch(1, Index(15), Index(21), usize::MAX);
    writer.close();
    let Some(WalEvent::Fetched { entries: Err(error), .. }) = events.into_iter().last() else {
        panic!("index 15 is in the snapshot")
    };
    assert!(error.to_string().contains("index 16"), "{error}");
    let (_, restored) = open(&disk, 1).unwrap();
    assert_eq!((restored.base, restored.last.index), (Some(meta), Index(21)));
}

#[test]
fn how_far_a_log_may_be_compacted_is_asked_in_line_with_the_batches() {
    let disk = SimulatedDisk::new();
    let (writer, events) = spawn(open(&disk, 0).unwrap().0);
    (1..=20).for_each(|number| writer.submit(batch(number)));
    let record_bytes = 221;
    writer.trailing(Index(20), 3 * record_bytes);
    writer.trailing(Index(10), 3 * record_bytes + 1);
    writer.close();
    let answers: Vec<Index> = events
        .into_iter()
        .filter_map(|event| match event {
            WalEvent::Trailing(index) => Some(index),
            WalEvent::Synced { .. }
            | WalEvent::Fetched { .. }
            | WalEvent::Weighed(_)
            | WalEvent::Failed(_) => None,
        })
        .collect();
    assert_eq!(answers, [Index(17), Index(6)]);
}

#[test]
fn what_syncs_say_that_entries_weigh_is_what_the_log_says() {
    let disk = SimulatedDisk::new();
    let (writer, events) = spawn(open(&disk, 0).unwrap().0);
    (1..=20).for_each(|number| writer.submit(batch(number)));
    writer.weigh(Index(0));
    writer.close();
    let (mut synced, mut weighed) = (0, 0);
    for event in events {
        match event {
            WalEvent::Synced { cost, .. } => synced += cost.entry_bytes,
            WalEvent::Weighed(bytes) => weighed = bytes,
            WalEvent::Fetched { .. } | WalEvent::Trailing(_) | WalEvent::Failed(_) => {}
        }
    }
    assert!(weighed > 0);
    assert_eq!(synced, weighed);
}

#[test]
fn an_error_is_reported_once_and_nothing_after_it() {
    let disk = SimulatedDisk::new();
    let (wal, _) = open(&disk, 0).unwrap();
    disk.fail_at(disk.operations() + 1, Fault::Error);
    let (writer, events) = spawn(wal);
    writer.submit(batch(1));
    let event = next(&events);
    assert!(matches!(event, WalEvent::Failed(WriteError::Disk(_))), "{event:?}");
    let operations = disk.operations();
    let command = Bytes::from(vec![7; 200]);
    let payload = Payload::Command(command.clone());
    let id = LogId::new(Term(1), Index(2));
    writer.submit(Persist { append: vec![Entry { id, payload }], ..Persist::default() });
    assert!(command.is_unique(), "what nobody will write is not kept");
    writer.fetch(1, Index(1), Index(1), 1);
    writer.close();
    assert!(events.recv().is_err());
    assert_eq!(disk.operations(), operations);
}

#[test]
fn a_panic_of_the_thread_is_reported() {
    let disk = SimulatedDisk::new();
    let (sender, events) = channel();
    let mut first = true;
    let on_event = move |event| {
        assert!(!std::mem::take(&mut first), "the first event panics, for this test");
        drop(sender.send(event));
    };
    let writer = Writer::spawn(open(&disk, 0).unwrap().0, Box::new(on_event)).unwrap();
    writer.submit(batch(1));
    assert!(matches!(next(&events), WalEvent::Failed(WriteError::Panicked)));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.close())).is_err());
}

/// Holds syncs back until it is opened.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(open, _)| !*open).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }

    fn await_arrival(&self) {
        let state = self.state.lock().unwrap();
        let (state, timeout) =
            self.changed.wait_timeout_while(state, DEADLINE, |(_, arrived)| *arrived == 0).unwrap();
        drop(state);
        assert!(!timeout.timed_out());
    }
}

/// A disk whose syncs wait at a gate once there is one.
struct GatedDisk {
    disk: Arc<SimulatedDisk>,
    gate: Arc<Mutex<Option<Arc<Gate>>>>,
}

struct GatedFile {
    file: Box<dyn DiskFile>,
    gate: Arc<Mutex<Option<Arc<Gate>>>>,
}

impl GatedDisk {
    fn wrap(&self, file: std::io::Result<Box<dyn DiskFile>>) -> std::io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(GatedFile { file: file?, gate: Arc::clone(&self.gate) }))
    }
}

impl Disk for GatedDisk {
    fn create_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> std::io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn DiskFile>> {
        self.wrap(self.disk.create(path))
    }
    fn open(&self, path: &Path) -> std::io::Result<Box<dyn DiskFile>> {
        self.wrap(self.disk.open(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> std::io::Result<Box<dyn Send>> {
        self.disk.lock(path)
    }
}

impl DiskFile for GatedFile {
    fn size_bytes(&self) -> std::io::Result<u64> {
        self.file.size_bytes()
    }
    fn resize(&self, bytes: u64) -> std::io::Result<()> {
        self.file.resize(bytes)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.pass();
        }
        self.file.sync_data()
    }
}

#[test]
fn what_arrives_during_a_sync_is_one_batch_and_nothing_is_reported_before_its_sync() {
    let disk = GatedDisk { disk: SimulatedDisk::new(), gate: Arc::default() };
    let (simulated, slot) = (Arc::clone(&disk.disk), Arc::clone(&disk.gate));
    let (wal, _) = open(&Arc::new(disk), 0).unwrap();
    let gate = Arc::new(Gate::default());
    *slot.lock().unwrap() = Some(Arc::clone(&gate));
    let (writer, events) = spawn(wal);
    writer.submit(batch(1));
    gate.await_arrival();
    let before = simulated.operations();
    (2..=11).for_each(|number| writer.submit(batch(number)));
    assert_eq!(writer.pending_bytes(), 11 * entry(1).weight_bytes());
    assert!(events.try_recv().is_err(), "nothing is durable yet");
    gate.open();
    assert!(matches!(next(&events), WalEvent::Synced { batch: BatchNo(1), .. }));
    assert!(matches!(next(&events), WalEvent::Synced { batch: BatchNo(11), .. }));
    writer.close();
    assert_eq!(simulated.operations() - before, 3, "the first sync, one write, one sync");
}

#[test]
fn nothing_is_pending_once_it_is_reported() {
    let disk = SimulatedDisk::new();
    let (writer, events) = spawn(open(&disk, 0).unwrap().0);
    writer.submit(batch(1));
    drop(next(&events));
    assert_eq!(writer.pending_bytes(), 0);
}

/// A history on a real file system, with the next segment prepared on a thread and dropped ones used again.
#[test]
fn a_real_directory_with_background_preparation_holds_what_the_model_holds() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("new").join("wal");
    let options = Options { segment_bytes: 8192, tail_cache_bytes: 3000, ..Options::default() };
    let open = || Wal::open(Arc::new(RealDisk), &dir, options.clone()).unwrap();
    let (mut wal, restored) = open();
    assert_eq!(restored.last, LogId::default());
    for (step, model) in History::new(5).steps(400) {
        if matches!(step, Step::Reopen) {
            drop(wal);
            let (again, restored) = open();
            wal = again;
            model.check(&mut wal, &restored);
        }
        carry_out(&mut wal, &step).unwrap();
        model.check_entries(&mut wal);
    }
    let names: Vec<_> = std::fs::read_dir(&dir).unwrap().collect();
    assert!(names.len() <= wal.segments() + 5, "dropped segments are used again or removed");
}

#[test]
fn a_real_directory_has_one_owner_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = Wal::open(Arc::new(RealDisk), dir.path(), Options::default()).unwrap();
    let error = Wal::open(Arc::new(RealDisk), dir.path(), Options::default()).err().unwrap();
    assert!(error.to_string().contains("in use"), "{error}");
    drop(first);
    Wal::open(Arc::new(RealDisk), dir.path(), Options::default()).unwrap();
}

fn syncs(disk: &SimulatedDisk) -> usize {
    disk.trace().iter().filter(|operation| operation.starts_with("sync /")).count()
}

#[test]
fn appends_larger_than_a_segment_and_than_a_frame_are_kept() {
    let disk = SimulatedDisk::new();
    let (mut wal, _) = open(&disk, 0).unwrap();
    let mut model = Model::default();
    for (number, bytes) in [(0, 10), (1, 20_000), (2, 10), (3, 3 << 20)] {
        let next = model.last().index.0 + 1;
        let count = if bytes > 1 << 20 { 7 } else { 2 };
        let command = |index: u64| vec![u8::try_from(index).unwrap(); bytes];
        let entry = |index| Entry {
            id: LogId::new(Term(1), Index(index)),
            payload: Payload::Command(command(index).into()),
        };
        let append = (next..next + count).map(entry).collect();
        let step =
            Step::Append(vec![Persist { batch: BatchNo(number), append, ..Persist::default() }]);
        let before = syncs(&disk);
        carry_out(&mut wal, &step).unwrap();
        model.follow(&step);
        model.check_entries(&mut wal);
        // A segment's start is synced too.
        let frames = if count == 7 { 4 } else { 1 };
        assert!((frames..=2 * frames).contains(&(syncs(&disk) - before)), "of {bytes} bytes");
    }
    drop(wal);
    let (mut wal, _) = open(&disk.power_cut(|| false), 1).unwrap();
    model.check_entries(&mut wal);
}

/// Waits until the disk has seen an operation that starts like this.
fn await_operation(disk: &SimulatedDisk, name: &str) {
    let start = Instant::now();
    while !disk.trace().iter().any(|operation| operation.starts_with(name)) {
        assert!(start.elapsed() < DEADLINE, "no {name}: {:#?}", disk.trace());
        std::thread::yield_now();
    }
}

#[test]
fn failing_to_prepare_a_segment_shows_only_when_it_is_needed() {
    for space_comes_back in [false, true] {
        let disk = SimulatedDisk::new();
        disk.set_capacity(Some(8192 + 4096));
        let options = Options { segment_bytes: 8192, background: true, ..options() };
        let (mut wal, _) =
            Wal::open(Arc::<SimulatedDisk>::clone(&disk), Path::new(DIR), options).unwrap();
        await_operation(&disk, "remove /wal/next-2.tmp");
        wal.append(&[batch(1)]).unwrap();
        if space_comes_back {
            disk.set_capacity(None);
        }
        let failure = (2..40).find_map(|number| wal.append(&[batch(number)]).err());
        match failure {
            None => assert!(space_comes_back),
            Some(WriteError::NoSpace(_)) => assert!(!space_comes_back),
            Some(other) => panic!("{other}"),
        }
        let (_, restored) = open(&disk.power_cut(|| false), 1).unwrap();
        let expected = if space_comes_back { 39 } else { 12 };
        assert!(restored.last.index >= Index(expected), "{}", restored.last);
    }
}

#[test]
fn a_dropped_segments_file_is_used_again() {
    let disk = SimulatedDisk::new();
    let (mut wal, _) = open(&disk, 0).unwrap();
    let mut number = 0;
    let mut fill = |wal: &mut Wal, segments: usize| {
        while wal.segments() < segments {
            number += 1;
            wal.append(&[batch(number)]).unwrap();
        }
        number
    };
    let last = fill(&mut wal, 4);
    let membership = Membership::default();
    let meta = SnapshotMeta {
        last: LogId::new(Term(1), Index(last)),
        membership,
        membership_index: Index(0),
    };
    wal.compact(&meta).unwrap();
    assert_eq!((wal.segments(), disk.files(".tmp").len()), (1, 2), "two are kept for later");
    let creates = |disk: &SimulatedDisk| {
        disk.trace().iter().filter(|name| name.starts_with("create")).count()
    };
    let before = creates(&disk);
    fill(&mut wal, 3);
    assert_eq!((creates(&disk), disk.files(".tmp").len()), (before, 0));
    fill(&mut wal, 4);
    assert_eq!(creates(&disk), before + 1);
}
