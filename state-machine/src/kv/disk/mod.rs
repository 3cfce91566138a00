//! The [`Engine`] on disk, over fjall.
//!
//! Layout of its directory:
//!
//! | name | content |
//! |---|---|
//! | `current` | number of the store in use, in decimal |
//! | `store-N` | a fjall database with the keyspace `kv` |
//!
//! A restore fills the store N + 1 and then replaces `current` by a rename: after any crash one whole store is in use, and others are
//! removed at the next start. What is applied is gathered in memory and goes to the store as one batch when it is synced, or when there is much
//! of it: a process that dies goes back to the batch before. In the keyspace, key `0x00` holds the applied log id (term, index; 8 bytes each, little-endian), and
//! `0x01` followed by a user's key holds that key's value. Both stand in one keyspace and one write batch, so they agree after any
//! crash; a keyspace of its own for the log id would be flushed rarely and keep old journals alive.

mod directory;
mod loading;
mod overlay;
mod store;

use std::ops::Bound;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fjall::PersistMode;

use super::engine::{Changes, Engine, Pair, Pairs};
use crate::attachment::sync_directory;
use crate::crash_point::crash_point;
use crate::machine::{LogId, MachineError, RestoreFailure};
use directory::{current_store, read_current, remove_other_stores, write_current};
use loading::Loading;
use overlay::Overlay;
use store::Store;

/// A store in a directory of its own.
pub struct DiskEngine {
    directory: PathBuf,
    store: Store,
    /// What of `applied` is not in the store yet.
    overlay: Overlay,
    applied: LogId,
    /// The applied log id of the store.
    flushed: LogId,
    durable_index: u64,
    restoring: Option<Loading>,
}

impl DiskEngine {
    /// Opens the store in that directory, which exists; makes an empty one in an empty directory. What is found is made durable.
    ///
    /// # Errors
    /// The storage failed, or what it holds is damaged.
    pub fn open(directory: &Path) -> Result<DiskEngine, MachineError> {
        let number = current_store(directory)?;
        remove_other_stores(directory, number)
            .map_err(MachineError::storage("removing an unfinished restore"))?;
        let store = Store::open(directory, number)?;
        let applied = store.applied()?;
        store.sync(PersistMode::SyncAll)?;
        sync_directory(directory).map_err(MachineError::storage("opening the store"))?;
        let durable_index = applied.index;
        Ok(DiskEngine {
            directory: directory.to_owned(),
            store,
            overlay: Overlay::default(),
            applied,
            flushed: applied,
            durable_index,
            restoring: None,
        })
    }

    /// Brings the store up to date, as one batch.
    fn flush(&mut self) -> Result<(), MachineError> {
        if self.flushed != self.applied {
            self.store.write(self.overlay.changes(), self.applied)?;
            self.overlay.clear();
            self.flushed = self.applied;
        }
        Ok(())
    }

    /// Makes the store of that number the one in use after the next start.
    fn switch_to(&self, number: u64) -> Result<(), RestoreFailure> {
        let doing = "switching to the restored store";
        // Its name is to be there before it is spoken of.
        let named = sync_directory(&self.directory);
        named.map_err(|error| RestoreFailure::NoPlace(MachineError::storage(doing)(error)))?;
        let Err(error) = write_current(&self.directory, number) else { return Ok(()) };
        let error = MachineError::storage(doing)(error);
        // Once it is renamed and not known to be durable, nobody can tell which one a power failure leaves.
        let is_old = read_current(&self.directory)? == Some(self.store.number);
        Err(if is_old { RestoreFailure::NoPlace(error) } else { error.into() })
    }
}

impl std::fmt::Debug for DiskEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("DiskEngine");
        debug.field("path", &self.store.path).field("applied", &self.applied);
        debug.field("durable_index", &self.durable_index).finish_non_exhaustive()
    }
}

impl Engine for DiskEngine {
    fn applied(&self) -> LogId {
        self.applied
    }

    fn durable_index(&self) -> u64 {
        self.durable_index
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MachineError> {
        match self.overlay.get(key) {
            Some(change) => Ok(change.clone()),
            None => self.store.get(key),
        }
    }

    fn write(&mut self, changes: Changes, applied: LogId) -> Result<(), MachineError> {
        self.overlay.add(changes);
        self.applied = applied;
        if self.overlay.is_full() { self.flush() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), MachineError> {
        self.flush()?;
        self.store.sync(PersistMode::SyncData)?;
        self.durable_index = self.applied.index;
        Ok(())
    }

    fn pairs_from(&self, from: Bound<&[u8]>) -> Pairs {
        self.overlay.over(self.store.pairs_from(from), from)
    }

    fn begin_restore(&mut self) -> Result<(), RestoreFailure> {
        self.abandon_restore();
        // A restore that could not be removed must not shine through the next one.
        remove_other_stores(&self.directory, self.store.number)
            .map_err(MachineError::storage("removing an unfinished restore"))
            .map_err(RestoreFailure::NoPlace)?;
        let begun = Loading::begin(&self.directory, self.store.number + 1);
        self.restoring = Some(begun.map_err(RestoreFailure::NoPlace)?);
        Ok(())
    }

    fn write_restore(&mut self, pairs: Vec<Pair>) -> Result<(), RestoreFailure> {
        let Some(loading) = &mut self.restoring else { return Ok(()) };
        loading.push(pairs).map_err(RestoreFailure::NoPlace)
    }

    fn finish_restore(&mut self, applied: LogId) -> Result<(), RestoreFailure> {
        let Some(loading) = &mut self.restoring else { return Ok(()) };
        loading.complete(applied).map_err(RestoreFailure::NoPlace)?;
        let number = loading.number();
        self.switch_to(number)?;
        let Some(loading) = self.restoring.take() else { return Ok(()) };
        let old = std::mem::replace(&mut self.store, loading.into_store());
        self.overlay.clear();
        self.applied = applied;
        self.flushed = applied;
        self.durable_index = applied.index;
        crash_point("switched");
        old.remove();
        Ok(())
    }

    fn abandon_restore(&mut self) {
        if let Some(loading) = self.restoring.take() {
            loading.into_store().remove();
        }
    }
}
