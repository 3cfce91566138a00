//! What this node has on its disk, opened and joined: the log, the snapshots, and the session table to go on from.

use std::path::PathBuf;
use std::sync::Arc;

use super::{RunError, TAIL_BYTES};
use crate::config::Config;
use crate::consensus::{Index, Restored, SnapshotMeta};
use crate::continuity::{self, Joined};
use crate::identity::DataDir;
use crate::session::Image;
use crate::snapshot::{Description, SnapshotError, Store};
use crate::tasks::LogFailure;
use crate::wal::{Disk, OpenError, Options, Wal};

/// Where it is, and how it is opened.
#[derive(Clone, Debug)]
pub struct Places {
    /// Directory of the log.
    pub wal: PathBuf,
    /// Directory of the snapshots.
    pub snapshots: PathBuf,
    /// Whose they are, if that is known.
    pub cluster: Option<u128>,
    /// Snapshots that are kept.
    pub keep_snapshots: usize,
    /// How the log is opened.
    pub log: Options,
}

impl Places {
    pub(super) fn of(config: &Config, data_dir: &DataDir) -> Self {
        let log = Options {
            segment_bytes: config.segment_bytes,
            tail_cache_bytes: TAIL_BYTES.min(config.log_cache_bytes),
            sync: config.fsync,
            seed: rand::random(),
            ..Options::default()
        };
        let (wal, snapshots) = (data_dir.wal(), data_dir.snapshots());
        let (cluster, keep_snapshots) = (data_dir.identity().cluster, config.keep_snapshots);
        Self { wal, snapshots, cluster, keep_snapshots, log }
    }

    fn open_log(&self, disk: &Arc<dyn Disk>) -> Result<(Wal, Restored), OpenError> {
        Wal::open(Arc::clone(disk), &self.wal, self.log.clone())
    }

    fn open_snapshots(&self, disk: &Arc<dyn Disk>) -> Result<Store, SnapshotError> {
        let (store, _damages) =
            Store::open(Arc::clone(disk), &self.snapshots, self.cluster, self.keep_snapshots)?;
        Ok(store)
    }
}

/// All of it.
pub struct Stored {
    /// The log.
    pub wal: Wal,
    /// What log and snapshots say together.
    pub restored: Restored,
    /// The snapshots.
    pub store: Store,
    /// The session table of the newest snapshot.
    pub image: Option<Image>,
}

impl Stored {
    /// Opens and joins what is there. What is damaged is refused or set aside.
    ///
    /// # Errors
    /// See [`RunError`]: nothing may be started from this.
    pub fn open(disk: &Arc<dyn Disk>, places: &Places) -> Result<Self, RunError> {
        let (mut wal, log) = places.open_log(disk)?;
        let store = places.open_snapshots(disk)?;
        let (snapshot, image) = newest_usable(&store)?.unzip();
        let Joined { mut restored, replace_log } = continuity::join(log, snapshot.clone())?;
        if let Some(base) = &replace_log {
            wal.compact(base).map_err(LogFailure::from)?;
        } else if let (Some(meta), true) = (&snapshot, lacks_entries(image.as_ref(), &restored)) {
            wal.compact(meta).map_err(LogFailure::from)?;
            drop(wal);
            let again = Options { seed: places.log.seed.wrapping_add(1), ..places.log.clone() };
            let (shorter, log) = Wal::open(Arc::clone(disk), &places.wal, again)?;
            (wal, restored) = (shorter, continuity::join(log, snapshot)?.restored);
        }
        Ok(Self { wal, restored, store, image })
    }
}

/// Whether the log begins before the first entry of which the session table knows whether it is to be applied: the table is another
/// node's, whose log began later. A machine that is behind the snapshot must be restored from it then, not fed.
fn lacks_entries(image: Option<&Image>, restored: &Restored) -> bool {
    let base = restored.base.as_ref().map_or(Index(0), |base| base.last.index);
    image.is_some_and(|image| base < image.passed_over_after())
}

/// The newest snapshot whose session table is whole, and that table. Damaged ones are set aside.
fn newest_usable(store: &Store) -> Result<Option<(SnapshotMeta, Image)>, RunError> {
    while let Some(newest) = store.newest() {
        match load_image(store, &newest) {
            Ok(image) => return Ok(Some((newest.meta, image))),
            Err(RunError::Snapshots(SnapshotError::Damaged(damage))) => {
                store.set_aside(&newest, &damage)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The session table of a snapshot, from which this node goes on.
fn load_image(store: &Store, of: &Description) -> Result<Image, RunError> {
    let wrong = |source| RunError::SessionTable { snapshot: of.meta.last, source };
    Image::beside(&of.meta, &store.image(of)?).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::consensus::{
        BatchNo, Entry, HardState, LogId, Membership, NodeId, NodeInfo, Payload, Persist, Term,
    };
    use crate::session::Sessions;
    use crate::wal::RealDisk;

    fn id(index: u64) -> LogId {
        LogId::new(Term(1), Index(index))
    }

    /// Takes a snapshot up to `index` whose session table does not know what was passed over up to `unknown`.
    fn take(store: &Store, index: u64, unknown: u64) -> Description {
        let nodes = [(NodeId(1), NodeInfo::default())].into();
        let membership = Membership { voters: [NodeId(1)].into(), nodes, ..Membership::default() };
        let meta = SnapshotMeta { last: id(index), membership, membership_index: Index(1) };
        let image = Sessions::default().image(Index(index), BTreeSet::new());
        let image = image.knowing_after(Index(unknown)).encode();
        store.take(&meta, 7, &image).unwrap().finish().unwrap()
    }

    fn store(dir: &Path) -> Store {
        Store::open(Arc::new(RealDisk), dir, None, 2).unwrap().0
    }

    #[test]
    fn a_damaged_session_table_is_set_aside_and_the_snapshot_before_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let older = take(&store, 5, 0);
        let newer = take(&store, 9, 0);
        let path = dir.path().join(format!("{:016x}-{:016x}.snapshot", 9, 1));
        let mut bytes = fs::read(&path).unwrap();
        // Head, one frame of the table, end of 29 bytes.
        let in_table = bytes.len() - 29 - 10;
        bytes[in_table] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(store.newest(), Some(newer), "head and end are whole");
        let (meta, _image) = newest_usable(&store).unwrap().unwrap();
        assert_eq!(meta, older.meta);
        assert!(!path.exists() && path.with_extension("snapshot.damaged").exists());
    }

    /// A table of another node, whose log began later, does not say which of our oldest entries a machine must not see.
    #[test]
    fn log_begins_where_the_session_table_knows_what_to_pass_over() {
        for (unknown, first) in [(0, 1), (3, 6)] {
            let dir = tempfile::tempdir().unwrap();
            let flags = ["raft", "--data-dir", dir.path().to_str().unwrap(), "--port-base", "0"];
            let config =
                state_machine::startup::load::<crate::config::Settings>(flags).unwrap().config;
            let data_dir = DataDir::open(&dir.path().join("raft")).unwrap();
            let disk: Arc<dyn Disk> = Arc::new(RealDisk);
            let places = Places::of(&config, &data_dir);
            let (mut wal, _) = places.open_log(&disk).unwrap();
            let append = (1..=8).map(|index| Entry { id: id(index), payload: Payload::Noop });
            let persist = Persist {
                batch: BatchNo(1),
                hard_state: Some(HardState { term: Term(1), vote: None }),
                append: append.collect(),
                commit_index: Index(8),
                ..Persist::default()
            };
            wal.append(&[persist]).unwrap();
            drop(wal);
            take(&store(&data_dir.snapshots()), 5, unknown);
            let stored = Stored::open(&disk, &places).unwrap();
            assert_eq!(stored.wal.first_index(), Index(first), "unknown up to {unknown}");
            let base = stored.restored.base.map_or(0, |base| base.last.index.0);
            assert_eq!((base + 1, stored.restored.last), (first, id(8)));
        }
    }
}
