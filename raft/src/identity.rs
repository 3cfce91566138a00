//! Who this node is: the files `lock` and `identity` of the data directory.
//!
//! The identity is made at first start and never changes, save for two things: the boot counter grows with every
//! start, and the cluster id is filled in once, by founding a cluster or by being taken into one. It is one line of
//! JSON with a checksum, replaced as a whole (temporary file, sync, rename, sync of the directory).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::consensus::NodeId;
use crate::wal::{Disk, RealDisk};

const FORMAT: u32 = 1;
/// Longer than any identity.
const MAX_FILE_BYTES: u64 = 4096;
/// File that says that the node has left its cluster.
const LEFT_MARK: &str = "left";

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The directory or a file in it cannot be read or written.
    #[error("{path}: {source}; raft must be able to write there")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error(
        "{path} is in use by another raft process: stop that one, or give this one its own --data-dir"
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The file is not what was written.
    #[error(
        "{path} is damaged ({what}): restore the whole data directory, or remove it so that this node joins anew under a new id"
    )]
    Damaged {
        /// The identity file.
        path: PathBuf,
        /// How it can be told.
        what: String,
    },
    /// There is an identity, but the log is gone: its votes are forgotten.
    #[error(
        "{path} names node {node}, but the log beside it is missing: a node without its log could vote twice; remove the whole data directory so that this node joins anew under a new id"
    )]
    LogMissing {
        /// The identity file.
        path: PathBuf,
        /// Whose.
        node: NodeId,
    },
    /// There is a log, but the identity that wrote it is gone or was replaced by an older copy.
    #[error(
        "{path} is missing or older than the log beside it, which has entries or votes: restore the whole data directory, or remove it so that this node joins anew under a new id"
    )]
    LogOfAnother {
        /// The identity file.
        path: PathBuf,
    },
    /// The node belongs to a cluster already.
    #[error(
        "this node belongs to cluster {ours:032x} and cannot be taken into cluster {theirs:032x}"
    )]
    ForeignCluster {
        /// Its cluster.
        ours: u128,
        /// The other one.
        theirs: u128,
    },
}

/// What the identity file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Random, never zero.
    pub node: NodeId,
    /// Number of this start, from 1.
    pub boot: u64,
    /// The cluster, once known.
    pub cluster: Option<u128>,
    /// This node has made the cluster id, but the first configuration is not known to be in the log yet.
    pub founding: bool,
}

/// The data directory of this process: held by its lock until dropped, and the only writer of the identity.
pub struct DataDir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    identity: Identity,
    _lock: Box<dyn Send>,
}

impl std::fmt::Debug for DataDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("DataDir");
        debug.field("path", &self.path).field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    node: String,
    boot: u64,
    cluster: Option<String>,
    founding: bool,
    checksum: String,
}

impl DataDir {
    /// Takes the directory: creates it if need be, locks it, and makes or reads the identity. The boot counter is not
    /// counted up before [`DataDir::begin_boot`], so that the log can be opened in between.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn open(path: &Path) -> Result<Self, IdentityError> {
        Self::open_on(Arc::new(RealDisk), path)
    }

    /// The same on another disk.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn open_on(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, IdentityError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Io { path, source }
        };
        disk.create_dir(path).map_err(failed(path))?;
        let lock_path = path.join("lock");
        let lock = disk.lock(&lock_path).map_err(|error| {
            let is_held = error.kind() == io::ErrorKind::WouldBlock;
            if is_held {
                IdentityError::Locked { path: lock_path }
            } else {
                failed(&lock_path)(error)
            }
        })?;
        let file = path.join("identity");
        let identity = match read(&*disk, &file) {
            Ok(bytes) => {
                parse(&bytes).map_err(|what| IdentityError::Damaged { path: file.clone(), what })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => first_identity(),
            Err(error) => return Err(failed(&file)(error)),
        };
        let data_dir = Self { disk, path: path.to_owned(), identity, _lock: lock };
        if identity.boot > 0 && !data_dir.holds_log() {
            return Err(IdentityError::LogMissing { path: file, node: identity.node });
        }
        Ok(data_dir)
    }

    /// Where the log is.
    pub fn wal(&self) -> PathBuf {
        self.path.join("wal")
    }

    /// Where the snapshots are.
    pub fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// Who this node is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    fn holds_log(&self) -> bool {
        // The log's lock file and prepared segments stay behind when somebody removes its segments.
        let is_segment = |name: &String| Path::new(name).extension().is_some_and(|e| e == "wal");
        self.disk.list(&self.wal()).is_ok_and(|names| names.iter().any(is_segment))
    }

    /// Counts this start, once the log is there: from now on an identity without a log is refused. `log_is_blank` says
    /// that it holds neither entries nor a vote: before a node knows its cluster it has neither.
    ///
    /// # Errors
    /// The log was written under another identity, or the directory cannot be written.
    pub fn begin_boot(&mut self, log_is_blank: bool) -> Result<(), IdentityError> {
        if self.identity.cluster.is_none() && !log_is_blank {
            return Err(IdentityError::LogOfAnother { path: self.path.join("identity") });
        }
        self.forget_left()?;
        self.store(Identity { boot: self.identity.boot + 1, ..self.identity })
    }

    /// The node is out of its cluster. The mark is for supervisors and people; raft itself does not read it, and takes it away
    /// when it is started again.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn note_left(&self) -> Result<(), IdentityError> {
        let path = self.path.join(LEFT_MARK);
        match self.disk.create(&path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                Err(IdentityError::Io { path, source })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn forget_left(&self) -> Result<(), IdentityError> {
        let path = self.path.join(LEFT_MARK);
        remove(&*self.disk, &path).map_err(|source| IdentityError::Io { path, source })
    }

    /// Makes a new cluster with this node as its first.
    ///
    /// # Errors
    /// The node belongs to one already, or the directory cannot be written.
    pub fn found_cluster(&mut self) -> Result<u128, IdentityError> {
        let cluster = random_nonzero::<u128>();
        self.belong_to(cluster, true)?;
        Ok(cluster)
    }

    /// The first configuration is durable in the log.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn finish_founding(&mut self) -> Result<(), IdentityError> {
        self.store(Identity { founding: false, ..self.identity })
    }

    /// Takes on the cluster of a leader that has taken this node in. Does nothing when that is known already.
    ///
    /// # Errors
    /// The node belongs to another cluster, or the directory cannot be written.
    pub fn adopt_cluster(&mut self, cluster: u128) -> Result<(), IdentityError> {
        self.belong_to(cluster, false)
    }

    fn belong_to(&mut self, cluster: u128, founding: bool) -> Result<(), IdentityError> {
        match self.identity.cluster {
            Some(ours) if ours == cluster => Ok(()),
            Some(ours) => Err(IdentityError::ForeignCluster { ours, theirs: cluster }),
            None => self.store(Identity { cluster: Some(cluster), founding, ..self.identity }),
        }
    }

    fn store(&mut self, identity: Identity) -> Result<(), IdentityError> {
        let temporary = self.path.join("identity.new");
        let file = self.path.join("identity");
        let write = || -> io::Result<()> {
            remove(&*self.disk, &temporary)?;
            let out = self.disk.create(&temporary)?;
            out.write_at(print(&identity).as_bytes(), 0)?;
            out.sync_data()?;
            self.disk.rename(&temporary, &file)?;
            self.disk.sync_dir(&self.path)
        };
        write().map_err(|source| IdentityError::Io { path: file.clone(), source })?;
        self.identity = identity;
        Ok(())
    }
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open_to_read(path)?;
    // The file is one line; what is longer was not written here, and a part of it shows that too.
    let bytes = file.size_bytes()?.min(MAX_FILE_BYTES);
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    file.read_at(&mut buffer, 0)?;
    Ok(buffer)
}

/// Removes a file, if it is there.
fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn first_identity() -> Identity {
    Identity { node: NodeId(random_nonzero::<u64>()), boot: 0, cluster: None, founding: false }
}

fn random_nonzero<T: Default + PartialEq>() -> T
where
    rand::distr::StandardUniform: rand::distr::Distribution<T>,
{
    loop {
        let number = rand::random::<T>();
        if number != T::default() {
            return number;
        }
    }
}

fn checksum(identity: &Identity) -> String {
    let Identity { node, boot, cluster, founding } = identity;
    format!(
        "{:08x}",
        crc32c::crc32c(format!("{FORMAT} {node} {boot} {cluster:?} {founding}").as_bytes())
    )
}

fn print(identity: &Identity) -> String {
    let stored = Stored {
        format: FORMAT,
        node: identity.node.to_string(),
        boot: identity.boot,
        cluster: identity.cluster.map(|cluster| format!("{cluster:032x}")),
        founding: identity.founding,
        checksum: checksum(identity),
    };
    serde_json::to_string(&stored).expect("plain values are printable") + "\n"
}

fn parse(bytes: &[u8]) -> Result<Identity, String> {
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if stored.format != FORMAT {
        return Err(format!(
            "format {} is not {FORMAT}, the one this version knows",
            stored.format
        ));
    }
    let cluster = stored.cluster.map(|hex| u128::from_str_radix(&hex, 16)).transpose();
    let identity = Identity {
        node: NodeId(u64::from_str_radix(&stored.node, 16).map_err(|error| error.to_string())?),
        boot: stored.boot,
        cluster: cluster.map_err(|error| error.to_string())?,
        founding: stored.founding,
    };
    if checksum(&identity) != stored.checksum || identity.node.0 == 0 {
        return Err("its checksum does not match".to_owned());
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::wal::DiskFile;

    fn with_log(dir: &Path) {
        fs::create_dir_all(dir.join("wal")).unwrap();
        fs::write(dir.join("wal/00000001.wal"), "").unwrap();
    }

    #[test]
    fn identity_stays_and_boots_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        with_log(dir.path());
        let mut first = DataDir::open(dir.path()).unwrap();
        first.begin_boot(true).unwrap();
        let cluster = first.found_cluster().unwrap();
        first.finish_founding().unwrap();
        let node = first.identity().node;
        drop(first);
        let mut second = DataDir::open(dir.path()).unwrap();
        second.begin_boot(false).unwrap();
        let expected = Identity { node, boot: 2, cluster: Some(cluster), founding: false };
        assert_eq!(second.identity(), expected);
    }

    /// It is replaced as a whole, so that the directory's permissions count and not its own. The superuser may write to whatever it
    /// likes, so that the file is asked how it was opened.
    #[test]
    fn an_identity_that_may_only_be_read_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        with_log(dir.path());
        DataDir::open(dir.path()).unwrap().begin_boot(true).unwrap();
        let file = dir.path().join("identity");
        let opened = RealDisk.open_to_read(&file).unwrap();
        assert!(opened.write_at(b"{", 0).is_err(), "it was opened for reading alone");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        let mut again = DataDir::open_on(Arc::new(NoWriting), dir.path()).unwrap();
        again.begin_boot(true).unwrap();
        assert_eq!(again.identity().boot, 2);
    }

    /// Refuses to open anything for writing, as a file's own permissions would.
    struct NoWriting;

    impl Disk for NoWriting {
        fn create_dir(&self, dir: &Path) -> io::Result<()> {
            RealDisk.create_dir(dir)
        }

        fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
            RealDisk.list(dir)
        }

        fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            RealDisk.create(path)
        }

        fn open(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
            Err(io::ErrorKind::PermissionDenied.into())
        }

        fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            RealDisk.open_to_read(path)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            RealDisk.rename(from, to)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            RealDisk.remove(path)
        }

        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            RealDisk.sync_dir(dir)
        }

        fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
            RealDisk.lock(path)
        }
    }

    #[test]
    fn two_processes_cannot_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _first = DataDir::open(dir.path()).unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(IdentityError::Locked { .. })));
    }

    #[test]
    fn every_directory_and_every_cluster_has_an_identity_of_its_own() {
        let mut seen = BTreeSet::new();
        for _ in 0..50 {
            let dir = tempfile::tempdir().unwrap();
            let mut data_dir = DataDir::open(dir.path()).unwrap();
            let node = data_dir.identity().node.0;
            assert!(node != 0 && seen.insert(u128::from(node)), "{node} came twice");
            assert!(seen.insert(data_dir.found_cluster().unwrap()));
        }
        let highest = seen.iter().fold(0, |bits, id| bits | id);
        assert_eq!(highest, u128::MAX, "every bit is drawn");
    }

    #[test]
    fn cluster_is_taken_on_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut data_dir = DataDir::open(dir.path()).unwrap();
        data_dir.adopt_cluster(5).unwrap();
        data_dir.adopt_cluster(5).unwrap();
        let refused = data_dir.adopt_cluster(6);
        assert!(matches!(refused, Err(IdentityError::ForeignCluster { ours: 5, theirs: 6 })));
        assert!(data_dir.found_cluster().is_err());
    }

    #[test]
    fn identity_without_its_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        DataDir::open(dir.path()).unwrap().begin_boot(true).unwrap();
        fs::create_dir(dir.path().join("wal")).unwrap();
        for file in ["wal/lock", "wal/next-3.tmp"] {
            assert!(matches!(DataDir::open(dir.path()), Err(IdentityError::LogMissing { .. })));
            fs::write(dir.path().join(file), "").unwrap();
        }
        assert!(matches!(DataDir::open(dir.path()), Err(IdentityError::LogMissing { .. })));
    }

    #[test]
    fn every_flipped_bit_of_the_identity_is_noticed_or_harmless() {
        let dir = tempfile::tempdir().unwrap();
        with_log(dir.path());
        let mut data_dir = DataDir::open(dir.path()).unwrap();
        data_dir.begin_boot(true).unwrap();
        data_dir.adopt_cluster(u128::MAX / 3).unwrap();
        let identity = data_dir.identity();
        let whole = print(&identity).into_bytes();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(read) = parse(&damaged) {
                assert_eq!(read, identity, "bit {bit}");
            }
        }
    }
}
