//! A disk in memory that keeps what processes see apart from what is durable, and that fails in every way a disk can.
//!
//! | fault | what happens |
//! |---|---|
//! | power cut | of what was not synced, any subset of sectors and of changes of names stays |
//! | crash at an operation | the machine dies in the middle of it: nothing works until the power is back |
//! | refused | a write leaves a part of its sectors, a sync loses what it should have kept while reads still return it |
//! | full | a write that grows a file is refused |
//! | lying sync | it returns, and nothing is durable: seen at the next power cut only |
//! | misdirected | a write lands some sectors away and says that all is well |
//! | flipped | one bit of a file is another one |

mod contents;
mod files;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::RngExt;

use self::contents::Contents;
use self::names::{NameChange, apply_name};
use super::random::Rng;

/// What goes wrong at an operation that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine dies.
    Crash,
    /// It is refused.
    Refuse,
    /// The next write lands elsewhere.
    Misdirect,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// As it was to.
    Fault(Fault),
    /// The machine died while a snapshot was written.
    CrashInSnapshot,
    /// A write was refused for want of room.
    Full,
}

/// A disk; clones are the same one.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimulatedDisk").finish_non_exhaustive()
    }
}

struct State {
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    name_changes: Vec<NameChange>,
    files: BTreeMap<u64, Contents>,
    made: u64,
    locks: BTreeSet<PathBuf>,
    /// A fault to come, after so many operations that succeed.
    fault: Option<(u64, Fault)>,
    /// No operation works any more.
    dead: bool,
    lies: bool,
    full: bool,
    rng: Rng,
    hits: Vec<Hit>,
}

impl SimulatedDisk {
    /// An empty disk with its own stream of chance.
    pub fn new(rng: Rng) -> Self {
        let state = State {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            files: BTreeMap::new(),
            made: 0,
            locks: BTreeSet::new(),
            fault: None,
            dead: false,
            lies: false,
            full: false,
            rng,
            hits: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets an operation fail, after so many that succeed.
    pub fn fail_after(&self, operations: u64, fault: Fault) {
        self.state().fault = Some((operations, fault));
    }

    /// The fault to come does not.
    pub fn forget_fault(&self) {
        self.state().fault = None;
    }

    /// Whether the machine died at an operation.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// What was met since the last call.
    pub fn take_hits(&self) -> Vec<Hit> {
        std::mem::take(&mut self.state().hits)
    }

    /// Whether syncs lie from now on.
    pub fn lie(&self, lies: bool) {
        self.state().lies = lies;
    }

    /// Whether there is no room any more.
    pub fn fill(&self, full: bool) {
        self.state().full = full;
    }

    /// Nothing changes it until its process is gone.
    pub fn stand_still(&self) {
        self.state().dead = true;
    }

    /// The process that used it is gone; the machine is not, and so is nothing that was written.
    pub fn process_ends(&self) {
        let mut state = self.state();
        (state.dead, state.fault) = (false, None);
        state.locks.clear();
    }

    /// The machine has lost its power: what was not synced is kept by chance.
    pub fn power_cut(&self) {
        self.process_ends();
        self.state().power_cut();
    }

    /// Flips a bit of a file whose name ends so; false when there is none. Blank files are left alone.
    pub fn flip(&self, suffix: &str) -> bool {
        let mut state = self.state();
        let State { names, files, rng, .. } = &mut *state;
        let ends = |path: &Path| path.to_str().is_some_and(|path| path.ends_with(suffix));
        let ids: Vec<u64> =
            names.iter().filter(|(path, _)| ends(path)).map(|(_, id)| *id).collect();
        if ids.is_empty() {
            return false;
        }
        let contents = files.get_mut(&ids[rng.random_range(0..ids.len())]).expect("a named file");
        let used: Vec<usize> = (0..contents.durable.len().min(contents.seen.len()))
            .filter(|at| contents.durable[*at] != 0 && contents.seen[*at] == contents.durable[*at])
            .collect();
        if used.is_empty() {
            return false;
        }
        let (at, bit) = (used[rng.random_range(0..used.len())], 1 << rng.random_range(0..8));
        contents.seen[at] ^= bit;
        contents.durable[at] ^= bit;
        true
    }

    /// How many files there are in a directory.
    pub fn files(&self, dir: &Path) -> usize {
        self.state().names.keys().filter(|path| path.parent() == Some(dir)).count()
    }
}

impl State {
    fn power_cut(&mut self) {
        // Now and then everything or nothing, which chance alone would never give.
        let share = [0.0, 0.3, 0.5, 0.9, 1.0][self.rng.random_range(0..5)];
        for change in std::mem::take(&mut self.name_changes) {
            if self.rng.random_bool(share) {
                apply_name(&mut self.durable_names, change);
            }
        }
        for contents in self.files.values_mut() {
            contents.power_cut(share, &mut self.rng);
        }
        let linked: BTreeSet<u64> = self.durable_names.values().copied().collect();
        self.files.retain(|id, _| linked.contains(id));
        self.names = self.durable_names.clone();
    }

    /// Counts an operation that changes something, and says what goes wrong with it.
    fn begin(&mut self, writes: bool) -> io::Result<Option<Fault>> {
        if self.dead {
            return Err(io::Error::other("the machine has no power"));
        }
        let Some((left, fault)) = &mut self.fault else { return Ok(None) };
        if *left > 0 {
            *left -= 1;
            return Ok(None);
        }
        let fault = *fault;
        if fault == Fault::Misdirect && !writes {
            return Ok(None);
        }
        self.fault = None;
        self.hits.push(Hit::Fault(fault));
        self.dead = fault == Fault::Crash;
        Ok(Some(fault))
    }

    /// An operation that has its effect as a whole or fails.
    fn change(&mut self, effect: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        match self.begin(false)? {
            Some(Fault::Refuse) => Err(refused()),
            Some(Fault::Crash) => {
                // Perhaps it was done, and nobody heard of it.
                if self.rng.random_bool(0.5) {
                    effect(self)?;
                }
                Err(refused())
            }
            Some(Fault::Misdirect) | None => effect(self),
        }
    }

    fn change_name(&mut self, change: NameChange) {
        match &change {
            NameChange::Link(path, id) => drop(self.names.insert(path.clone(), *id)),
            NameChange::Rename(from, to, id) => {
                self.names.remove(from);
                self.names.insert(to.clone(), *id);
            }
            NameChange::Unlink(path) => drop(self.names.remove(path)),
        }
        self.name_changes.push(change);
    }

    /// The machine dies in an operation on this file.
    fn note_crash(&mut self, id: u64) {
        let is_snapshot =
            |path: &PathBuf| path.parent().is_some_and(|dir| dir.ends_with("snapshots"));
        if self.names.iter().any(|(path, file)| *file == id && is_snapshot(path)) {
            self.hits.push(Hit::CrashInSnapshot);
        }
    }

    fn no_room(&mut self) -> io::Error {
        self.hits.push(Hit::Full);
        io::ErrorKind::StorageFull.into()
    }

    fn contents(&mut self, id: u64) -> &mut Contents {
        self.files.get_mut(&id).expect("an open file stays until the power is cut")
    }

    /// What has no name any more, durably, needs no room. Whoever has it open finds it empty.
    fn empty_unnamed(&mut self) {
        let named: BTreeSet<u64> =
            self.names.values().chain(self.durable_names.values()).copied().collect();
        for (_, contents) in self.files.iter_mut().filter(|(id, _)| !named.contains(id)) {
            *contents = Contents::default();
        }
    }
}

fn refused() -> io::Error {
    io::Error::other("the simulated disk refuses")
}
