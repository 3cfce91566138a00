//! The real engine in memory, over a disk that is a value, and with a digest that is counted along.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use state_machine::kv::{Changes, Engine, MemoryEngine, Pair, Pairs};
use state_machine::machine::{LogId, MachineError, RestoreFailure};

use super::super::trace::digest;
use super::disk::MachineDisk;

/// What the world sees of a machine from outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sight {
    /// Newest applied entry.
    pub applied: u64,
    /// Digest of the state there.
    pub digest: u64,
    /// Whether another state is being loaded.
    pub restores: bool,
}

/// The world's look at a machine.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<Mutex<Sight>>);

impl View {
    /// What is to be seen now.
    pub fn look(&self) -> Sight {
        *self.sight()
    }

    fn sight(&self) -> MutexGuard<'_, Sight> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine.
#[derive(Debug)]
pub struct WorldEngine {
    memory: MemoryEngine,
    disk: MachineDisk,
    digest: u64,
    view: View,
}

impl WorldEngine {
    /// Opens what the disk holds.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn open(disk: MachineDisk, view: View) -> Result<Self, MachineError> {
        let (pairs, applied) = disk.load()?;
        let mut engine = Self { memory: MemoryEngine::new(), disk, digest: 0, view };
        let loaded = engine.memory.begin_restore();
        let loaded = loaded.and_then(|()| engine.memory.write_restore(pairs.into_iter().collect()));
        loaded
            .and_then(|()| engine.memory.finish_restore(applied))
            .expect("memory takes whatever it is given");
        engine.weigh_all();
        Ok(engine)
    }

    fn show(&self) {
        let mut sight = self.view.sight();
        (sight.applied, sight.digest) = (self.memory.applied().index, self.digest);
    }

    fn weigh_all(&mut self) {
        let pairs = self.memory.pairs_from(Bound::Unbounded);
        let weights = pairs.flatten().map(|(key, value)| weight(&key, &value));
        self.digest = weights.fold(0, u64::wrapping_add);
        self.show();
    }

    fn make_room(&self) -> Result<(), RestoreFailure> {
        self.disk.make_room().map_err(|error| {
            if self.disk.is_dead() {
                RestoreFailure::Machine(error)
            } else {
                RestoreFailure::NoPlace(error)
            }
        })
    }

    fn weigh(&self, key: &[u8]) -> Result<u64, MachineError> {
        Ok(self.memory.get(key)?.map_or(0, |value| weight(key, &value)))
    }
}

fn weight(key: &[u8], value: &[u8]) -> u64 {
    digest(key).rotate_left(17) ^ digest(value).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Engine for WorldEngine {
    fn applied(&self) -> LogId {
        self.memory.applied()
    }

    fn durable_index(&self) -> u64 {
        self.disk.durable_index()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MachineError> {
        self.memory.get(key)
    }

    fn write(&mut self, changes: Changes, applied: LogId) -> Result<(), MachineError> {
        self.disk.write(changes.clone(), applied)?;
        for (key, change) in &changes {
            let after = change.as_ref().map_or(0, |value| weight(key, value));
            self.digest = self.digest.wrapping_sub(self.weigh(key)?).wrapping_add(after);
        }
        self.memory.write(changes, applied)?;
        self.show();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), MachineError> {
        self.disk.sync()
    }

    fn pairs_from(&self, from: Bound<&[u8]>) -> Pairs {
        self.memory.pairs_from(from)
    }

    fn begin_restore(&mut self) -> Result<(), RestoreFailure> {
        self.make_room()?;
        self.view.sight().restores = true;
        self.memory.begin_restore()
    }

    fn write_restore(&mut self, pairs: Vec<Pair>) -> Result<(), RestoreFailure> {
        self.make_room()?;
        self.memory.write_restore(pairs)
    }

    fn finish_restore(&mut self, applied: LogId) -> Result<(), RestoreFailure> {
        self.memory.finish_restore(applied)?;
        let pairs = self.memory.pairs_from(Bound::Unbounded);
        let pairs = pairs.collect::<Result<BTreeMap<_, _>, _>>()?;
        self.disk.replace(pairs, applied)?;
        self.view.sight().restores = false;
        self.weigh_all();
        Ok(())
    }

    fn abandon_restore(&mut self) {
        self.view.sight().restores = false;
        self.memory.abandon_restore();
    }
}
