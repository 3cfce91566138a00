//! Snapshots back from their files.

use std::path::PathBuf;

use bytes::Bytes;

use super::SnapshotError;
use super::file::Reader;
use super::frame::Kind;
use crate::wal::{DiskFile, During};

/// The machine's stream of a snapshot, piece by piece. It goes on when the file is pruned meanwhile.
pub struct MachineReader {
    pub(super) reader: Reader,
}

impl MachineReader {
    /// The next piece, of at most [`PIECE_BYTES`](super::PIECE_BYTES). None means that the whole file was read and is
    /// whole: before that, what was handed out must not be relied on.
    ///
    /// # Errors
    /// The file is damaged, or the disk refuses.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        while let Some((kind, piece)) = self.reader.next_piece()? {
            if kind == Kind::Machine {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

/// The bytes of a snapshot's file, to send them. It goes on when the file is pruned meanwhile.
pub struct RawReader {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    bytes: u64,
}

impl RawReader {
    pub(super) fn new(reader: Reader, path: PathBuf) -> Self {
        Self { bytes: reader.bytes(), file: reader.into_file(), path }
    }

    /// At most `max_bytes` from `offset` on; fewer at the end, none behind it. They are not checked here: whoever receives
    /// them does.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn read_at(&self, offset: u64, max_bytes: usize) -> Result<Bytes, SnapshotError> {
        let left = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(max_bytes)];
        if bytes.is_empty() {
            return Ok(Bytes::new());
        }
        self.file.read_at(&mut bytes, offset).during("read", &self.path)?;
        Ok(bytes.into())
    }
}
