//! Our snapshots as others read them: the state machine that is restored, and peers that are behind.
//!
//! A file that turns out to be damaged while it is read is set aside, and the process ends: it starts again from the snapshot
//! before, from which the log still goes on. Without such a one it refuses to start, and says so.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::consensus::{LogId, SnapshotMeta};
use crate::machine_link::{SnapshotPieces, SnapshotSource, SourceError};
use crate::snapshot::{Description, MachineReader, RawReader, SnapshotError, Store};
use crate::tasks::LogFailure;

/// The snapshots of this node, for reading.
#[derive(Clone, Debug)]
pub struct Shelf {
    store: Store,
    failed: mpsc::Sender<LogFailure>,
}

impl Shelf {
    /// Tells `failed` about each file that was found to be damaged.
    pub fn new(store: Store, failed: mpsc::Sender<LogFailure>) -> Self {
        Self { store, failed }
    }

    /// The files.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The snapshot that ends at this entry.
    pub fn find(&self, last: LogId) -> Option<Description> {
        self.store.all().into_iter().find(|snapshot| snapshot.meta.last == last)
    }

    /// The file of a snapshot as it is. Blocks.
    ///
    /// # Errors
    /// As [`Store::raw`].
    pub fn raw(&self, of: &Description) -> Result<RawReader, SnapshotError> {
        self.store.raw(of).inspect_err(|error| self.note(of, error))
    }

    /// Reads the whole of a snapshot, which somebody has found to be damaged on his side. Blocks.
    ///
    /// # Errors
    /// It is damaged, or cannot be read.
    pub fn verify(&self, of: &Description) -> Result<(), SnapshotError> {
        let read = || {
            let mut reader = self.store.machine_bytes(of)?;
            while reader.next_piece()?.is_some() {}
            Ok(())
        };
        read().inspect_err(|error| self.note(of, error))
    }

    /// The session table in a snapshot, encoded. Blocks.
    ///
    /// # Errors
    /// As [`Store::image`].
    pub fn image(&self, of: &Description) -> Result<Vec<u8>, SnapshotError> {
        self.store.image(of).inspect_err(|error| self.note(of, error))
    }

    fn note(&self, of: &Description, error: &SnapshotError) {
        let SnapshotError::Damaged(damage) = error else { return };
        if let Err(error) = self.store.set_aside(of, damage) {
            tracing::warn!(%error, "a damaged snapshot keeps its name");
        }
        // Full: the process ends for another one already.
        drop(self.failed.try_send(damage.clone().into()));
    }
}

impl SnapshotSource for Shelf {
    fn open(&self, meta: &SnapshotMeta) -> Result<Box<dyn SnapshotPieces>, SourceError> {
        let gone = || SourceError::Unavailable(format!("none up to {} is here", meta.last));
        let of = self.find(meta.last).ok_or_else(gone)?;
        let opened = self.store.machine_bytes(&of).inspect_err(|error| self.note(&of, error));
        let reader = opened.map_err(|error| source_error(&error))?;
        Ok(Box::new(Pieces { shelf: self.clone(), of, reader }))
    }
}

struct Pieces {
    shelf: Shelf,
    of: Description,
    reader: MachineReader,
}

impl SnapshotPieces for Pieces {
    fn next_piece(&mut self) -> Result<Option<Bytes>, SourceError> {
        let piece = self.reader.next_piece();
        piece.map_err(|error| {
            self.shelf.note(&self.of, &error);
            source_error(&error)
        })
    }
}

fn source_error(error: &SnapshotError) -> SourceError {
    let text = error.to_string();
    match error {
        SnapshotError::Damaged(_) => SourceError::Damaged(text),
        SnapshotError::Foreign { .. }
        | SnapshotError::UnknownVersion { .. }
        | SnapshotError::Mismatch { .. }
        | SnapshotError::Incomplete { .. }
        | SnapshotError::Gone { .. }
        | SnapshotError::Busy { .. }
        | SnapshotError::GivenUp
        | SnapshotError::TooLong { .. }
        | SnapshotError::NoRoom { .. }
        | SnapshotError::NoSpace(_)
        | SnapshotError::Disk(_) => SourceError::Unavailable(text),
    }
}
