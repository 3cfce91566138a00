//! Snapshots in pieces: pinning one to be read, and loading one into a new place.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Host, PinnedSnapshot};
use crate::machine::{LogId, Machine, MachineError, RestoreFailure};
use crate::rpc::{
    BeginRestore, BeginSnapshot, FinishRestore, Info, MAX_CHUNK_BYTES, ReadSnapshot, RestoreError,
    Restoring, SnapshotError, SnapshotInfo, WriteRestore,
};
use crate::snapshot::{ParseError, SnapshotParser, SnapshotReader};

/// A pinned snapshot that nobody reads for so long is let go: a store keeps every value that was replaced since it was pinned.
pub const SNAPSHOT_IDLE: Duration = Duration::from_mins(5);

/// The snapshot that may be read. It is held by whoever began it, and gone when they are.
#[derive(Debug)]
pub(super) struct Pinned {
    snapshot: Weak<PinnedSnapshot>,
    used: Instant,
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
    /// Pins the present state and lets go of the snapshot before. What is returned holds the state until it is dropped, is to be
    /// read off this thread, and is let go by whatever makes it useless: another snapshot, a newer boot, a restore, or
    /// [`SNAPSHOT_IDLE`].
    ///
    /// # Errors
    /// The machine is broken.
    pub fn begin_snapshot(
        &mut self,
        now: Instant,
        request: &BeginSnapshot,
    ) -> Result<Result<(SnapshotInfo, Arc<PinnedSnapshot>), SnapshotError>, MachineError> {
        if let Err(refused) = self.check_boot(request.boot) {
            return Ok(Err(refused.into()));
        }
        self.let_go_of_snapshot();
        // Raft drops the log below a snapshot: what it holds is not to be asked for again after a crash.
        self.machine.sync()?;
        let applied = self.machine.applied();
        let reader = SnapshotReader::new(self.machine.name(), applied, self.machine.snapshot()?);
        let snapshot = Arc::new(PinnedSnapshot::new(self.name_transfer(), reader));
        self.snapshot = Some(Pinned { snapshot: Arc::downgrade(&snapshot), used: now });
        let info = SnapshotInfo {
            snapshot: snapshot.name(),
            applied_term: applied.term,
            applied_index: applied.index,
        };
        Ok(Ok((info, snapshot)))
    }

    /// The pinned snapshot, to read a piece of it.
    ///
    /// # Errors
    /// The caller may not read it (now), or there is none of that name.
    pub fn pinned_snapshot(
        &mut self,
        now: Instant,
        request: &ReadSnapshot,
    ) -> Result<Arc<PinnedSnapshot>, SnapshotError> {
        self.check_boot(request.boot)?;
        let unknown = SnapshotError::Unknown { snapshot: request.snapshot };
        let Some(pinned) = &mut self.snapshot else { return Err(unknown) };
        let snapshot = pinned.snapshot.upgrade();
        let named = snapshot.filter(|snapshot| snapshot.name() == request.snapshot);
        pinned.used = now;
        named.ok_or(unknown)
    }

    /// When the pinned snapshot counts as abandoned.
    pub(super) fn snapshot_expiry(&self) -> Option<Instant> {
        let pinned = self.snapshot.as_ref()?;
        Some(pinned.used + SNAPSHOT_IDLE)
    }

    pub(super) fn let_go_of_snapshot(&mut self) {
        let pinned = self.snapshot.take();
        if let Some(snapshot) = pinned.and_then(|pinned| pinned.snapshot.upgrade()) {
            snapshot.let_go();
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
        self.restore = None;
        if let Err(failure) = self.machine.begin_restore() {
            return self.give_up_restore(failure).map(Err);
        }
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
            self.let_go_of_snapshot();
            self.machine.finish_restore(restore.applied)?;
        }
        Ok(())
    }

    fn give_up_restore(&mut self, failure: RestoreFailure) -> Result<RestoreError, MachineError> {
        self.restore = None;
        let refused = match failure {
            RestoreFailure::BadSnapshot(reason) => RestoreError::BadSnapshot { reason },
            RestoreFailure::NoPlace(error) => RestoreError::NoPlace { reason: error.to_string() },
            // Nothing is removed: it may be in use after the next start.
            RestoreFailure::Machine(error) => return Err(error),
        };
        self.machine.abandon_restore();
        Ok(refused)
    }

    /// Lets go of the pinned snapshot and of a restore under way.
    pub(super) fn abandon_transfers(&mut self) {
        self.let_go_of_snapshot();
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
