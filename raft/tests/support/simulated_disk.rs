//! A disk in memory that can lose what was not synced, sector by sector, tear, flip, refuse and run full.
//!
//! It keeps what processes see (the page cache) apart from what is durable. [`SimulatedDisk::power_cut`] makes a new
//! disk from the durable part and any chosen subset of what was under way. Names are a part of it: a rename that was
//! not followed by a sync of the directory may or may not have happened.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use raft::wal::{Disk, DiskFile};

/// What a disk writes whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;

/// What goes wrong at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The operation fails and has no effect, except that a failed sync loses what it should have made durable while
    /// reads still return it, and that a failed write leaves the first half of its sectors.
    Error,
    /// The operation fails for want of space and has no effect.
    NoSpace,
}

/// What becomes of a sector, or of a change of a name or length, that was not synced when the power failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is on the disk.
    Kept,
    /// It is not.
    Lost,
    /// So many bytes of it are, as on a disk that breaks its promise. A change of a name or length is kept.
    Torn(usize),
}

impl From<bool> for Fate {
    fn from(kept: bool) -> Self {
        if kept { Self::Kept } else { Self::Lost }
    }
}

/// A disk; clones of the `Arc` are views of the same one.
pub(crate) struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
struct State {
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    name_changes: Vec<NameChange>,
    files: BTreeMap<u64, Contents>,
    locks: BTreeSet<PathBuf>,
    capacity_bytes: Option<usize>,
    free_bytes: Option<u64>,
    refuses_reads: bool,
    operations: usize,
    fault: Option<(usize, Fault)>,
    /// Names of the operations so far.
    trace: Vec<String>,
    /// What the test says at the moment; kept with each snapshot.
    mark: usize,
    /// States after each operation, if they are wanted.
    snapshots: Option<Vec<(usize, State)>>,
}

#[derive(Clone, Default)]
struct Contents {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Not synced, in order.
    pending: Vec<Change>,
    /// Lost by a failed sync: perhaps written, but no later sync will do it.
    forgotten: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, u64),
    Rename(PathBuf, PathBuf, u64),
    Unlink(PathBuf),
}

impl SimulatedDisk {
    /// An empty disk.
    pub(crate) fn new() -> Arc<Self> {
        Self::with(State::default())
    }

    fn with(state: State) -> Arc<Self> {
        Arc::new(Self { state: Arc::new(Mutex::new(state)) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A copy as a process sees this disk: nothing is lost. Open handles and locks stay with this one.
    pub(crate) fn copy(&self) -> Arc<Self> {
        let state = self.state().clone();
        Self::with(State { locks: BTreeSet::new(), fault: None, snapshots: None, ..state })
    }

    /// The disk after a power cut now. `keeps` is asked for each sector and each change of a name or length that was
    /// not synced.
    pub(crate) fn power_cut(&self, mut keeps: impl FnMut() -> bool) -> Arc<Self> {
        self.power_cut_by(|| keeps().into())
    }

    /// The same, where sectors may be torn.
    pub(crate) fn power_cut_by(&self, fate: impl FnMut() -> Fate) -> Arc<Self> {
        Self::with(self.state().clone().power_cut(fate))
    }

    /// Sectors and changes of names and lengths whose fate is open: of so many a power cut asks.
    pub(crate) fn unsynced(&self) -> usize {
        let mut asked = 0;
        self.power_cut(|| {
            asked += 1;
            true
        });
        asked
    }

    /// From now on, keep the state after each operation.
    pub(crate) fn record(&self) {
        self.state().snapshots = Some(Vec::new());
    }

    /// Says where the test is; repeated by [`SimulatedDisk::snapshots`].
    pub(crate) fn mark(&self, mark: usize) {
        self.state().mark = mark;
    }

    /// The last mark.
    pub(crate) fn marked(&self) -> usize {
        self.state().mark
    }

    /// The disks after each operation so far, each with the mark at that moment.
    pub(crate) fn snapshots(&self) -> Vec<(usize, Arc<Self>)> {
        let snapshots = self.state().snapshots.take().unwrap_or_default();
        snapshots.into_iter().map(|(mark, state)| (mark, Self::with(state))).collect()
    }

    /// Number of changing operations so far.
    pub(crate) fn operations(&self) -> usize {
        self.state().operations
    }

    /// The operations so far.
    pub(crate) fn trace(&self) -> Vec<String> {
        self.state().trace.clone()
    }

    /// Operation number `at` (from 0) fails.
    pub(crate) fn fail_at(&self, at: usize, fault: Fault) {
        self.state().fault = Some((at, fault));
    }

    /// Limits the sum of all lengths.
    pub(crate) fn set_capacity(&self, bytes: Option<usize>) {
        self.state().capacity_bytes = bytes;
    }

    /// What it says of its free space; nothing at first.
    pub(crate) fn set_free(&self, bytes: Option<u64>) {
        self.state().free_bytes = bytes;
    }

    /// Whether reads fail.
    pub(crate) fn refuse_reads(&self, refuses: bool) {
        self.state().refuses_reads = refuses;
    }

    /// Files whose names end like this, with what a process sees in them, by name.
    pub(crate) fn files(&self, suffix: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.state();
        let named = state.names.iter().filter(|(path, _)| path.to_str().unwrap().ends_with(suffix));
        named.map(|(path, id)| (path.clone(), state.files[id].seen.clone())).collect()
    }

    /// Puts these bytes into a file, durably, as nobody should.
    pub(crate) fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let id = match state.names.get(path) {
            Some(id) => *id,
            None => state.link(path),
        };
        state.durable_names.insert(path.to_owned(), id);
        let contents = Contents { seen: bytes.clone(), durable: bytes, ..Contents::default() };
        state.files.insert(id, contents);
    }

    /// Flips one bit of a file.
    pub(crate) fn flip(&self, path: &Path, bit: usize) {
        let mut state = self.state();
        let id = state.names[path];
        let contents = state.files.get_mut(&id).unwrap();
        contents.seen[bit / 8] ^= 1 << (bit % 8);
        contents.durable[bit / 8] ^= 1 << (bit % 8);
    }

    /// Removes a file, durably.
    pub(crate) fn destroy(&self, path: &Path) {
        let mut state = self.state();
        state.names.remove(path);
        state.durable_names.remove(path);
    }
}

impl State {
    fn power_cut(mut self, mut fate: impl FnMut() -> Fate) -> Self {
        for change in std::mem::take(&mut self.name_changes) {
            if fate() != Fate::Lost {
                apply_name(&mut self.durable_names, &change);
            }
        }
        for contents in self.files.values_mut() {
            contents.power_cut(&mut fate);
        }
        let linked: BTreeSet<u64> = self.durable_names.values().copied().collect();
        self.files.retain(|id, _| linked.contains(id));
        Self {
            names: self.durable_names.clone(),
            durable_names: self.durable_names,
            files: self.files,
            capacity_bytes: self.capacity_bytes,
            ..Self::default()
        }
    }

    /// Counts an operation, and says whether it is to fail.
    fn begin(&mut self, name: &str, path: &Path) -> Option<Fault> {
        let number = self.operations;
        self.operations += 1;
        self.trace.push(format!("{name} {}", path.display()));
        self.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault)
    }

    fn end(&mut self) {
        if let Some(mut snapshots) = self.snapshots.take() {
            let now = Self { locks: BTreeSet::new(), ..self.clone() };
            snapshots.push((self.mark, now));
            self.snapshots = Some(snapshots);
        }
    }

    /// An operation that has its effect as a whole or fails.
    fn change<T>(
        &mut self,
        name: &str,
        path: &Path,
        effect: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        let fault = self.begin(name, path);
        fault.map_or(Ok(()), |fault| Err(fault.error()))?;
        let result = effect(self);
        self.end();
        result
    }

    fn link(&mut self, path: &Path) -> u64 {
        let id = self.files.keys().next_back().map_or(0, |last| last + 1);
        self.files.insert(id, Contents::default());
        self.change_name(NameChange::Link(path.to_owned(), id));
        id
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.name_changes.push(change);
    }

    fn used_bytes(&self) -> usize {
        self.names.values().map(|id| self.files[id].seen.len()).sum()
    }
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Error => io::Error::other("the simulated disk refuses"),
            Self::NoSpace => io::ErrorKind::StorageFull.into(),
        }
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Link(path, id) => {
            names.insert(path.clone(), *id);
        }
        NameChange::Rename(from, to, id) => {
            names.remove(from);
            names.insert(to.clone(), *id);
        }
        NameChange::Unlink(path) => {
            names.remove(path);
        }
    }
}

impl Contents {
    fn power_cut(&mut self, fate: &mut impl FnMut() -> Fate) {
        let lost = std::mem::take(&mut self.forgotten);
        for change in lost.into_iter().chain(std::mem::take(&mut self.pending)) {
            match change {
                Change::Resize(bytes) if fate() != Fate::Lost => self.durable.resize(bytes, 0),
                Change::Resize(_) => {}
                Change::Write { offset, bytes } => {
                    for (sector, at) in
                        bytes.chunks(SECTOR_BYTES).zip((offset..).step_by(SECTOR_BYTES))
                    {
                        match fate() {
                            Fate::Kept => write(&mut self.durable, at, sector),
                            Fate::Torn(bytes) => {
                                let bytes = bytes.min(sector.len());
                                write(&mut self.durable, at, &sector[..bytes]);
                            }
                            Fate::Lost => {}
                        }
                    }
                }
            }
        }
        self.seen = self.durable.clone();
    }

    fn apply(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.durable);
        }
    }
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Resize(bytes) => file.resize(*bytes, 0),
            Self::Write { offset, bytes } => write(file, *offset, bytes),
        }
    }
}

/// Writes into a file, which grows if need be.
fn write(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    file.resize(file.len().max(offset + bytes.len()), 0);
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Disk for SimulatedDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = self
            .state()
            .names
            .keys()
            .filter_map(|path| path.strip_prefix(dir).ok().map(Path::to_owned))
            .collect::<Vec<_>>();
        Ok(names.into_iter().map(|name| name.to_str().unwrap().to_owned()).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        if self.state().names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.state().change("create", path, |state| Ok(state.link(path)))?;
        self.open(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let id = *self.state().names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimulatedFile { state: Arc::clone(&self.state), path: path.to_owned(), id }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().change("rename", to, |state| {
            let id = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
            state.change_name(NameChange::Rename(from.to_owned(), to.to_owned(), id));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().change("remove", path, |state| {
            state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
            state.change_name(NameChange::Unlink(path.to_owned()));
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().change("sync_dir", dir, |state| {
            for change in std::mem::take(&mut state.name_changes) {
                apply_name(&mut state.durable_names, &change);
            }
            Ok(())
        })
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(self.state().free_bytes.unwrap_or(u64::MAX))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
        if !self.state().locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimulatedLock { state: Arc::clone(&self.state), path: path.to_owned() }))
    }
}

struct SimulatedLock {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.state.lock().unwrap().locks.remove(&self.path);
    }
}

struct SimulatedFile {
    state: Arc<Mutex<State>>,
    path: PathBuf,
    id: u64,
}

impl SimulatedFile {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn contents(&mut self, id: u64) -> &mut Contents {
        self.files.get_mut(&id).unwrap()
    }
}

impl DiskFile for SimulatedFile {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.state().contents(self.id).seen.len() as u64)
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).unwrap();
        self.state().change("resize", &self.path, |state| {
            let grown = bytes.saturating_sub(state.contents(self.id).seen.len());
            if state.capacity_bytes.is_some_and(|capacity| state.used_bytes() + grown > capacity) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.contents(self.id).apply(Change::Resize(bytes));
            Ok(())
        })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let mut state = self.state();
        if state.refuses_reads {
            return Err(Fault::Error.error());
        }
        let found = state.contents(self.id).seen.get(offset..offset + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let mut state = self.state();
        let fault = state.begin("write", &self.path);
        let grown = (offset + bytes.len()).saturating_sub(state.contents(self.id).seen.len());
        let is_full =
            state.capacity_bytes.is_some_and(|capacity| state.used_bytes() + grown > capacity);
        let fault = if grown > 0 && is_full { fault.or(Some(Fault::NoSpace)) } else { fault };
        let done = match fault {
            None => bytes,
            Some(Fault::Error) => &bytes[..bytes.len() / SECTOR_BYTES / 2 * SECTOR_BYTES],
            Some(Fault::NoSpace) => &[],
        };
        state.contents(self.id).apply(Change::Write { offset, bytes: done.to_vec() });
        state.end();
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.begin("sync", &self.path);
        let contents = state.contents(self.id);
        if fault.is_some() {
            let lost = std::mem::take(&mut contents.pending);
            contents.forgotten.extend(lost);
        } else {
            contents.sync();
        }
        state.end();
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }
}
