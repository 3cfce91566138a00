//! One fjall database, and the pairs in it.

use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fjall::{
    Database, Guard, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable,
};

use super::directory::store_path;
use crate::crash_point::crash_point;
use crate::kv::engine::{Changes, Pair, Pairs};
use crate::machine::{LogId, MachineError};

const KEYSPACE: &str = "kv";
const APPLIED_KEY: [u8; 1] = [0];
const USER_PREFIX: u8 = 1;

/// Two workers: with one the journal grows past its limit and the next start replays for half a minute.
const WORKERS: usize = 2;
const MAX_JOURNAL_BYTES: u64 = 64 << 20;
/// Small: most of the time of an apply is the search in it, which misses the caches of the CPU less.
const MAX_MEMTABLE_BYTES: u64 = 2 << 20;
const CACHE_BYTES: u64 = 64 << 20;

pub(super) struct Store {
    pub(super) path: PathBuf,
    pub(super) number: u64,
    database: Database,
    keyspace: Keyspace,
}

impl Store {
    /// Opens the store of that number, or makes an empty one.
    pub(super) fn open(directory: &Path, number: u64) -> Result<Store, MachineError> {
        let path = store_path(directory, number);
        let database = Database::builder(&path)
            .worker_threads(WORKERS)
            .max_journaling_size(MAX_JOURNAL_BYTES)
            .cache_size(CACHE_BYTES)
            .open()
            .map_err(broken("opening the store"))?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MAX_MEMTABLE_BYTES);
        let keyspace =
            database.keyspace(KEYSPACE, options).map_err(broken("opening the keyspace"))?;
        Ok(Store { path, number, database, keyspace })
    }

    /// The applied log id; of a store that has none it demands that it is empty.
    pub(super) fn applied(&self) -> Result<LogId, MachineError> {
        let doing = "reading the applied index";
        let damaged = |what: &str| MachineError::Damaged {
            doing,
            what: format!("{}: {what}", self.path.display()),
        };
        match self.keyspace.get(APPLIED_KEY).map_err(broken(doing))? {
            Some(bytes) => {
                decode_applied(&bytes).ok_or_else(|| damaged("the applied index is malformed"))
            }
            None if self.keyspace.is_empty().map_err(broken(doing))? => Ok(LogId::default()),
            None => Err(damaged("there is data, and no applied index")),
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MachineError> {
        let value = self.keyspace.get(user_key(key)).map_err(broken("reading a value"))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// Makes all changes and moves the applied log id, as one.
    pub(super) fn write(&self, changes: &Changes, applied: LogId) -> Result<(), MachineError> {
        let mut batch: OwnedWriteBatch = self.database.batch();
        for (key, change) in changes {
            match change {
                Some(value) => batch.insert(&self.keyspace, user_key(key), &value[..]),
                None => batch.remove(&self.keyspace, user_key(key)),
            }
        }
        batch.insert(&self.keyspace, APPLIED_KEY, encode_applied(applied));
        batch.commit().map_err(broken("writing a batch"))
    }

    /// Adds pairs as tables of their own, past journal and table in memory; durable when it returns. Keys ascend.
    pub(super) fn load(&self, pairs: &[Pair]) -> Result<(), MachineError> {
        let doing = "loading a snapshot";
        let mut tables = self.keyspace.start_ingestion().map_err(broken(doing))?;
        for (key, value) in pairs {
            tables.write(user_key(key), &value[..]).map_err(broken(doing))?;
        }
        tables.finish().map_err(broken(doing))
    }

    pub(super) fn sync(&self, mode: PersistMode) -> Result<(), MachineError> {
        self.database.persist(mode).map_err(broken("syncing the store"))
    }

    /// Pins the present state and walks it, from this key on.
    pub(super) fn pairs_from(&self, from: Bound<&[u8]>) -> Pairs {
        let pinned = self.database.snapshot();
        let from = match from {
            Bound::Unbounded => Bound::Included(user_key(&[])),
            bounded @ (Bound::Included(_) | Bound::Excluded(_)) => bounded.map(user_key),
        };
        let range = (from, Bound::Unbounded);
        Box::new(pinned.range(&self.keyspace, range).map(read_pair))
    }

    /// Closes the store and removes its files; what cannot be removed now is removed at the next start.
    pub(super) fn remove(self) {
        let Store { path, database, keyspace, .. } = self;
        drop(keyspace);
        drop(database);
        crash_point("closed a store that is to be removed");
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "an old store cannot be removed");
        }
    }
}

fn user_key(key: &[u8]) -> Vec<u8> {
    [&[USER_PREFIX], key].concat()
}

fn read_pair(guard: Guard) -> Result<Pair, MachineError> {
    let (key, value) = guard.into_inner().map_err(broken("reading a snapshot"))?;
    Ok((Bytes::copy_from_slice(&key[1..]), Bytes::copy_from_slice(&value)))
}

fn encode_applied(applied: LogId) -> Vec<u8> {
    [applied.term.to_le_bytes(), applied.index.to_le_bytes()].concat()
}

fn decode_applied(bytes: &[u8]) -> Option<LogId> {
    let (term, index) = bytes.split_first_chunk::<8>()?;
    let index = <[u8; 8]>::try_from(index).ok()?;
    Some(LogId { term: u64::from_le_bytes(*term), index: u64::from_le_bytes(index) })
}

/// Tells what the disk refused from what it gave back wrong.
fn broken(doing: &'static str) -> impl FnOnce(fjall::Error) -> MachineError {
    move |error| match io_error_kind(&error) {
        Some(kind) => MachineError::Storage { doing, source: io::Error::new(kind, error) },
        None => MachineError::Damaged { doing, what: error.to_string() },
    }
}

/// The kind of the I/O error beneath, save for those that mean bad content.
fn io_error_kind(error: &fjall::Error) -> Option<io::ErrorKind> {
    if matches!(error, fjall::Error::Poisoned | fjall::Error::Locked) {
        return Some(io::ErrorKind::Other);
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(error) = this.downcast_ref::<io::Error>() {
            let bad_content = [io::ErrorKind::UnexpectedEof, io::ErrorKind::InvalidData];
            return Some(error.kind()).filter(|kind| !bad_content.contains(kind));
        }
        cause = this.source();
    }
    None
}
