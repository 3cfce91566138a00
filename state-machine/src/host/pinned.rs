//! A snapshot while it is read: by whoever holds it, on any thread, while the machine's own thread applies on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::machine::MachineError;
use crate::rpc::{MAX_CHUNK_BYTES, SnapshotChunk, SnapshotError};
use crate::snapshot::SnapshotReader;

/// A pinned state and how far it was read. The state is let go when this is dropped, when it was read to its end, or by
/// [`PinnedSnapshot::let_go`].
#[derive(Debug)]
pub struct PinnedSnapshot {
    name: u64,
    is_let_go: AtomicBool,
    reading: Mutex<Option<Reading>>,
}

impl PinnedSnapshot {
    pub(super) fn new(name: u64, reader: SnapshotReader) -> PinnedSnapshot {
        let reading = Reading { reader: Some(reader), offset: 0, last_piece: None };
        PinnedSnapshot {
            name,
            is_let_go: AtomicBool::new(false),
            reading: Mutex::new(Some(reading)),
        }
    }

    /// What it is called in [`ReadSnapshot`](crate::rpc::ReadSnapshot).
    pub fn name(&self) -> u64 {
        self.name
    }

    /// Reads the piece at `offset`: the next one, or the last one again. It waits for the disk, and for whoever reads already.
    ///
    /// # Errors
    /// The machine is broken.
    pub fn read(&self, offset: u64) -> Result<Result<SnapshotChunk, SnapshotError>, MachineError> {
        let piece = self.lock().as_mut().map(|reading| reading.read(offset));
        // Whoever let it go in the meantime found it locked. What reading said then is of no use: the store may be gone.
        if self.is_let_go.load(Ordering::SeqCst) {
            self.lock().take();
            return Ok(Err(self.unknown()));
        }
        piece.unwrap_or_else(|| Ok(Err(self.unknown())))
    }

    /// Gives up the pinned state without waiting: at once, or when the piece that is being read is done.
    pub fn let_go(&self) {
        self.is_let_go.store(true, Ordering::SeqCst);
        if let Ok(mut reading) = self.reading.try_lock() {
            reading.take();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Reading>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unknown(&self) -> SnapshotError {
        SnapshotError::Unknown { snapshot: self.name }
    }
}

#[derive(Debug)]
struct Reading {
    /// Gone once it was read to its end, so that the machine need not keep the old state.
    reader: Option<SnapshotReader>,
    /// Where the next piece starts.
    offset: u64,
    /// The piece that was read last, in case its answer was lost.
    last_piece: Option<SnapshotChunk>,
}

impl Reading {
    fn read(&mut self, offset: u64) -> Result<Result<SnapshotChunk, SnapshotError>, MachineError> {
        if let Some(again) = self.last_piece.as_ref().filter(|piece| piece.offset == offset) {
            return Ok(Ok(again.clone()));
        }
        let Some(reader) = self.reader.as_mut().filter(|_| offset == self.offset) else {
            return Ok(Err(SnapshotError::BadOffset { expected: self.offset, got: offset }));
        };
        let piece = reader.next_piece(MAX_CHUNK_BYTES);
        let bytes = Bytes::from(piece.map_err(MachineError::storage("reading a snapshot"))?);
        let last = reader.is_at_end();
        if last {
            self.reader = None;
        }
        self.offset += bytes.len() as u64;
        let checksum = crc32c::crc32c(&bytes);
        let chunk = SnapshotChunk { offset, bytes, checksum, last };
        Ok(Ok(self.last_piece.insert(chunk).clone()))
    }
}
