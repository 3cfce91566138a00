//! An [`Engine`] in memory: nothing survives the process. The yardstick for the one on disk.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::engine::{Changes, Engine, Pair, Pairs};
use super::walk::WalkShared;
use crate::machine::{LogId, MachineError, RestoreFailure};

/// A map in memory. A pinned state shares the map until the next write, which then copies it.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    pairs: Arc<BTreeMap<Bytes, Bytes>>,
    applied: LogId,
    restoring: Option<BTreeMap<Bytes, Bytes>>,
}

impl MemoryEngine {
    /// An empty map.
    pub fn new() -> MemoryEngine {
        MemoryEngine::default()
    }
}

impl Engine for MemoryEngine {
    fn applied(&self) -> LogId {
        self.applied
    }

    fn durable_index(&self) -> u64 {
        0
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MachineError> {
        Ok(self.pairs.get(key).cloned())
    }

    fn write(&mut self, changes: Changes, applied: LogId) -> Result<(), MachineError> {
        let pairs = Arc::make_mut(&mut self.pairs);
        for (key, change) in changes {
            match change {
                // Copies of their own: slices would keep whole batches in memory.
                Some(value) => {
                    pairs.insert(Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value));
                }
                None => {
                    pairs.remove(&key);
                }
            }
        }
        self.applied = applied;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), MachineError> {
        Ok(())
    }

    fn pairs_from(&self, from: Bound<&[u8]>) -> Pairs {
        Box::new(WalkShared::new(Arc::clone(&self.pairs), from).map(Ok))
    }

    fn begin_restore(&mut self) -> Result<(), RestoreFailure> {
        self.restoring = Some(BTreeMap::new());
        Ok(())
    }

    fn write_restore(&mut self, pairs: Vec<Pair>) -> Result<(), RestoreFailure> {
        self.restoring.get_or_insert_default().extend(pairs);
        Ok(())
    }

    fn finish_restore(&mut self, applied: LogId) -> Result<(), RestoreFailure> {
        self.pairs = Arc::new(self.restoring.take().unwrap_or_default());
        self.applied = applied;
        Ok(())
    }

    fn abandon_restore(&mut self) {
        self.restoring = None;
    }
}
