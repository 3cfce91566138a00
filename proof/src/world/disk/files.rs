//! The disk as the product sees it.

use std::io;
use std::path::{Path, PathBuf};

use raft::wal::{Disk, DiskFile};
use rand::RngExt;

use super::contents::{Change, Contents, SECTOR_BYTES};
use super::names::{NameChange, apply_name};
use super::{Fault, SimulatedDisk, refused};

impl Disk for SimulatedDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let here = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(here.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        if self.state().names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.state().change(|state| {
            if state.full {
                return Err(state.no_room());
            }
            state.made += 1;
            state.files.insert(state.made, Contents::default());
            state.change_name(NameChange::Link(path.to_owned(), state.made));
            Ok(())
        })?;
        self.open(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let id = *self.state().names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimulatedFile { disk: self.clone(), id }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().change(|state| {
            let id = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
            state.change_name(NameChange::Rename(from.to_owned(), to.to_owned(), id));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().change(|state| {
            state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
            state.change_name(NameChange::Unlink(path.to_owned()));
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().change(|state| {
            if state.lies {
                return Ok(());
            }
            // Names of other directories are not its business.
            let changes = std::mem::take(&mut state.name_changes);
            let (here, elsewhere): (Vec<_>, Vec<_>) =
                changes.into_iter().partition(|change| change.is_in(dir));
            state.name_changes = elsewhere;
            for change in here {
                apply_name(&mut state.durable_names, change);
            }
            state.empty_unnamed();
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
        if !self.state().locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimulatedLock { disk: self.clone(), path: path.to_owned() }))
    }
}

struct SimulatedLock {
    disk: SimulatedDisk,
    path: PathBuf,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    id: u64,
}

impl DiskFile for SimulatedFile {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.disk.state().contents(self.id).seen.len() as u64)
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        let bytes = length(bytes)?;
        self.disk.state().change(|state| {
            if state.full && state.contents(self.id).seen.len() < bytes {
                return Err(state.no_room());
            }
            state.contents(self.id).apply(Change::Resize(bytes));
            Ok(())
        })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let offset = length(offset)?;
        let mut state = self.disk.state();
        if state.dead {
            return Err(refused());
        }
        let found = state.contents(self.id).seen.get(offset..offset + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = length(offset)?;
        let mut state = self.disk.state();
        let fault = state.begin(true)?;
        if state.full && state.contents(self.id).seen.len() < offset + bytes.len() {
            return Err(state.no_room());
        }
        if fault == Some(Fault::Crash) {
            state.note_crash(self.id);
        }
        let sectors = bytes.len() / SECTOR_BYTES;
        match fault {
            None => {
                let change = Change::Write { offset, bytes: bytes.to_vec() };
                state.contents(self.id).apply(change);
                Ok(())
            }
            Some(Fault::Misdirect) => {
                let away = state.rng.random_range(1..=16) * SECTOR_BYTES;
                let offset = if offset >= away && state.rng.random_bool(0.5) {
                    offset - away
                } else {
                    offset + away
                };
                let change = Change::Write { offset, bytes: bytes.to_vec() };
                state.contents(self.id).apply(change);
                Ok(())
            }
            Some(Fault::Refuse | Fault::Crash) => {
                let kept = state.rng.random_range(0..=sectors) * SECTOR_BYTES;
                let change = Change::Write { offset, bytes: bytes[..kept].to_vec() };
                state.contents(self.id).apply(change);
                Err(refused())
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fault = state.begin(false)?;
        if fault == Some(Fault::Crash) {
            state.note_crash(self.id);
        }
        let lies = state.lies;
        let contents = state.contents(self.id);
        match fault {
            Some(Fault::Refuse | Fault::Crash) => {
                contents.forget();
                Err(refused())
            }
            Some(Fault::Misdirect) | None if lies => {
                contents.forget();
                Ok(())
            }
            Some(Fault::Misdirect) | None => {
                contents.sync();
                Ok(())
            }
        }
    }
}

fn length(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(io::Error::other)
}
