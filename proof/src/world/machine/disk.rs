//! What survives a state machine's process, and how that fails.
//!
//! | fault | what happens |
//! |---|---|
//! | the process ends | of what was written since the last sync, the writes up to some one of them stay |
//! | refused | an operation is not done: the process ends, or a restore has no place |
//! | crash at an operation | the whole machine dies in it: it was done or not |
//! | full | a restore has no place |
//! | thrown away | an operator has moved the directory away: nothing is there any more |

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rand::RngExt;
use state_machine::attachment::{Attachment, AttachmentStore};
use state_machine::kv::Changes;
use state_machine::machine::{LogId, MachineError};

use super::super::random::Rng;

/// What goes wrong at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineFault {
    /// It is refused.
    Refuse,
    /// The whole machine dies.
    Crash,
}

/// A state machine's disk; clones are the same one.
#[derive(Clone)]
pub struct MachineDisk(Arc<Mutex<State>>);

struct State {
    /// Whether anything survives the process.
    keeps: bool,
    pairs: BTreeMap<Bytes, Bytes>,
    applied: LogId,
    /// Written, not synced, in order.
    unsynced: Vec<(Changes, LogId)>,
    attachment: Option<Attachment>,
    /// A fault to come, after so many operations that succeed.
    fault: Option<(u64, MachineFault)>,
    dead: bool,
    full: bool,
    rng: Rng,
}

impl std::fmt::Debug for MachineDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MachineDisk").finish_non_exhaustive()
    }
}

impl MachineDisk {
    /// An empty disk; one that keeps nothing is for a machine in memory.
    pub fn new(keeps: bool, rng: Rng) -> Self {
        Self(Arc::new(Mutex::new(State {
            keeps,
            pairs: BTreeMap::new(),
            applied: LogId::default(),
            unsynced: Vec::new(),
            attachment: None,
            fault: None,
            dead: false,
            full: false,
            rng,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything survives the process.
    pub fn keeps(&self) -> bool {
        self.state().keeps
    }

    /// Lets an operation fail, after so many that succeed.
    pub fn fail_after(&self, operations: u64, fault: MachineFault) {
        self.state().fault = Some((operations, fault));
    }

    /// The fault to come does not.
    pub fn forget_fault(&self) {
        self.state().fault = None;
    }

    /// Whether there is no room any more.
    pub fn fill(&self, full: bool) {
        self.state().full = full;
    }

    /// Whether the whole machine died at an operation.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Whose data it holds.
    pub fn attachment(&self) -> Option<Attachment> {
        self.state().attachment
    }

    /// The process is gone.
    pub fn process_ends(&self) {
        let mut state = self.state();
        (state.dead, state.fault) = (false, None);
        if !state.keeps {
            return state.clear();
        }
        let written = state.unsynced.len();
        let kept = state.rng.random_range(0..=written);
        state.unsynced.truncate(kept);
        state.flush();
    }

    /// An operator moves its directory away.
    pub fn throw_away(&self) {
        self.state().clear();
    }

    /// All that it holds.
    pub(super) fn load(&self) -> Result<(BTreeMap<Bytes, Bytes>, LogId), MachineError> {
        let mut state = self.state();
        state.begin("opening the store", |_| {})?;
        Ok((state.pairs.clone(), state.applied))
    }

    pub(super) fn durable_index(&self) -> u64 {
        let state = self.state();
        if state.keeps { state.applied.index } else { 0 }
    }

    pub(super) fn write(&self, changes: Changes, applied: LogId) -> Result<(), MachineError> {
        let mut state = self.state();
        if !state.keeps {
            return Ok(());
        }
        state.begin("writing", |state| state.unsynced.push((changes, applied)))
    }

    pub(super) fn sync(&self) -> Result<(), MachineError> {
        self.state().begin("syncing", State::flush)
    }

    /// A piece of a restore is put somewhere.
    pub(super) fn make_room(&self) -> Result<(), MachineError> {
        let mut state = self.state();
        if state.full {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(MachineError::storage("restoring")(full));
        }
        state.begin("restoring", |_| {})
    }

    /// Puts a restored state in the place of all that is there.
    pub(super) fn replace(
        &self,
        pairs: BTreeMap<Bytes, Bytes>,
        applied: LogId,
    ) -> Result<(), MachineError> {
        self.state().begin("switching to the restored store", |state| {
            state.unsynced.clear();
            (state.pairs, state.applied) = (pairs, applied);
        })
    }
}

impl State {
    /// Does an operation, or not.
    fn begin(
        &mut self,
        doing: &'static str,
        effect: impl FnOnce(&mut Self),
    ) -> Result<(), MachineError> {
        let refused = || MachineError::storage(doing)(io::Error::other("the disk refuses"));
        if self.dead {
            return Err(refused());
        }
        let fault = match &mut self.fault {
            Some((0, fault)) => Some(*fault),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        let Some(fault) = fault else {
            effect(self);
            return Ok(());
        };
        self.fault = None;
        self.dead = fault == MachineFault::Crash;
        if self.dead && self.rng.random_bool(0.5) {
            effect(self);
        }
        Err(refused())
    }

    fn flush(&mut self) {
        for (changes, applied) in self.unsynced.drain(..) {
            for (key, change) in changes {
                match change {
                    Some(value) => drop(self.pairs.insert(key, value)),
                    None => drop(self.pairs.remove(&key)),
                }
            }
            self.applied = applied;
        }
    }

    fn clear(&mut self) {
        self.pairs.clear();
        self.unsynced.clear();
        (self.applied, self.attachment) = (LogId::default(), None);
    }
}

impl AttachmentStore for MachineDisk {
    fn load(&self) -> Result<Option<Attachment>, MachineError> {
        Ok(self.attachment())
    }

    fn store(&mut self, attachment: &Attachment) -> Result<(), MachineError> {
        let attachment = Some(*attachment);
        self.state().begin("writing the attachment", |state| state.attachment = attachment)
    }
}
