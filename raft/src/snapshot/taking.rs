//! A snapshot in the making.

use std::sync::Arc;

use super::file::Growing;
use super::frame::{
    HEADER_BYTES, Head, Kind, MAX_HEAD_BYTES, MAX_IMAGE_BYTES, PIECE_BYTES, Progress,
};
use super::store::{Claim, Shared};
use super::{Description, SnapshotError, SnapshotId};
use crate::consensus::SnapshotMeta;

/// A snapshot of this node that is being written. Dropped before [`Taking::finish`], it leaves nothing.
pub struct Taking {
    shared: Arc<Shared>,
    output: Growing,
    id: SnapshotId,
    meta: SnapshotMeta,
    progress: Progress,
    /// The frame to come: room for its header, then what was pushed.
    frame: Vec<u8>,
    /// The file has its final name, or none.
    settled: bool,
    given_up: bool,
    _claim: Claim,
}

impl Taking {
    pub(super) fn start(
        shared: Arc<Shared>,
        meta: &SnapshotMeta,
        cluster: u128,
        image: &[u8],
    ) -> Result<Self, SnapshotError> {
        let claim = Claim::taking(&shared)?;
        let head = Head { id: shared.fresh_id(), cluster, meta: meta.clone() };
        let payload = head.encode();
        limited("the head", payload.len() as u64, MAX_HEAD_BYTES as u64)?;
        limited("the session table", image.len() as u64, MAX_IMAGE_BYTES)?;
        let mut taking = Self {
            output: shared.begin_taking()?,
            shared,
            id: head.id,
            meta: head.meta,
            progress: Progress::default(),
            frame: Vec::with_capacity(HEADER_BYTES + PIECE_BYTES),
            settled: false,
            given_up: false,
            _claim: claim,
        };
        taking.write(Kind::Head, &payload)?;
        for piece in image.chunks(PIECE_BYTES) {
            taking.write(Kind::Image, piece)?;
        }
        taking.frame.resize(HEADER_BYTES, 0);
        Ok(taking)
    }

    /// Adds to the machine's stream, in pieces of any length.
    ///
    /// # Errors
    /// The disk refused; this snapshot is over.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        while !bytes.is_empty() {
            let room = HEADER_BYTES + PIECE_BYTES - self.frame.len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.frame.extend_from_slice(now);
            bytes = later;
            if now.len() == room {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Ends the stream. The snapshot is durable and listed when this returns, and what is older than the newest few is
    /// gone.
    ///
    /// # Errors
    /// The disk refused; there is no such snapshot.
    pub fn finish(mut self) -> Result<Description, SnapshotError> {
        self.flush()?;
        let end = self.progress.end();
        self.write(Kind::End, &end[HEADER_BYTES..])?;
        self.output.sync()?;
        let bytes = self.progress.offset;
        let description = Description { id: self.id, meta: self.meta.clone(), bytes };
        self.shared.publish(&self.output.path, &description)?;
        self.settled = true;
        Ok(description)
    }

    /// Writes what was pushed as a frame.
    fn flush(&mut self) -> Result<(), SnapshotError> {
        if self.frame.len() == HEADER_BYTES {
            return Ok(());
        }
        let mut frame = std::mem::take(&mut self.frame);
        let written = self.write_frame(Kind::Machine, &mut frame);
        frame.truncate(HEADER_BYTES);
        self.frame = frame;
        written
    }

    fn write(&mut self, kind: Kind, payload: &[u8]) -> Result<(), SnapshotError> {
        let mut frame = vec![0; HEADER_BYTES];
        frame.extend_from_slice(payload);
        self.write_frame(kind, &mut frame)
    }

    fn write_frame(&mut self, kind: Kind, frame: &mut [u8]) -> Result<(), SnapshotError> {
        if self.given_up {
            return Err(SnapshotError::GivenUp);
        }
        let at = self.progress.offset;
        self.progress.seal(self.id, kind, frame);
        let written = self.output.write(frame, at);
        self.given_up = written.is_err();
        Ok(written?)
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        if !self.settled {
            self.shared.discard(&self.output.path);
        }
    }
}

fn limited(part: &'static str, bytes: u64, limit: u64) -> Result<(), SnapshotError> {
    if bytes <= limit { Ok(()) } else { Err(SnapshotError::TooLong { part, bytes, limit }) }
}
