//! What the key-value machine needs of a store.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::machine::{LogId, MachineError, RestoreFailure};

/// Keys with their new values; `None` removes the key.
pub type Changes = BTreeMap<Bytes, Option<Bytes>>;

/// A key and its value.
pub type Pair = (Bytes, Bytes);

/// Every pair of a pinned state, keys ascending.
pub type Pairs = Box<dyn Iterator<Item = Result<Pair, MachineError>> + Send>;

/// An ordered map from bytes to bytes that also holds the applied log id. Errors are final: the store is not used after one.
pub trait Engine: Send + 'static {
    /// The newest entry whose changes are in.
    fn applied(&self) -> LogId;

    /// Index of the newest entry that survives a power failure; 0 in memory.
    fn durable_index(&self) -> u64;

    /// The value of a key.
    ///
    /// # Errors
    /// The store is broken.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MachineError>;

    /// Makes all changes and moves the applied log id, as one. What was not synced may be lost when the process dies.
    ///
    /// # Errors
    /// The store is broken; after a restart the changes up to some write are there, whole, and the applied log id says which.
    fn write(&mut self, changes: Changes, applied: LogId) -> Result<(), MachineError>;

    /// Makes everything written durable.
    ///
    /// # Errors
    /// The store is broken.
    fn sync(&mut self) -> Result<(), MachineError>;

    /// Pins the present state and walks it, from this key on.
    fn pairs_from(&self, from: Bound<&[u8]>) -> Pairs;

    /// Prepares an empty place beside the present state, and throws away one that was prepared before.
    ///
    /// # Errors
    /// [`RestoreFailure`]; unless the store is broken the present state is as before, here and in the next two.
    fn begin_restore(&mut self) -> Result<(), RestoreFailure>;

    /// Adds pairs to the new place; keys ascend from call to call.
    ///
    /// # Errors
    /// [`RestoreFailure`].
    fn write_restore(&mut self, pairs: Vec<Pair>) -> Result<(), RestoreFailure>;

    /// Puts the new place in the stead of the present state, durably and at once.
    ///
    /// # Errors
    /// [`RestoreFailure`]; after a restart it is the old state or the new one, never a mixture.
    fn finish_restore(&mut self, applied: LogId) -> Result<(), RestoreFailure>;

    /// Throws the new place away, if there is one.
    fn abandon_restore(&mut self);
}
