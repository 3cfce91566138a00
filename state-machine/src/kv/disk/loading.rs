//! A store that is being filled from a snapshot, beside the one in use.

use std::path::Path;

use fjall::PersistMode;

use super::store::Store;
use crate::crash_point::crash_point;
use crate::kv::engine::{Changes, Pair};
use crate::machine::{LogId, MachineError};

/// Pairs are gathered up to so many bytes (8 MiB) and written at once: a table of the store for each, and no more in memory.
const LOAD_BYTES: usize = 8 << 20;

pub(super) struct Loading {
    store: Store,
    gathered: Vec<Pair>,
    gathered_bytes: usize,
}

impl Loading {
    /// An empty store of that number, which is of none yet.
    pub(super) fn begin(directory: &Path, number: u64) -> Result<Loading, MachineError> {
        crash_point("about to begin");
        let store = Store::open(directory, number)?;
        crash_point("begun");
        Ok(Loading { store, gathered: Vec::new(), gathered_bytes: 0 })
    }

    pub(super) fn number(&self) -> u64 {
        self.store.number
    }

    /// Adds pairs; keys ascend from call to call.
    pub(super) fn push(&mut self, pairs: Vec<Pair>) -> Result<(), MachineError> {
        self.gathered_bytes +=
            pairs.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        self.gathered.extend(pairs);
        if self.gathered_bytes >= LOAD_BYTES {
            self.write_gathered()?;
            crash_point("wrote some");
        }
        Ok(())
    }

    fn write_gathered(&mut self) -> Result<(), MachineError> {
        self.store.load(&self.gathered)?;
        self.gathered.clear();
        self.gathered_bytes = 0;
        Ok(())
    }

    /// Writes the rest and the applied log id, durably.
    pub(super) fn complete(&mut self, applied: LogId) -> Result<(), MachineError> {
        self.write_gathered()?;
        crash_point("wrote all");
        self.store.write(&Changes::new(), applied)?;
        crash_point("wrote the applied index");
        self.store.sync(PersistMode::SyncAll)?;
        crash_point("synced");
        Ok(())
    }

    pub(super) fn into_store(self) -> Store {
        self.store
    }
}
