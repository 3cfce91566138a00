//! Snapshots in pieces: reading the pinned one, and loading one into a new place.

use bytes::Bytes;

use super::Host;
use crate::machine::{LogId, Machine, MachineError, RestoreFailure};
use crate::rpc::{
    BeginRestore, BeginSnapshot, FinishRestore, Info, MAX_CHUNK_BYTES, ReadSnapshot, RestoreError,
    Restoring, SnapshotChunk, SnapshotError, SnapshotInfo, WriteRestore,
};
use crate::snapshot::{ParseError, SnapshotParser, SnapshotReader};

/// A snapshot that is being read.
#[derive(Debug)]
pub(super) struct PinnedSnapshot {
    name: u64,
    /// Gone once it was read to its end, so that the machine need not keep the old state.
    reader: Option<SnapshotReader>,
    /// Where the next piece starts.
    offset: u64,
    /// The piece that was read last, in case its answer was lost.
    last_piece: Option<SnapshotChunk>,
}

impl PinnedSnapshot {
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

/// A snapshot that is being loaded.
#[derive(Debug)]
pub(super) struct Restore {
    state: Restoring,
    applied: LogId,
    parser: SnapshotParser,
}

impl Restore {
    /// Checks a piece; `false` when it is there already.
    fn check(&self, piece: &WriteRestore) -> Result<bool, RestoreError> {
        let offset = piece.offset;
        let whole =
            piece.bytes.len() <= MAX_CHUNK_BYTES && crc32c::crc32c(&piece.bytes) == piece.checksum;
        if !whole {
            return Err(RestoreError::BadChunk { offset });
        }
        if offset.saturating_add(piece.bytes.len() as u64) <= self.state.offset {
            return Ok(false);
        }
        if offset != self.state.offset {
            return Err(RestoreError::BadOffset { expected: self.state.offset, got: offset });
        }
        Ok(true)
    }
}

impl From<ParseError> for RestoreFailure {
    fn from(error: ParseError) -> Self {
        RestoreFailure::BadSnapshot(error.to_string())
    }
}

impl<M: Machine, T> Host<M, T> {
    /// Pins the present state and forgets the snapshot before.
    ///
    /// # Errors
    /// The machine is broken.
    pub fn begin_snapshot(
        &mut self,
        request: &BeginSnapshot,
    ) -> Result<Result<SnapshotInfo, SnapshotError>, MachineError> {
        if let Err(refused) = self.check_boot(request.boot) {
            return Ok(Err(refused.into()));
        }
        let applied = self.machine.applied();
        let name = self.name_transfer();
        let reader = SnapshotReader::new(self.machine.name(), applied, self.machine.snapshot()?);
        self.snapshot =
            Some(PinnedSnapshot { name, reader: Some(reader), offset: 0, last_piece: None });
        let info = SnapshotInfo {
            snapshot: name,
            applied_term: applied.term,
            applied_index: applied.index,
        };
        Ok(Ok(info))
    }

    /// Reads the next piece, or the last one again.
    ///
    /// # Errors
    /// The machine is broken.
    pub fn read_snapshot(
        &mut self,
        request: &ReadSnapshot,
    ) -> Result<Result<SnapshotChunk, SnapshotError>, MachineError> {
        if let Err(refused) = self.check_boot(request.boot) {
            return Ok(Err(refused.into()));
        }
        match self.snapshot.as_mut().filter(|pinned| pinned.name == request.snapshot) {
            Some(pinned) => pinned.read(request.offset),
            None => Ok(Err(SnapshotError::Unknown { snapshot: request.snapshot })),
        }
    }

    /// Prepares a new place and throws away a restore before.
    ///
    /// # Errors
    /// The machine is broken.
    pub fn begin_restore(
        &mut self,
        request: &BeginRestore,
    ) -> Result<Result<Restoring, RestoreError>, MachineError> {
        if let Err(refused) = self.check_boot(request.boot) {
            return Ok(Err(refused.into()));
        }
        let snapshot_index = request.applied_index;
        let applied_index = self.machine.applied().index;
        if snapshot_index < applied_index {
            return Ok(Err(RestoreError::Behind { snapshot_index, applied_index }));
        }
        self.machine.begin_restore()?;
        let applied = LogId { term: request.applied_term, index: snapshot_index };
        let state = Restoring { restore: self.name_transfer(), offset: 0 };
        let parser = SnapshotParser::new(self.machine.name(), applied);
        self.restore = Some(Restore { state, applied, parser });
        Ok(Ok(state))
    }

    /// Takes the next piece; one that is there already does no harm.
    ///
    /// # Errors
    /// The machine is broken.
    pub fn write_restore(
        &mut self,
        request: &WriteRestore,
    ) -> Result<Result<Restoring, RestoreError>, MachineError> {
        match self.check_piece(request) {
            Err(refused) => return Ok(Err(refused)),
            Ok(false) => {}
            Ok(true) => {
                let written = self.load_piece(&request.bytes);
                if let Err(failure) = written {
                    return self.give_up_restore(failure).map(Err);
                }
            }
        }
        let unknown = RestoreError::Unknown { restore: request.restore };
        Ok(self.restore.as_ref().map(|restore| restore.state).ok_or(unknown))
    }

    fn check_piece(&self, request: &WriteRestore) -> Result<bool, RestoreError> {
        self.check_boot(request.boot)?;
        self.restore_named(request.restore)?.check(request)
    }

    fn restore_named(&self, restore: u64) -> Result<&Restore, RestoreError> {
        let named = self.restore.as_ref().filter(|under_way| under_way.state.restore == restore);
        named.ok_or(RestoreError::Unknown { restore })
    }

    fn load_piece(&mut self, bytes: &Bytes) -> Result<(), RestoreFailure> {
        if let Some(restore) = &mut self.restore {
            let body = restore.parser.push(bytes)?;
            self.machine.write_restore(&body)?;
            restore.state.offset += bytes.len() as u64;
        }
        Ok(())
    }

    /// Puts the loaded state in the place of the present one. Batches that wait stay: they may follow the snapshot.
    ///
    /// # Errors
    /// The machine is broken.
    pub fn finish_restore(
        &mut self,
        request: &FinishRestore,
    ) -> Result<Result<Info, RestoreError>, MachineError> {
        let (restore, expected) = (request.restore, request.snapshot_bytes);
        let checked = self
            .check_boot(request.boot)
            .map_err(RestoreError::from)
            .and_then(|()| self.restore_named(restore).map(|restore| restore.state.offset));
        match checked {
            Err(refused) => return Ok(Err(refused)),
            Ok(got) if got != expected => {
                return Ok(Err(RestoreError::BadOffset { expected: got, got: expected }));
            }
            Ok(_) => {}
        }
        match self.switch_to_restored() {
            Ok(()) => Ok(Ok(self.info())),
            Err(failure) => self.give_up_restore(failure).map(Err),
        }
    }

    fn switch_to_restored(&mut self) -> Result<(), RestoreFailure> {
        if let Some(restore) = self.restore.take() {
            restore.parser.finish()?;
            // Entries may have been applied since the restore began.
            if restore.applied.index < self.machine.applied().index {
                let reason = "the machine has applied more than it holds meanwhile";
                return Err(RestoreFailure::BadSnapshot(reason.to_owned()));
            }
            // It reads from the state that goes away.
            self.snapshot = None;
            self.machine.finish_restore(restore.applied)?;
        }
        Ok(())
    }

    fn give_up_restore(&mut self, failure: RestoreFailure) -> Result<RestoreError, MachineError> {
        self.restore = None;
        self.machine.abandon_restore();
        match failure {
            RestoreFailure::BadSnapshot(reason) => Ok(RestoreError::BadSnapshot { reason }),
            RestoreFailure::Machine(error) => Err(error),
        }
    }

    /// Lets go of the pinned snapshot and of a restore under way.
    pub(super) fn abandon_transfers(&mut self) {
        self.snapshot = None;
        if self.restore.take().is_some() {
            self.machine.abandon_restore();
        }
    }

    fn name_transfer(&mut self) -> u64 {
        let name = self.next_transfer;
        self.next_transfer += 1;
        name
    }
}
