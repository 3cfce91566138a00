//! What a replicated program is: [`Machine`]. [`Host`](crate::host::Host) calls it, on a thread of its own.

use std::io::{self, Read};

use bytes::Bytes;
use thiserror::Error;

use crate::entries::Entry;
use crate::rpc::{CommandResult, Notice, Verdict};

/// Place of an entry in the Raft log. `LogId::default()` (0, 0) is the place before the first entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogId {
    /// Term in which the entry was appended.
    pub term: u64,
    /// Index of the entry; the first is 1.
    pub index: u64,
}

/// A deterministic program whose state every node holds.
///
/// Every node applies the same entries in the same order, and must come to the same state and the same results. So `apply` may use
/// nothing but its arguments and the state: no clock (an entry carries the leader's time), no random numbers, no environment, no
/// iteration over a hash map, no floating point that another processor rounds differently, nothing from [`Machine::notify`]. It
/// refuses a bad command with [`CommandResult::Refused`] and an unchanged state; an error is only for a machine that is broken
/// (a disk, say), and it ends the process.
///
/// The applied log id is part of the state: a durable machine stores it atomically with what the entries changed, so that after
/// any crash the two agree and raft continues from there.
pub trait Machine: Send + 'static {
    /// What kind of machine it is, at most 255 bytes; a snapshot is restored only by a machine of the same name.
    fn name(&self) -> &'static str;

    /// The machine's own version.
    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    /// The newest applied entry.
    fn applied(&self) -> LogId;

    /// Index of the newest entry that survives a power failure; 0 for a machine in memory.
    fn durable_index(&self) -> u64;

    /// Applies entries in order; the first is entry `applied().index + 1`. Returns one result for each, and
    /// [`CommandResult::Skipped`] for those without a command. What was applied since the last sync may be lost when the process
    /// dies: raft has it all and feeds it again, from `applied` on as it is found.
    ///
    /// # Errors
    /// The machine is broken. Nothing of this call may show after a restart, or all of it up to some entry and the applied log id
    /// with it.
    fn apply(&mut self, entries: &[Entry]) -> Result<Vec<CommandResult>, MachineError>;

    /// Answers a read.
    ///
    /// # Errors
    /// The machine is broken.
    fn query(&self, query: &Bytes) -> Result<CommandResult, MachineError>;

    /// Makes everything applied durable; afterwards `durable_index() == applied().index`, save for a machine in memory.
    ///
    /// # Errors
    /// The machine is broken. A failed sync is never tried again.
    fn sync(&mut self) -> Result<(), MachineError>;

    /// The present state as a stream of bytes. It stays as it is while entries are applied, and it is read on another thread
    /// meanwhile. Dropping it lets go of whatever it keeps.
    ///
    /// # Errors
    /// The machine is broken.
    fn snapshot(&self) -> Result<Box<dyn Read + Send>, MachineError>;

    /// Whether it would like a snapshot to be taken soon, because replaying its log has become dearer than loading its state, say.
    /// Raft hears it with the answer to each batch, takes it for a hint, and makes its own choice of the moment.
    fn wants_snapshot(&self) -> bool {
        false
    }

    /// Prepares an empty new place beside the present state, and throws away one that was prepared before.
    ///
    /// # Errors
    /// [`RestoreFailure`]; the present state is as before.
    fn begin_restore(&mut self) -> Result<(), RestoreFailure>;

    /// Adds the next bytes of a snapshot, cut anywhere, to the new place.
    ///
    /// # Errors
    /// [`RestoreFailure`]; the present state is as before.
    fn write_restore(&mut self, bytes: &[u8]) -> Result<(), RestoreFailure>;

    /// Puts the new place into the stead of the present state, durably and at once, with `applied` as its applied log id.
    ///
    /// # Errors
    /// [`RestoreFailure`]; unless the machine is broken the present state is as before.
    fn finish_restore(&mut self, applied: LogId) -> Result<(), RestoreFailure>;

    /// Throws the new place away, if there is one.
    fn abandon_restore(&mut self);

    /// A digest of the state, equal on all nodes at the same applied index; for machines that have one at hand.
    fn digest(&self) -> Option<[u8; 32]> {
        None
    }

    /// Whether a command makes sense, as far as that can be told before it is applied.
    fn validate(&self, command: &Bytes) -> Verdict {
        let _ = command;
        Verdict::Accepted
    }

    /// Hears what happened around the machine.
    fn notify(&mut self, notice: &Notice) {
        let _ = notice;
    }
}

/// A machine is broken: its process ends, and nothing that it was doing is acknowledged.
#[derive(Debug, Error)]
pub enum MachineError {
    /// The disk refused; the reason is not a matter of the data.
    #[error("storage failed while {doing}: {source}")]
    Storage {
        /// What was being done, as in "writing a batch".
        doing: &'static str,
        /// The system's or the store's word.
        source: io::Error,
    },
    /// What was read is not what was written.
    #[error(
        "damaged data while {doing}: {what}; move the machine's directory away to have it rebuilt from the other nodes"
    )]
    Damaged {
        /// What was being done.
        doing: &'static str,
        /// What is wrong, and where.
        what: String,
    },
}

impl MachineError {
    /// For `map_err`: the storage failed while doing something.
    pub fn storage<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> MachineError {
        move |error| MachineError::Storage { doing, source: error.into() }
    }
}

/// Why a restore did not go on.
#[derive(Debug, Error)]
pub enum RestoreFailure {
    /// The bytes are not a snapshot of this machine.
    #[error("{0}")]
    BadSnapshot(String),
    /// The new place cannot be written, for want of room most often. The present state is whole and in use.
    #[error("{0}")]
    NoPlace(MachineError),
    /// The machine is broken.
    #[error(transparent)]
    Machine(#[from] MachineError),
}
