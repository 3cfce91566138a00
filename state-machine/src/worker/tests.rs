//! The thread and its queue, with a disk that fails on demand.

use std::ops::Bound;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use tokio::time::timeout;

use super::*;
use crate::attachment::MemoryAttachment;
use crate::entries::{EntryBlobBuilder, EntryHeader, EntryKind};
use crate::kv::{Changes, Engine, Kv, MemoryEngine, Pair, Pairs};
use crate::machine::{LogId, RestoreFailure};
use crate::rpc::{Apply, Attach, CONTRACT_VERSION};

const PATIENCE: Duration = Duration::from_secs(30);
const AT_ONCE: SyncPolicy = SyncPolicy { interval: Duration::from_millis(1), entries: 1 };
const NEVER: SyncPolicy = SyncPolicy { interval: Duration::from_hours(1), entries: u64::MAX };

/// An engine that claims to be durable, until its disk breaks.
#[derive(Default)]
struct FaultyEngine {
    memory: MemoryEngine,
    durable_index: u64,
    writes_fail: bool,
    syncs_fail: Arc<AtomicBool>,
}

fn refuse(fails: bool, doing: &'static str) -> Result<(), MachineError> {
    let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
    if fails { Err(MachineError::Storage { doing, source }) } else { Ok(()) }
}

impl Engine for FaultyEngine {
    fn applied(&self) -> LogId {
        self.memory.applied()
    }

    fn durable_index(&self) -> u64 {
        self.durable_index
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MachineError> {
        self.memory.get(key)
    }

    fn write(&mut self, changes: Changes, applied: LogId) -> Result<(), MachineError> {
        refuse(self.writes_fail, "writing a batch")?;
        self.memory.write(changes, applied)
    }

    fn sync(&mut self) -> Result<(), MachineError> {
        refuse(self.syncs_fail.load(Ordering::Acquire), "syncing the store")?;
        self.durable_index = self.memory.applied().index;
        Ok(())
    }

    fn pairs_from(&self, from: Bound<&[u8]>) -> Pairs {
        self.memory.pairs_from(from)
    }

    fn begin_restore(&mut self) -> Result<(), RestoreFailure> {
        self.memory.begin_restore()
    }

    fn write_restore(&mut self, pairs: Vec<Pair>) -> Result<(), RestoreFailure> {
        self.memory.write_restore(pairs)
    }

    fn finish_restore(&mut self, applied: LogId) -> Result<(), RestoreFailure> {
        self.memory.finish_restore(applied)
    }

    fn abandon_restore(&mut self) {
        self.memory.abandon_restore();
    }
}

type TestHandle = MachineHandle<Kv<FaultyEngine>>;

/// A running machine that boot 1 attached to.
fn start(engine: FaultyEngine, policy: SyncPolicy) -> (TestHandle, Ended) {
    let store = Box::new(MemoryAttachment::default());
    let mut host = LiveHost::new(Kv::new(engine), store).unwrap();
    let attach = Attach { contract: CONTRACT_VERSION, cluster: 1, node: 1, boot: 1 };
    host.attach(&attach).unwrap().0.unwrap();
    spawn(host, policy).unwrap()
}

/// Sends a batch of one command.
fn apply(handle: &TestHandle, index: u64) -> oneshot::Receiver<Result<Applied, ApplyError>> {
    let kind = EntryKind::Command;
    let header = EntryHeader { kind, term: 1, time_ms: 0, session: 0, sequence: 0 };
    let mut builder = EntryBlobBuilder::new();
    builder.push(&header, b"INCR n");
    let request = Apply { boot: 1, first_index: index, entries: builder.finish() };
    let (ticket, answer) = oneshot::channel();
    let work = move |host: &mut LiveHost<_>| {
        deliver(host.apply(Instant::now(), &request, ticket)?);
        Ok(())
    };
    handle.send(0, work).unwrap();
    answer
}

/// Holds the thread until the sender is dropped.
fn block(handle: &TestHandle) -> mpsc::Sender<()> {
    let (gate, opened) = mpsc::channel::<()>();
    let work = move |_: &mut LiveHost<_>| {
        let _ = opened.recv();
        Ok(())
    };
    handle.send(0, work).unwrap();
    gate
}

async fn end(ended: Ended) -> Result<(), MachineError> {
    timeout(PATIENCE, ended).await.unwrap().expect("the thread ended by itself")
}

#[tokio::test]
async fn a_failed_write_ends_it_and_is_never_acknowledged() {
    let (handle, ended) = start(FaultyEngine { writes_fail: true, ..Default::default() }, NEVER);
    let answer = apply(&handle, 1);
    let error = end(ended).await.unwrap_err().to_string();
    assert!(error.starts_with("storage failed while writing a batch"), "{error}");
    assert!(answer.await.is_err(), "no answer");
    assert_eq!(handle.send(0, |_| Ok(())), Err(AccessError::Stopping));
}

#[tokio::test]
async fn a_failed_sync_ends_it_and_is_never_reported_as_durable() {
    let syncs_fail = Arc::new(AtomicBool::new(true));
    let engine = FaultyEngine { syncs_fail: Arc::clone(&syncs_fail), ..Default::default() };
    let (handle, ended) = start(engine, AT_ONCE);
    let answer = apply(&handle, 1).await.unwrap().unwrap();
    assert_eq!(answer.durable_index, 0);
    let error = end(ended).await.unwrap_err().to_string();
    assert!(error.starts_with("storage failed while syncing the store"), "{error}");
}

#[tokio::test]
async fn a_stop_finishes_what_was_queued_and_syncs() {
    let syncs_fail = Arc::new(AtomicBool::new(true));
    let engine = FaultyEngine { syncs_fail: Arc::clone(&syncs_fail), ..Default::default() };
    let (handle, ended) = start(engine, NEVER);
    let gate = block(&handle);
    let answers: Vec<_> = (1..=20).map(|index| apply(&handle, index)).collect();
    handle.stop();
    assert_eq!(handle.send(0, |_| Ok(())), Err(AccessError::Stopping));
    drop(gate);
    for answer in answers {
        assert!(answer.await.unwrap().is_ok());
    }
    assert!(end(ended).await.is_err(), "the last sync was tried, and failed");
}

#[tokio::test]
async fn a_full_queue_says_busy_and_recovers() {
    let (handle, _ended) = start(FaultyEngine::default(), NEVER);
    let gate = block(&handle);
    assert_eq!(handle.send(MAX_QUEUED_BYTES + 1, |_| Ok(())), Err(AccessError::Busy));
    let refused = (0..=MAX_QUEUED_CALLS + 1).find_map(|_| handle.send(1, |_| Ok(())).err());
    assert_eq!(refused, Some(AccessError::Busy));
    drop(gate);
    let bytes_are_given_back = async {
        while handle.ask(MAX_QUEUED_BYTES, |_| Ok(())).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, bytes_are_given_back).await.unwrap();
}

#[tokio::test]
async fn a_batch_without_its_predecessor_is_refused_in_time() {
    let (handle, _ended) = start(FaultyEngine::default(), NEVER);
    let answer = timeout(PATIENCE, apply(&handle, 2)).await.unwrap().unwrap();
    assert_eq!(answer, Err(ApplyError::Gap { expected: 1, got: 2 }));
}

#[tokio::test]
async fn a_panic_of_the_machine_is_noticed() {
    let (handle, ended) = start(FaultyEngine::default(), NEVER);
    handle.send(0, |_| panic!("as this test asks for")).unwrap();
    assert!(timeout(PATIENCE, ended).await.unwrap().is_err());
}
