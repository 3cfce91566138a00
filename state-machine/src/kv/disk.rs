//! The [`Engine`] on disk, over fjall.
//!
//! Layout of its directory:
//!
//! | name | content |
//! |---|---|
//! | `current` | number of the store in use, in decimal |
//! | `store-N` | a fjall database with the keyspace `kv` |
//!
//! A restore fills the store N + 1 and then replaces `current` by a rename: after any crash one whole store is in use, and others are
//! removed at the next start. In the keyspace, key `0x00` holds the applied log id (term, index; 8 bytes each, little-endian), and
//! `0x01` followed by a user's key holds that key's value. Both stand in one keyspace and one write batch, so they agree after any
//! crash; a keyspace of its own for the log id would be flushed rarely and keep old journals alive.

use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fjall::{
    Database, Guard, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable,
};

use super::engine::{Changes, Engine, Pair, Pairs};
use crate::attachment::replace_file;
use crate::machine::{LogId, MachineError};

const CURRENT: &str = "current";
const STORE_PREFIX: &str = "store-";
const KEYSPACE: &str = "kv";
const APPLIED_KEY: [u8; 1] = [0];
const USER_PREFIX: u8 = 1;

/// Two workers: with one the journal grows past its limit and the next start replays for half a minute.
const WORKERS: usize = 2;
const MAX_JOURNAL_BYTES: u64 = 64 << 20;
/// Small: most of the time of an apply is the search in it, which misses the caches of the CPU less.
const MAX_MEMTABLE_BYTES: u64 = 2 << 20;
const CACHE_BYTES: u64 = 64 << 20;

/// A store in a directory of its own.
pub struct DiskEngine {
    directory: PathBuf,
    store: Store,
    applied: LogId,
    durable_index: u64,
    restoring: Option<Store>,
}

impl DiskEngine {
    /// Opens the store in that directory, which exists; makes an empty one in an empty directory. What is found is made durable.
    ///
    /// # Errors
    /// The storage failed, or what it holds is damaged.
    pub fn open(directory: &Path) -> Result<DiskEngine, MachineError> {
        let number = current_store(directory)?;
        remove_other_stores(directory, number)
            .map_err(storage("removing an unfinished restore"))?;
        let store = Store::open(directory, number)?;
        let applied = store.applied()?;
        store.sync(PersistMode::SyncAll)?;
        let durable_index = applied.index;
        Ok(DiskEngine {
            directory: directory.to_owned(),
            store,
            applied,
            durable_index,
            restoring: None,
        })
    }
}

impl std::fmt::Debug for DiskEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("DiskEngine");
        debug.field("path", &self.store.path).field("applied", &self.applied);
        debug.field("durable_index", &self.durable_index).finish_non_exhaustive()
    }
}

impl Engine for DiskEngine {
    fn applied(&self) -> LogId {
        self.applied
    }

    fn durable_index(&self) -> u64 {
        self.durable_index
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MachineError> {
        let value = self.store.keyspace.get(user_key(key)).map_err(broken("reading a value"))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn write(&mut self, changes: Changes, applied: LogId) -> Result<(), MachineError> {
        let mut batch = self.store.database.batch();
        for (key, change) in changes {
            match change {
                Some(value) => batch.insert(&self.store.keyspace, user_key(&key), &value[..]),
                None => batch.remove(&self.store.keyspace, user_key(&key)),
            }
        }
        self.store.commit(batch, Some(applied))?;
        self.applied = applied;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), MachineError> {
        self.store.sync(PersistMode::SyncData)?;
        self.durable_index = self.applied.index;
        Ok(())
    }

    fn pairs_from(&self, from: Bound<&[u8]>) -> Pairs {
        let pinned = self.store.database.snapshot();
        let from = match from {
            Bound::Unbounded => Bound::Included(user_key(&[])),
            bounded @ (Bound::Included(_) | Bound::Excluded(_)) => bounded.map(user_key),
        };
        let range = (from, Bound::Unbounded);
        Box::new(pinned.range(&self.store.keyspace, range).map(read_pair))
    }

    fn begin_restore(&mut self) -> Result<(), MachineError> {
        self.abandon_restore();
        // A restore that could not be removed must not shine through the next one.
        remove_other_stores(&self.directory, self.store.number)
            .map_err(storage("removing an unfinished restore"))?;
        self.restoring = Some(Store::open(&self.directory, self.store.number + 1)?);
        Ok(())
    }

    fn write_restore(&mut self, pairs: Vec<Pair>) -> Result<(), MachineError> {
        let Some(store) = &self.restoring else { return Ok(()) };
        let mut batch = store.database.batch();
        for (key, value) in pairs {
            batch.insert(&store.keyspace, user_key(&key), &value[..]);
        }
        store.commit(batch, None)
    }

    fn finish_restore(&mut self, applied: LogId) -> Result<(), MachineError> {
        let Some(store) = self.restoring.take() else { return Ok(()) };
        store.commit(store.database.batch(), Some(applied))?;
        store.sync(PersistMode::SyncAll)?;
        let doing = "switching to the restored store";
        write_current(&self.directory, store.number).map_err(storage(doing))?;
        let old = std::mem::replace(&mut self.store, store);
        self.applied = applied;
        self.durable_index = applied.index;
        old.remove();
        Ok(())
    }

    fn abandon_restore(&mut self) {
        if let Some(store) = self.restoring.take() {
            store.remove();
        }
    }
}

/// One fjall database.
struct Store {
    path: PathBuf,
    number: u64,
    database: Database,
    keyspace: Keyspace,
}

impl Store {
    fn open(directory: &Path, number: u64) -> Result<Store, MachineError> {
        let path = directory.join(format!("{STORE_PREFIX}{number}"));
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
    fn applied(&self) -> Result<LogId, MachineError> {
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

    fn commit(
        &self,
        mut batch: OwnedWriteBatch,
        applied: Option<LogId>,
    ) -> Result<(), MachineError> {
        if let Some(applied) = applied {
            batch.insert(&self.keyspace, APPLIED_KEY, encode_applied(applied));
        }
        batch.commit().map_err(broken("writing a batch"))
    }

    fn sync(&self, mode: PersistMode) -> Result<(), MachineError> {
        self.database.persist(mode).map_err(broken("syncing the store"))
    }

    /// Closes the store and removes its files; what cannot be removed now is removed at the next start.
    fn remove(self) {
        let Store { path, database, keyspace, .. } = self;
        drop(keyspace);
        drop(database);
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "an old store cannot be removed");
        }
    }
}

/// Number of the store in use; a new directory gets the first.
fn current_store(directory: &Path) -> Result<u64, MachineError> {
    let path = directory.join(CURRENT);
    let damaged = |what| MachineError::Damaged { doing: "opening the store", what };
    match fs::read_to_string(&path) {
        Ok(text) => text
            .trim()
            .parse()
            .map_err(|_not_a_number| damaged(format!("{} holds no number", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !stores(directory).map_err(storage("listing the stores"))?.is_empty() {
                return Err(damaged(format!("{} is missing beside its stores", path.display())));
            }
            write_current(directory, 1).map_err(storage("writing a new directory"))?;
            Ok(1)
        }
        Err(error) => Err(storage("opening the store")(error)),
    }
}

fn write_current(directory: &Path, number: u64) -> io::Result<()> {
    replace_file(&directory.join(CURRENT), format!("{number}\n").as_bytes())
}

/// Numbers of the stores in a directory, ascending.
fn stores(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for item in fs::read_dir(directory)? {
        let name = item?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix(STORE_PREFIX)?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn remove_other_stores(directory: &Path, current: u64) -> io::Result<()> {
    for number in stores(directory)?.into_iter().filter(|number| *number != current) {
        fs::remove_dir_all(directory.join(format!("{STORE_PREFIX}{number}")))?;
    }
    Ok(())
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

fn storage(doing: &'static str) -> impl FnOnce(io::Error) -> MachineError {
    MachineError::storage(doing)
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
