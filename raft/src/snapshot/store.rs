//! The directory of snapshots: which there are, and how a file becomes one of them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::ChaCha12Rng;
use rand::{RngExt, SeedableRng};

use super::file::{Growing, Reader};
use super::frame::Kind;
use super::names::{self, PART, TAKING};
use super::{
    Description, MachineReader, RawReader, Receiving, SnapshotDamage, SnapshotError, SnapshotId,
    Taking,
};
use crate::consensus::SnapshotMeta;
use crate::wal::{Disk, DiskError, During};

/// Free space that a snapshot on its way leaves to the log.
pub const SPARE_BYTES: u64 = 16 << 20;

/// The snapshots of this node. Everything here blocks. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// What the store and what it is making have in common.
pub(super) struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    keep: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    snapshots: Vec<Description>,
    /// Where ids of new snapshots come from, if not from the system.
    ids: Option<ChaCha12Rng>,
    is_taking: bool,
    is_receiving: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or creates the directory. Removes what was being taken, keeps what was being received, and all but the `keep`
    /// newest snapshots (at least one). A file whose head or end is damaged is set aside under another name, with a loud
    /// warning; it is among the damages that are returned, and the next older snapshot counts. What is between head and
    /// end is checked when it is read.
    ///
    /// Only one store may have the directory: whoever opens it holds the node's lock.
    ///
    /// # Errors
    /// A snapshot of another cluster than `cluster` (if that is known), or of a version from the future, or the disk refuses.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        cluster: Option<u128>,
        keep: usize,
    ) -> Result<(Self, Vec<SnapshotDamage>), SnapshotError> {
        disk.create_dir(dir).during("create", dir)?;
        let (dir, state) = (dir.to_owned(), Mutex::default());
        let shared = Shared { disk, dir, keep: keep.max(1), state };
        // A rename may be in the page cache only; from now on the log relies on it.
        shared.disk.sync_dir(&shared.dir).during("sync", &shared.dir)?;
        let names = shared.disk.list(&shared.dir).during("list", &shared.dir)?;
        if names.iter().any(|name| name == TAKING) {
            shared.remove(TAKING)?;
        }
        let mut damages = Vec::new();
        for name in names.iter().filter(|name| names::last_of(name).is_some()) {
            match shared.look(name, cluster) {
                Ok(description) => shared.list(&description),
                Err(SnapshotError::Damaged(damage)) => {
                    shared.set_aside(name, &damage)?;
                    damages.push(damage);
                }
                Err(error) => return Err(error),
            }
        }
        shared.prune();
        Ok((Self { shared: Arc::new(shared) }, damages))
    }

    /// Chooses the ids of new snapshots by this seed. It must not repeat within a cluster, save in simulations.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        self.shared.state().ids = Some(ChaCha12Rng::seed_from_u64(seed));
        self
    }

    /// The newest snapshot.
    pub fn newest(&self) -> Option<Description> {
        self.shared.state().snapshots.last().cloned()
    }

    /// All snapshots, oldest first.
    pub fn all(&self) -> Vec<Description> {
        self.shared.state().snapshots.clone()
    }

    /// Begins a snapshot: the session table first, then the machine's stream. One that is older than those that are kept is
    /// gone again as soon as it is finished.
    ///
    /// # Errors
    /// Another one is being taken, a part is too long, or the disk refuses.
    pub fn take(
        &self,
        meta: &SnapshotMeta,
        cluster: u128,
        image: &[u8],
    ) -> Result<Taking, SnapshotError> {
        Taking::start(Arc::clone(&self.shared), meta, cluster, image)
    }

    /// Begins to receive what a leader offers, or goes on behind the last whole frame if this very snapshot was being
    /// received before; what has arrived is read and checked again for that. Of another one, it is given up.
    ///
    /// # Errors
    /// Another one is being received, or the disk refuses.
    pub fn receive(
        &self,
        offered: &Description,
        cluster: u128,
    ) -> Result<Receiving, SnapshotError> {
        Receiving::start(Arc::clone(&self.shared), offered, cluster)
    }

    /// The session table of a snapshot: the bytes that were given to [`Store::take`], checked.
    ///
    /// # Errors
    /// The file is damaged or gone, or the disk refuses.
    pub fn image(&self, of: &Description) -> Result<Vec<u8>, SnapshotError> {
        let mut reader = self.shared.open_whole(of)?;
        let mut image = Vec::new();
        while let Some((Kind::Image, piece)) = reader.next_piece()? {
            image.extend_from_slice(&piece);
        }
        Ok(image)
    }

    /// The machine's stream of a snapshot.
    ///
    /// # Errors
    /// The file is damaged or gone, or the disk refuses.
    pub fn machine_bytes(&self, of: &Description) -> Result<MachineReader, SnapshotError> {
        Ok(MachineReader { reader: self.shared.open_whole(of)? })
    }

    /// The file of a snapshot as it is, for a follower.
    ///
    /// # Errors
    /// The file is damaged or gone, or the disk refuses.
    pub fn raw(&self, of: &Description) -> Result<RawReader, SnapshotError> {
        let path = self.shared.path(&names::of(of.meta.last));
        Ok(RawReader::new(self.shared.open_whole(of)?, path))
    }

    /// Takes a snapshot that was found to be damaged out of the list, and gives its file another name.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn set_aside(
        &self,
        of: &Description,
        damage: &SnapshotDamage,
    ) -> Result<(), SnapshotError> {
        let mut state = self.shared.state();
        let count = state.snapshots.len();
        state.snapshots.retain(|known| known.id != of.id);
        let was_there = state.snapshots.len() < count;
        drop(state);
        if was_there { self.shared.set_aside(&names::of(of.meta.last), damage) } else { Ok(()) }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds this lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name for a new snapshot.
    pub(super) fn fresh_id(&self) -> SnapshotId {
        let mut state = self.state();
        SnapshotId(state.ids.as_mut().map_or_else(rand::random, RngExt::random))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Judges a file by its name, its head and its end.
    fn look(&self, name: &str, cluster: Option<u128>) -> Result<Description, SnapshotError> {
        let file = self.path(name);
        let reader = Reader::open(&*self.disk, &file)?;
        let head = reader.head();
        if let Some(expected) = cluster.filter(|cluster| *cluster != head.cluster) {
            return Err(SnapshotError::Foreign { file, found: head.cluster, expected });
        }
        reader.check_name()?;
        reader.check_end()?;
        Ok(Description { id: head.id, meta: head.meta.clone(), bytes: reader.bytes() })
    }

    /// Opens the file of a listed snapshot.
    fn open_whole(&self, of: &Description) -> Result<Reader, SnapshotError> {
        let gone = || SnapshotError::Gone { id: of.id };
        let path = self.path(&names::of(of.meta.last));
        match Reader::open(&*self.disk, &path) {
            Ok(reader) if reader.head().id == of.id => Ok(reader),
            Ok(_) => Err(gone()),
            Err(SnapshotError::Disk(error)) if is_missing(&error) => Err(gone()),
            Err(error) => Err(error),
        }
    }

    /// Adds to the list. One that ends at the same entry has the same file name, so it is gone.
    fn list(&self, new: &Description) {
        let mut state = self.state();
        state.snapshots.retain(|known| known.meta.last != new.meta.last);
        state.snapshots.push(new.clone());
        state.snapshots.sort_by_key(|known| (known.meta.last.index, known.meta.last.term));
    }

    /// Gives a whole and synced file its name, durably, and removes what is too old now.
    ///
    /// After an error of the last step the snapshot is not listed, because its name may not survive a power cut; nor is the
    /// one that had this name, which is gone. The next open syncs the directory, and finds it.
    pub(super) fn publish(&self, from: &Path, new: &Description) -> Result<(), SnapshotError> {
        self.disk.rename(from, &self.path(&names::of(new.meta.last))).during("rename", from)?;
        self.state().snapshots.retain(|known| known.meta.last != new.meta.last);
        self.disk.sync_dir(&self.dir).during("sync", &self.dir)?;
        self.list(new);
        self.prune();
        Ok(())
    }

    /// Removes all but the newest snapshots, and what was set aside before them. What cannot be removed stays until
    /// the next time.
    fn prune(&self) {
        let mut state = self.state();
        let too_many = state.snapshots.len().saturating_sub(self.keep);
        let old: Vec<_> = state.snapshots.drain(..too_many).collect();
        let oldest_kept = state.snapshots.first().map(|kept| kept.meta.last.index);
        drop(state);
        let names = self.disk.list(&self.dir).unwrap_or_default();
        let set_aside = names.into_iter().filter(|name| {
            names::set_aside_at(name).is_some_and(|at| oldest_kept.is_some_and(|kept| at < kept))
        });
        let names = old.iter().map(|old| names::of(old.meta.last)).chain(set_aside);
        for name in names.collect::<Vec<_>>() {
            if let Err(error) = self.remove(&name) {
                tracing::warn!(%error, "an old snapshot stays for now");
            }
        }
    }

    fn set_aside(&self, name: &str, damage: &SnapshotDamage) -> Result<(), SnapshotError> {
        let (from, to) = (self.path(name), self.path(&names::set_aside(name)));
        tracing::error!(
            set_aside = %to.display(),
            "{damage}; an older snapshot is used if there is one: check the disk"
        );
        self.disk.rename(&from, &to).during("rename", &from)?;
        Ok(self.disk.sync_dir(&self.dir).during("sync", &self.dir)?)
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        let path = self.path(name);
        self.disk.remove(&path).during("remove", &path)
    }

    /// Removes a file that was not finished. Best effort: the next open removes it, or the next attempt writes over it.
    pub(super) fn discard(&self, path: &Path) {
        match self.disk.remove(path).during("remove", path) {
            Err(error) if !is_missing(&error) => {
                tracing::warn!(%error, "what is left of a snapshot stays for now");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// An empty file to take a snapshot in.
    pub(super) fn begin_taking(&self) -> Result<Growing, DiskError> {
        self.begin(self.path(TAKING))
    }

    /// An empty file to receive a snapshot in. Its name is durable, so that a power cut does not cost all that arrives.
    pub(super) fn begin_receiving(&self) -> Result<Growing, DiskError> {
        let part = self.begin(self.part_path())?;
        let synced = self.disk.sync_dir(&self.dir).during("sync", &self.dir);
        synced.inspect_err(|_| self.discard(&part.path))?;
        Ok(part)
    }

    /// Whether a snapshot of which so many bytes are to come has room beside a log that grows meanwhile.
    pub(super) fn check_room(&self, rest: u64) -> Result<(), SnapshotError> {
        let free =
            self.disk.free_bytes(&self.dir).during("ask for the free space of", &self.dir)?;
        if rest == 0 || free.saturating_sub(SPARE_BYTES) >= rest {
            return Ok(());
        }
        Err(SnapshotError::NoRoom { dir: self.dir.clone(), rest, free, spare: SPARE_BYTES })
    }

    /// A file that an earlier attempt left is removed.
    fn begin(&self, path: PathBuf) -> Result<Growing, DiskError> {
        self.discard(&path);
        let file = self.disk.create(&path).during("create", &path)?;
        Ok(Growing::new(file, path))
    }

    pub(super) fn part_path(&self) -> PathBuf {
        self.path(PART)
    }

    /// What has arrived of a snapshot, if its head has.
    pub(super) fn open_part(&self) -> Result<Option<Reader>, SnapshotError> {
        match Reader::open(&*self.disk, &self.part_path()) {
            Ok(part) => Ok(Some(part)),
            Err(SnapshotError::Disk(error)) if is_missing(&error) => Ok(None),
            Err(SnapshotError::Damaged(_) | SnapshotError::UnknownVersion { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_missing(error: &DiskError) -> bool {
    error.source.kind() == std::io::ErrorKind::NotFound
}

/// The right to take, or to receive, which one at a time has.
pub(super) struct Claim {
    shared: Arc<Shared>,
    flag: fn(&mut State) -> &mut bool,
}

impl Claim {
    pub(super) fn taking(shared: &Arc<Shared>) -> Result<Self, SnapshotError> {
        Self::new(shared, "taken", |state| &mut state.is_taking)
    }

    pub(super) fn receiving(shared: &Arc<Shared>) -> Result<Self, SnapshotError> {
        Self::new(shared, "received", |state| &mut state.is_receiving)
    }

    fn new(
        shared: &Arc<Shared>,
        action: &'static str,
        flag: fn(&mut State) -> &mut bool,
    ) -> Result<Self, SnapshotError> {
        if std::mem::replace(flag(&mut shared.state()), true) {
            return Err(SnapshotError::Busy { action });
        }
        Ok(Self { shared: Arc::clone(shared), flag })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        *(self.flag)(&mut self.shared.state()) = false;
    }
}
