//! One snapshot, from the state machine into a file.

use std::time::{Duration, Instant};

use bytes::Bytes;
use state_machine::rpc::{
    self as contract, Attach, BeginSnapshot, CONTRACT_VERSION, ReadSnapshot, SnapshotChunk,
    SnapshotInfo, StateMachineServiceClient,
};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::Keeper;
use crate::consensus::{Index, LogId, SnapshotMeta, Term};
use crate::deadline;
use crate::pace::Pace;
use crate::pipeline::digest_commits::{Capture, CaptureRefused, CommitsEvent};
use crate::pipeline::digest_entries::EntriesEvent;
use crate::session::Image;
use crate::snapshot::{Description, SnapshotError, Taking};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for the machine's answer to one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no snapshot. The one before stays, and nothing is lost.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeError {
    /// The machine does not answer, or says no.
    #[error("the state machine {0}")]
    Machine(String),
    /// The machine gave something that it should not.
    #[error("the state machine is wrong: {0}")]
    Wrong(String),
    /// The session table is not as new as the machine.
    #[error(transparent)]
    Capture(#[from] CaptureRefused),
    /// A stage has no answer.
    #[error("{0}")]
    Stage(&'static str),
    /// The file.
    #[error(transparent)]
    Store(#[from] SnapshotError),
    /// A thread has panicked.
    #[error("internal error: {0}")]
    Panic(#[from] tokio::task::JoinError),
}

impl Keeper {
    /// Takes a snapshot, unless the machine has applied nothing since the last; that one is the answer then.
    pub(super) async fn take(&self) -> Result<Description, TakeError> {
        let begun = Instant::now();
        let client = self.attach().await?;
        let (info, pinned) = self.begin(&client).await?;
        if let Some(newest) =
            self.store.newest().filter(|newest| newest.meta.last.index >= pinned.index)
        {
            return Ok(newest);
        }
        let image = self.capture(pinned.index).await?;
        let meta = self.describe(pinned).await?;
        let taken = self.write(&client, info.snapshot, meta, image).await?;
        self.metrics.snapshots_taken.add();
        tracing::info!(
            index = taken.meta.last.index.0,
            bytes = taken.bytes,
            took_ms = begun.elapsed().as_millis(),
            "took a snapshot"
        );
        let kept = self.store.all();
        let oldest = kept.first().map_or(taken.meta.last.index, |oldest| oldest.meta.last.index);
        let event = EntriesEvent::SnapshotTaken { meta: taken.meta.clone(), oldest };
        self.inbox.send(event).await.map_err(|_closed| STOPPING)?;
        Ok(taken)
    }

    async fn attach(&self) -> Result<StateMachineServiceClient, TakeError> {
        let (cluster, node, boot) =
            (self.node.known_cluster().await, self.node.id.0, self.node.boot);
        let connection =
            contract::connect(&self.machine, cluster, node, boot, CONNECT_TIMEOUT).await;
        let client = connection.map_err(|error| silent("connection", &error))?.client;
        let attach = Attach { contract: CONTRACT_VERSION, cluster, node, boot };
        match client.attach(deadline(CALL_TIMEOUT), attach).await {
            Ok(Ok(_info)) => Ok(client),
            Ok(Err(refused)) => Err(TakeError::Machine(format!("refuses: {refused}"))),
            Err(error) => Err(silent("attach", &error)),
        }
    }

    /// Pins the state; tells of which entry it is.
    async fn begin(
        &self,
        client: &StateMachineServiceClient,
    ) -> Result<(SnapshotInfo, LogId), TakeError> {
        let request = BeginSnapshot { boot: self.node.boot };
        match client.begin_snapshot(deadline(CALL_TIMEOUT), request).await {
            Ok(Ok(info)) if info.applied_index == 0 => {
                Err(TakeError::Machine("has applied nothing yet".to_owned()))
            }
            Ok(Ok(info)) => {
                let pinned = LogId::new(Term(info.applied_term), Index(info.applied_index));
                Ok((info, pinned))
            }
            Ok(Err(refused)) => Err(TakeError::Machine(format!("refuses: {refused}"))),
            Err(error) => Err(silent("begin_snapshot", &error)),
        }
    }

    async fn capture(&self, at_least: Index) -> Result<Image, TakeError> {
        let (reply, image) = oneshot::channel();
        let event = CommitsEvent::Capture(Capture { at_least, reply });
        self.commits.send(event).await.map_err(|_closed| STOPPING)?;
        Ok(image.await.map_err(|_gone| STOPPING)??)
    }

    async fn describe(&self, pinned: LogId) -> Result<SnapshotMeta, TakeError> {
        let (reply, meta) = oneshot::channel();
        let event = EntriesEvent::Describe { index: pinned.index, reply };
        self.inbox.send(event).await.map_err(|_closed| STOPPING)?;
        match meta.await {
            Ok(Some(meta)) if meta.last == pinned => Ok(meta),
            Ok(Some(meta)) => Err(TakeError::Wrong(format!(
                "its entry {} is of term {}, ours of term {}",
                pinned.index, pinned.term, meta.last.term
            ))),
            Ok(None) => Err(TakeError::Stage("the pinned entry is not in the log")),
            Err(_gone) => Err(STOPPING),
        }
    }

    /// Reads the stream into a file, at the pace that is set.
    async fn write(
        &self,
        client: &StateMachineServiceClient,
        snapshot: u64,
        meta: SnapshotMeta,
        image: Image,
    ) -> Result<Description, TakeError> {
        let (store, cluster) = (self.store.clone(), self.node.known_cluster().await);
        let begin = move || store.take(&meta, cluster, &image.encode());
        let mut file = spawn_blocking(begin).await??;
        let mut pace = Pace::new(self.bytes_per_s);
        let mut offset = 0;
        loop {
            let chunk = match self.read(client, snapshot, offset).await {
                Ok(chunk) => chunk,
                Err(error) => {
                    // It removes what was written, which takes its time when that is much.
                    spawn_blocking(move || drop(file)).await?;
                    return Err(error);
                }
            };
            let length = chunk.bytes.len();
            offset += length as u64;
            file = push(file, chunk.bytes).await?;
            if chunk.last {
                return Ok(spawn_blocking(move || file.finish()).await??);
            }
            pace.spend(length).await;
        }
    }

    async fn read(
        &self,
        client: &StateMachineServiceClient,
        snapshot: u64,
        offset: u64,
    ) -> Result<SnapshotChunk, TakeError> {
        let request = ReadSnapshot { boot: self.node.boot, snapshot, offset };
        match client.read_snapshot(deadline(CALL_TIMEOUT), request).await {
            Ok(Ok(chunk)) => check(chunk, offset),
            Ok(Err(refused)) => Err(TakeError::Machine(format!("refuses: {refused}"))),
            Err(error) => Err(silent("read_snapshot", &error)),
        }
    }
}

const STOPPING: TakeError = TakeError::Stage("this process is stopping");

async fn push(mut file: Taking, bytes: Bytes) -> Result<Taking, TakeError> {
    let push = move || {
        file.push(&bytes)?;
        Ok(file)
    };
    spawn_blocking(push).await?
}

fn silent(call: &str, error: &dyn std::fmt::Display) -> TakeError {
    TakeError::Machine(format!("does not answer ({call}): {error}"))
}

/// Others' bytes: a machine may be wrong, in any language.
fn check(chunk: SnapshotChunk, offset: u64) -> Result<SnapshotChunk, TakeError> {
    if chunk.offset != offset {
        let got = chunk.offset;
        return Err(TakeError::Wrong(format!("it gave a piece at {got} instead of {offset}")));
    }
    if chunk.bytes.is_empty() && !chunk.last {
        return Err(TakeError::Wrong(format!("it gave an empty piece at {offset}")));
    }
    if crc32c::crc32c(&chunk.bytes) != chunk.checksum {
        return Err(TakeError::Wrong(format!(
            "the checksum of its piece at {offset} does not fit"
        )));
    }
    Ok(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64, bytes: &'static [u8], last: bool) -> SnapshotChunk {
        let checksum = crc32c::crc32c(bytes);
        SnapshotChunk { offset, bytes: Bytes::from_static(bytes), checksum, last }
    }

    #[test]
    fn a_machine_that_lies_is_told_by_its_pieces() {
        assert!(check(chunk(5, b"piece", false), 5).is_ok());
        assert!(check(chunk(5, b"", true), 5).is_ok(), "an empty last piece ends the stream");
        let wrong_sum = SnapshotChunk { checksum: 7, ..chunk(5, b"piece", false) };
        for (wrong, said) in [
            (chunk(0, b"piece", false), "a piece at 0 instead of 5"),
            (chunk(5, b"", false), "an empty piece at 5"),
            (wrong_sum, "the checksum of its piece at 5"),
        ] {
            let error = check(wrong, 5).expect_err("it is refused").to_string();
            assert!(
                error.starts_with("the state machine is wrong") && error.contains(said),
                "{error}"
            );
        }
    }
}
