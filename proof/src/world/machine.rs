//! A state machine's process: the real host and the real key-value machine, over an engine whose disk is a value.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use state_machine::attachment::{Attachment, AttachmentStore};
use state_machine::host::{Host, PinnedSnapshot};
use state_machine::kv::{Changes, Engine, Kv, Pair, Pairs};
use state_machine::machine::{LogId, MachineError, RestoreFailure};

use super::trace::digest;

type Map = Arc<BTreeMap<Bytes, Bytes>>;

/// Whose call an answer belongs to: start of raft, attachment, and when it has to be there at the earliest.
pub type Ticket = (u64, u64);

/// What survives the machine's process: the state and its applied entry, together by construction.
#[derive(Debug, Default)]
pub struct MachineDisk {
    state: State,
    attachment: Option<Attachment>,
}

#[derive(Clone, Debug, Default)]
struct State {
    pairs: Map,
    applied: LogId,
    digest: u64,
}

/// A machine's disk, shared with the world.
pub type SharedDisk = Arc<Mutex<MachineDisk>>;

fn lock(disk: &SharedDisk) -> MutexGuard<'_, MachineDisk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The process.
pub struct MachineProcess {
    /// Between contract and machine.
    pub host: Host<Kv<WorldEngine>, Ticket>,
    /// A snapshot that is being read.
    pub pinned: Option<Arc<PinnedSnapshot>>,
    view: Arc<Mutex<State>>,
}

impl MachineProcess {
    /// Starts on its disk; without one everything is forgotten whenever it ends.
    ///
    /// # Errors
    /// Never, as this disk does not fail.
    pub fn start(disk: Option<&SharedDisk>) -> Result<Self, MachineError> {
        let forgotten = SharedDisk::default();
        let shared = disk.unwrap_or(&forgotten);
        let state = lock(shared).state.clone();
        let view = Arc::new(Mutex::new(state.clone()));
        let engine =
            WorldEngine { state, restoring: None, disk: disk.cloned(), view: Arc::clone(&view) };
        let attachments = Box::new(SharedAttachment(Arc::clone(shared)));
        Ok(Self { host: Host::new(Kv::new(engine), attachments)?, pinned: None, view })
    }

    /// Newest applied entry, and a digest of the state there.
    pub fn place(&self) -> (u64, u64) {
        let state = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        (state.applied.index, state.digest)
    }

    /// All that it holds.
    pub fn pairs(&self) -> Map {
        Arc::clone(&self.view.lock().unwrap_or_else(PoisonError::into_inner).pairs)
    }
}

/// An engine in memory that counts the digest of its state along, and that is made durable as a whole.
#[derive(Debug)]
pub struct WorldEngine {
    state: State,
    restoring: Option<BTreeMap<Bytes, Bytes>>,
    disk: Option<SharedDisk>,
    /// The same, for the world to look at.
    view: Arc<Mutex<State>>,
}

impl WorldEngine {
    fn show(&self) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = self.state.clone();
    }
}

fn weight(key: &[u8], value: &[u8]) -> u64 {
    digest(key).rotate_left(17) ^ digest(value).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl State {
    fn set(&mut self, key: &Bytes, value: Option<&Bytes>) {
        let pairs = Arc::make_mut(&mut self.pairs);
        let before = match value {
            Some(value) => pairs.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)),
            None => pairs.remove(key),
        };
        let weigh = |value: &Bytes| weight(key, value);
        self.digest = self.digest.wrapping_sub(before.as_ref().map_or(0, weigh));
        self.digest = self.digest.wrapping_add(value.map_or(0, weigh));
    }
}

impl Engine for WorldEngine {
    fn applied(&self) -> LogId {
        self.state.applied
    }

    fn durable_index(&self) -> u64 {
        self.disk.as_ref().map_or(0, |disk| lock(disk).state.applied.index)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MachineError> {
        Ok(self.state.pairs.get(key).cloned())
    }

    fn write(&mut self, changes: Changes, applied: LogId) -> Result<(), MachineError> {
        // The look from outside must not make the map a shared one.
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
        for (key, value) in &changes {
            self.state.set(key, value.as_ref());
        }
        self.state.applied = applied;
        self.show();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), MachineError> {
        if let Some(disk) = &self.disk {
            lock(disk).state = self.state.clone();
        }
        Ok(())
    }

    fn pairs_from(&self, from: Bound<&[u8]>) -> Pairs {
        let pairs = self.state.pairs.range::<[u8], _>((from, Bound::Unbounded));
        let pairs: Vec<Pair> = pairs.map(|(key, value)| (key.clone(), value.clone())).collect();
        Box::new(pairs.into_iter().map(Ok))
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
        let pairs = self.restoring.take().unwrap_or_default();
        let weights = pairs.iter().map(|(key, value)| weight(key, value));
        let digest = weights.fold(0, u64::wrapping_add);
        self.state = State { pairs: Arc::new(pairs), applied, digest };
        self.show();
        Ok(self.sync()?)
    }

    fn abandon_restore(&mut self) {
        self.restoring = None;
    }
}

struct SharedAttachment(SharedDisk);

impl AttachmentStore for SharedAttachment {
    fn load(&self) -> Result<Option<Attachment>, MachineError> {
        Ok(lock(&self.0).attachment)
    }

    fn store(&mut self, attachment: &Attachment) -> Result<(), MachineError> {
        lock(&self.0).attachment = Some(*attachment);
        Ok(())
    }
}
