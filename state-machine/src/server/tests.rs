//! Snapshots are read beside what is applied, and end with their connection.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tarpc::context;
use tokio::time::timeout;

use super::*;
use crate::attachment::MemoryAttachment;
use crate::entries::{EntryBlobBuilder, EntryHeader, EntryKind};
use crate::host::Host;
use crate::probe::{Control, Probe};
use crate::rpc::CONTRACT_VERSION;
use crate::worker::{self, Ended, SyncPolicy};

const PATIENCE: Duration = Duration::from_secs(30);
const NEVER: SyncPolicy = SyncPolicy { interval: Duration::from_hours(1), entries: u64::MAX };

type TestConnection = Connection<Probe>;

fn start() -> (MachineHandle<Probe>, Ended, Control) {
    let control = Control::default();
    let host =
        Host::new(Probe::new(control.clone()), Box::new(MemoryAttachment::default())).unwrap();
    let (handle, ended) = worker::spawn(host, NEVER).unwrap();
    (handle, ended, control)
}

async fn attach(machine: &MachineHandle<Probe>) -> TestConnection {
    let connection = Connection::new(machine.clone());
    let request = Attach { contract: CONTRACT_VERSION, cluster: 1, node: 1, boot: 1 };
    connection.clone().attach(context::current(), request).await.unwrap();
    connection
}

async fn apply(connection: &TestConnection, first_index: u64) -> Applied {
    let kind = EntryKind::Command;
    let mut builder = EntryBlobBuilder::new();
    let header = EntryHeader { kind, term: 1, time_ms: 0, session: 0, sequence: 0 };
    builder.push(&header, b"x");
    let request = Apply { boot: 1, first_index, entries: builder.finish() };
    let answer = connection.clone().apply(context::current(), request);
    timeout(PATIENCE, answer).await.expect("it does not wait").unwrap()
}

async fn begin(connection: &TestConnection) -> u64 {
    let request = BeginSnapshot { boot: 1 };
    connection.clone().begin_snapshot(context::current(), request).await.unwrap().snapshot
}

async fn read(
    connection: TestConnection,
    snapshot: u64,
    offset: u64,
) -> Result<SnapshotChunk, SnapshotError> {
    let request = ReadSnapshot { boot: 1, snapshot, offset };
    connection.read_snapshot(context::current(), request).await
}

#[tokio::test]
async fn applying_goes_on_while_a_piece_is_read() {
    let (machine, _ended, control) = start();
    let (feed, other) = (attach(&machine).await, attach(&machine).await);
    let snapshot = begin(&other).await;
    control.gate.close();
    let reading = tokio::spawn(read(other, snapshot, 0));
    for index in 1..100 {
        assert_eq!(apply(&feed, index).await.first_index, index);
    }
    assert!(!reading.is_finished());
    control.gate.open();
    let piece = timeout(PATIENCE, reading).await.unwrap().unwrap().unwrap();
    assert!(piece.bytes.ends_with(&[0]), "the state before all that was applied since");
}

#[tokio::test]
async fn a_piece_whose_caller_left_can_be_read_again() {
    let (machine, _ended, control) = start();
    let connection = attach(&machine).await;
    let snapshot = begin(&connection).await;
    control.gate.close();
    let reading = tokio::spawn(read(connection.clone(), snapshot, 0));
    // The machine's thread has looked it up, and it is read on another.
    while connection.session.turn.try_lock().is_ok() {
        task::yield_now().await;
    }
    reading.abort();
    assert!(reading.await.unwrap_err().is_cancelled());
    control.gate.open();
    let piece = timeout(PATIENCE, read(connection, snapshot, 0)).await.unwrap().unwrap();
    assert_eq!(piece.offset, 0);
}

#[tokio::test]
async fn a_snapshot_ends_with_the_connection_that_began_it() {
    let (machine, _ended, control) = start();
    let (feed, other) = (attach(&machine).await, attach(&machine).await);
    let snapshot = begin(&other).await;
    assert!(read(feed.clone(), snapshot, 0).await.is_ok(), "any connection of the boot may read");
    assert_eq!(control.pins(), 1);
    drop(other);
    assert_eq!(control.pins(), 0);
    assert_eq!(read(feed, snapshot, 0).await, Err(SnapshotError::Unknown { snapshot }));
}

#[tokio::test]
async fn a_failed_read_ends_the_machine() {
    let (machine, ended, control) = start();
    let connection = attach(&machine).await;
    let snapshot = begin(&connection).await;
    control.fails.store(true, Ordering::SeqCst);
    let stopping = SnapshotError::Access(AccessError::Stopping);
    assert_eq!(read(connection, snapshot, 0).await, Err(stopping));
    let error = timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap_err().to_string();
    assert!(error.starts_with("storage failed while reading a snapshot"), "{error}");
}
