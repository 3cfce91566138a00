//! What a member remembers over restarts: who it is, how far its incarnations went, and its tags.
//!
//! `data/member/identity`:
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 8 | `OUTRMEMB` |
//! | 8 | 1 | version, 1 |
//! | 9 | … | [`Saved`] as postcard |
//! | end − 4 | 4 | CRC32C of all before, big-endian |
//!
//! It is replaced as a whole: temporary file, sync, rename, sync of the directory. `data/member/lock` keeps a second
//! process out while we hold it.

#[cfg(test)]
mod crash_tests;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::swim::{Incarnation, MemberId, Tags};

const MAGIC: [u8; 8] = *b"OUTRMEMB";
const VERSION: u8 = 1;
/// Incarnations are reserved in blocks, so that a refutation never waits for the disk.
const BLOCK: u64 = 1_000;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Never changes.
    pub id: MemberId,
    /// No higher incarnation has been used, nor may be before the next save.
    pub reserved: Incarnation,
    /// As last set.
    pub tags: Tags,
}

impl Saved {
    /// Whether a new block should be reserved by now.
    pub fn is_running_out(&self, used: Incarnation) -> bool {
        used.0 + BLOCK / 2 > self.reserved.0
    }

    /// The same with a new block above `used`.
    #[must_use]
    pub fn with_block_above(self, used: Incarnation) -> Self {
        let end = (used.0 + BLOCK).min(Incarnation::MAX.0);
        Self { reserved: self.reserved.max(Incarnation(end)), ..self }
    }
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No permission, no space, no directory.
    #[error("cannot write {}: {source}; check owner, permissions and space, or choose another --data-dir", path.display())]
    Unwritable {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process is in it.
    #[error("{} is held by another member process; stop it or choose another --data-dir", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The file is not what we wrote.
    #[error("{} is damaged: {reason}; delete it to come back as a new member (nothing else is lost)", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How we know.
        reason: String,
    },
}

/// The directory, locked for as long as this lives.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    _lock: File,
}

impl Store {
    /// Makes the directory if need be, and locks it.
    ///
    /// # Errors
    /// When it is not writable or another process holds it.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let unwritable = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Unwritable { path, source }
        };
        fs::create_dir_all(directory).map_err(unwritable(directory))?;
        let path = directory.join("lock");
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true);
        let lock = options.open(&path).map_err(unwritable(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { directory: directory.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path }),
            Err(TryLockError::Error(source)) => Err(StoreError::Unwritable { path, source }),
        }
    }

    /// What was saved last; `None` at the first start.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn load(&self) -> Result<Option<Saved>, StoreError> {
        load(&RealDisk, &self.directory)
    }

    /// Replaces what was saved; durable when it returns. Blocks on the disk.
    ///
    /// # Errors
    /// When the directory is not writable; the old file is intact then.
    pub fn save(&self, saved: &Saved) -> Result<(), StoreError> {
        replace(&RealDisk, &self.directory, saved)
            .map_err(|source| StoreError::Unwritable { path: path(&self.directory), source })
    }
}

/// What the file asks of a disk. Tests bring one that loses what was not synced.
trait Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Makes or replaces a file, and syncs it, but not its name.
    fn write_synced(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

struct RealDisk;

impl Disk for RealDisk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn write_synced(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join("identity")
}

fn load(disk: &impl Disk, directory: &Path) -> Result<Option<Saved>, StoreError> {
    let path = path(directory);
    let bytes = match disk.read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Unwritable { path, source }),
    };
    let damaged = |reason: &str| StoreError::Damaged { path, reason: reason.to_owned() };
    decode(&bytes).map(Some).map_err(damaged)
}

fn replace(disk: &impl Disk, directory: &Path, saved: &Saved) -> io::Result<()> {
    let temporary = directory.join("identity.tmp");
    disk.write_synced(&temporary, &encode(saved))?;
    disk.rename(&temporary, &path(directory))?;
    disk.sync_directory(directory)
}

fn encode(saved: &Saved) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &[VERSION]].concat();
    bytes = postcard::to_extend(saved, bytes).expect("plain data encodes into memory");
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Saved, &'static str> {
    let (rest, crc) = bytes.split_last_chunk::<4>().ok_or("it is too short")?;
    let rest = rest.strip_prefix(&MAGIC).ok_or("it does not begin as ours do")?;
    if crc32c::crc32c(&bytes[..bytes.len() - 4]).to_be_bytes() != *crc {
        return Err("its checksum is wrong");
    }
    let Some((&VERSION, saved)) = rest.split_first() else {
        return Err("it was written by a later version of the program");
    };
    match postcard::take_from_bytes::<Saved>(saved) {
        Ok((saved, [])) if saved.id != MemberId(0) && saved.tags.check().is_ok() => Ok(saved),
        Ok(_) | Err(_) => Err("its content is impossible"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Saved {
        let tags = Tags { cluster: Some(9), role: "voter".to_owned(), ..Tags::default() };
        Saved { id: MemberId(7), reserved: Incarnation(3), tags }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("a/b")).unwrap();
        assert_eq!(store.load().unwrap(), None);
        store.save(&saved()).unwrap();
        let newer = saved().with_block_above(Incarnation(50));
        store.save(&newer).unwrap();
        assert_eq!(store.load().unwrap(), Some(newer));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let whole = encode(&saved());
        let refused = |bytes: &[u8]| {
            fs::write(path(&store.directory), bytes).unwrap();
            matches!(store.load(), Err(StoreError::Damaged { .. }))
        };
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&damaged), "bit {bit}");
        }
        for length in 0..whole.len() {
            assert!(refused(&whole[..length]), "cut at {length}");
        }
    }

    #[test]
    fn two_processes_do_not_share_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let first = Store::open(directory.path()).unwrap();
        assert!(matches!(Store::open(directory.path()), Err(StoreError::Locked { .. })));
        drop(first);
        assert!(Store::open(directory.path()).is_ok());
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        let error = Store::open(&path.join("member")).unwrap_err().to_string();
        assert!(error.contains("file/member") && error.contains("--data-dir"), "{error}");
    }

    #[test]
    fn blocks_are_reserved_before_they_run_out_and_never_shrink() {
        let first = saved().with_block_above(Incarnation(1));
        assert_eq!(first.reserved, Incarnation(1_001));
        assert!(!first.is_running_out(Incarnation(501)) && first.is_running_out(Incarnation(502)));
        assert_eq!(first.clone().with_block_above(Incarnation(0)), first);
    }
}
