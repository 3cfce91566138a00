//! Who this node is: the files `lock` and `identity` of the data directory.
//!
//! The identity is made at first start and never changes, save for two things: the boot counter grows with every
//! start, and the cluster id is filled in once, by founding a cluster or by being taken into one. It is one line of
//! JSON with a checksum, replaced as a whole (temporary file, sync, rename, sync of the directory).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::consensus::NodeId;

const FORMAT: u32 = 1;
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
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    _lock: File,
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
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(failed(path))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(failed(&lock_path))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_held| IdentityError::Locked { path: lock_path })?;
        let file = path.join("identity");
        let identity = match fs::read_to_string(&file) {
            Ok(text) => {
                parse(&text).map_err(|what| IdentityError::Damaged { path: file.clone(), what })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => first_identity(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(IdentityError::Damaged { path: file, what: error.to_string() });
            }
            Err(error) => return Err(failed(&file)(error)),
        };
        let data_dir = Self { path: path.to_owned(), identity, _lock: lock };
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
        let is_segment = |file: fs::DirEntry| {
            Path::new(&file.file_name()).extension().is_some_and(|e| e == "wal")
        };
        fs::read_dir(self.wal()).is_ok_and(|mut files| files.any(|file| file.is_ok_and(is_segment)))
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
        File::create(&path).map(drop).map_err(|source| IdentityError::Io { path, source })
    }

    fn forget_left(&self) -> Result<(), IdentityError> {
        let path = self.path.join(LEFT_MARK);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(IdentityError::Io { path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
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
            let mut out = File::create(&temporary)?;
            out.write_all(print(&identity).as_bytes())?;
            out.sync_all()?;
            fs::rename(&temporary, &file)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| IdentityError::Io { path: file.clone(), source })?;
        self.identity = identity;
        Ok(())
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

fn parse(text: &str) -> Result<Identity, String> {
    let stored: Stored = serde_json::from_str(text).map_err(|error| error.to_string())?;
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
    use super::*;

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

    #[test]
    fn two_processes_cannot_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _first = DataDir::open(dir.path()).unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(IdentityError::Locked { .. })));
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
            let read = String::from_utf8(damaged).map_err(|error| error.to_string());
            if let Ok(read) = read.and_then(|text| parse(&text)) {
                assert_eq!(read, identity, "bit {bit}");
            }
        }
    }
}
