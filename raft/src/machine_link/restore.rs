//! Loading one of our snapshots into the state machine, piece by piece over the link's own connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use state_machine::rpc::{
    BeginRestore, FinishRestore, Info, RestoreError, Restoring, StateMachineServiceClient,
    WriteRestore,
};
use tarpc::client::RpcError;

use super::Down;
use crate::consensus::{Index, LogId, SnapshotMeta, Term};
use crate::deadline;
use crate::pipeline::digest_commits::MachineEvent;

const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A machine that does not take a piece for this long is hung.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// A machine checks the whole then, makes it durable and switches to it.
const FINISH_TIMEOUT: Duration = Duration::from_mins(1);

/// Where snapshots come from. Blocking: it is called on threads that may wait.
pub trait SnapshotSource: fmt::Debug + Send + Sync {
    /// The machine's part of the snapshot that ends at `meta.last`.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    fn open(&self, meta: &SnapshotMeta) -> Result<Box<dyn SnapshotPieces>, SourceError>;
}

/// The machine's part of a snapshot, from its start to its end.
pub trait SnapshotPieces: Send {
    /// The next piece, at most [`MAX_CHUNK_BYTES`](state_machine::rpc::MAX_CHUNK_BYTES); none at the end, when the whole was
    /// found to be what was written.
    ///
    /// # Errors
    /// There is no next piece to be had; what was read before must not be used.
    fn next_piece(&mut self) -> Result<Option<Bytes>, SourceError>;
}

/// Why a snapshot cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It may be had later, or a newer one.
    #[error("{0}")]
    Unavailable(String),
    /// It is not what was written: that will not change.
    #[error("{0}")]
    Damaged(String),
}

impl From<SourceError> for Down {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Unavailable(reason) => {
                Self::Broken(format!("cannot read the snapshot to restore it from: {reason}"))
            }
            SourceError::Damaged(reason) => {
                Self::Refused(format!("the snapshot to restore it from is damaged: {reason}"))
            }
        }
    }
}

/// Loads the snapshot; the machine stands at its last entry then.
pub(super) async fn restore(
    client: StateMachineServiceClient,
    boot: u64,
    meta: SnapshotMeta,
    source: Arc<dyn SnapshotSource>,
) -> Result<MachineEvent, Down> {
    let last = meta.last;
    tracing::info!(snapshot = %last, "restoring the state machine");
    let pieces = blocking(move || source.open(&meta)).await?;
    let mut transfer = Transfer { client, boot, last, restore: 0, offset: 0 };
    transfer.begin().await?;
    let mut next = read(pieces).await?;
    while let (pieces, Some(bytes)) = next {
        transfer.write(bytes).await?;
        next = read(pieces).await?;
    }
    let info = transfer.finish().await?;
    let applied = LogId::new(Term(info.applied_term), Index(info.applied_index));
    if applied != last {
        let reason =
            format!("it was given the snapshot at {last} and says that it is at {applied}");
        return Err(Down::Refused(reason));
    }
    tracing::info!(snapshot = %last, bytes = transfer.offset, "state machine restored");
    Ok(MachineEvent::Restored { applied })
}

type Pieces = Box<dyn SnapshotPieces>;

async fn read(mut pieces: Pieces) -> Result<(Pieces, Option<Bytes>), Down> {
    blocking(move || pieces.next_piece().map(|piece| (pieces, piece))).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, Down> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(Down::Broken(format!("reading the snapshot failed: {error}"))),
    }
}

/// A restore under way.
struct Transfer {
    client: StateMachineServiceClient,
    boot: u64,
    last: LogId,
    /// The machine's name for it.
    restore: u64,
    /// Bytes that the machine has.
    offset: u64,
}

impl Transfer {
    async fn begin(&mut self) -> Result<(), Down> {
        let LogId { term: Term(applied_term), index: Index(applied_index) } = self.last;
        let request = BeginRestore { boot: self.boot, applied_term, applied_index };
        let answer = self.client.begin_restore(deadline(BEGIN_TIMEOUT), request).await;
        let begun = judge(answer)?;
        self.restore = begun.restore;
        self.expect(begun, 0)
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Down> {
        let (boot, restore, offset) = (self.boot, self.restore, self.offset);
        let end = offset + bytes.len() as u64;
        let checksum = crc32c::crc32c(&bytes);
        let request = WriteRestore { boot, restore, offset, bytes, checksum };
        let answer = self.client.write_restore(deadline(PIECE_TIMEOUT), request).await;
        self.expect(judge(answer)?, end)
    }

    async fn finish(&mut self) -> Result<Info, Down> {
        let (boot, restore, snapshot_bytes) = (self.boot, self.restore, self.offset);
        let request = FinishRestore { boot, restore, snapshot_bytes };
        let answer = self.client.finish_restore(deadline(FINISH_TIMEOUT), request).await;
        judge(answer)
    }

    /// Takes the machine's word on how far it is, which must be ours.
    fn expect(&mut self, answer: Restoring, offset: u64) -> Result<(), Down> {
        if answer != (Restoring { restore: self.restore, offset }) {
            let Restoring { offset: got, .. } = answer;
            let reason = format!("it has {got} bytes of a snapshot of which it was sent {offset}");
            return Err(Down::Refused(reason));
        }
        self.offset = offset;
        Ok(())
    }
}

fn judge<T>(answer: Result<Result<T, RestoreError>, RpcError>) -> Result<T, Down> {
    match answer {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error @ RestoreError::BadSnapshot { .. })) => {
            Err(Down::Refused(format!("it does not take the snapshot: {error}")))
        }
        // What its next attachment tells decides how to go on.
        Ok(Err(error)) => Err(Down::Broken(format!("did not restore a snapshot: {error}"))),
        Err(error) => Err(Down::Broken(format!("no answer while it restores a snapshot: {error}"))),
    }
}
