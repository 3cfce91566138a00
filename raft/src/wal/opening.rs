//! Taking over a log: from what was found to a segment of our own, synced, that holds the last frame again.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::error::During;
use super::frame::FrameBuffer;
use super::log::Log;
use super::prepare::Preparer;
use super::recovery::{self, Found, Frame, Names};
use super::segment::{Identity, file_name};
use super::{Disk, DiskError, OpenError, Options, Wal};
use crate::consensus::Restored;

/// Held by whoever has the log open.
pub(crate) const LOCK_FILE: &str = "lock";

impl Wal {
    /// Opens or creates the log in `dir`; returns what it holds, all of it durable. Of snapshots it knows nothing.
    ///
    /// # Errors
    /// [`OpenError`]; the log's content is untouched then.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
    ) -> Result<(Self, Restored), OpenError> {
        options.check()?;
        disk.create_dir(dir).during("create", dir)?;
        let lock = lock(&*disk, dir)?;
        let names = Names::list(&*disk, dir)?;
        let found = match names.segments.as_slice() {
            [] => None,
            ids => Some(recovery::read(&*disk, dir, ids)?),
        };
        remove(&*disk, dir, names.temporary)?;
        let mut wal = Self::empty(disk, dir, options, lock);
        match found {
            None => wal.create()?,
            Some(found) => wal.take_over(found)?,
        }
        remove(&*wal.disk, dir, names.stale.into_iter().map(file_name))?;
        wal.preparer.start();
        let restored = wal.restored()?;
        Ok((wal, restored))
    }

    fn empty(disk: Arc<dyn Disk>, dir: &Path, options: Options, lock: Box<dyn Send>) -> Self {
        let preparer =
            Preparer::new(Arc::clone(&disk), dir, options.segment_bytes, options.background);
        Self {
            disk,
            dir: dir.to_owned(),
            identity: Identity::new(options.seed),
            options,
            log: Log::default(),
            segments: VecDeque::new(),
            next_seq: 1,
            frame: FrameBuffer::default(),
            preparer,
            stopped: false,
            _lock: lock,
        }
    }

    fn create(&mut self) -> Result<(), DiskError> {
        let mut first = self.start_segment(1, self.log.state(), 0)?;
        first.publish(&*self.disk, &self.dir, true)?;
        self.segments.push_back(first);
        Ok(())
    }

    /// Starts a fresh segment with a copy of the last frame.
    fn take_over(&mut self, found: Found) -> Result<(), DiskError> {
        let next = Next::after(&found);
        self.identity.log = found.log_id;
        (self.log, self.segments, self.next_seq) = (found.log, found.segments, next.seq);
        let Frame { payload, block, .. } = found.doubtful.unwrap_or_default();
        let mut fresh = self.start_segment(next.id, found.before, payload.len())?;
        if !payload.is_empty() {
            let old = (self.newest().id, block);
            self.log.move_last_frame(old, (next.id, fresh.end()));
            self.frame.begin(payload.len());
            self.frame.put(&payload);
            fresh.write(&mut self.frame, self.next_seq)?;
            self.next_seq += 1;
        }
        fresh.publish(&*self.disk, &self.dir, true)?;
        match next.older_end {
            Some(end) => self.newest().seal(end)?,
            // It had the same name and is gone.
            None => drop(self.segments.pop_back()),
        }
        self.segments.push_back(fresh);
        Ok(())
    }

    fn restored(&mut self) -> Result<Restored, OpenError> {
        Ok(Restored {
            hard_state: self.log.hard_state(),
            base: self.log.base().cloned(),
            snapshot: None,
            terms: self.log.terms().to_vec(),
            last: self.log.last(),
            memberships: self.log.memberships().to_vec(),
            commit_index: self.log.commit_index(),
            tail: self.tail()?,
        })
    }
}

/// Which segment this process starts.
struct Next {
    id: u32,
    seq: u64,
    /// Where the segment before it ends now; `None` if that one is replaced, because it holds nothing else.
    older_end: Option<u32>,
}

impl Next {
    fn after(found: &Found) -> Self {
        let newest = found.segments.back().expect("a log always has a segment").id;
        match &found.doubtful {
            Some(frame) if frame.block > found.newest_first => {
                Self { id: newest + 1, seq: frame.seq, older_end: Some(frame.block) }
            }
            Some(_) | None => Self { id: newest, seq: found.newest_seq, older_end: None },
        }
    }
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Send>, OpenError> {
    match disk.lock(&dir.join(LOCK_FILE)) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Err(OpenError::Locked { dir: dir.to_owned() })
        }
        other => Ok(other.during("lock", dir)?),
    }
}

fn remove(
    disk: &dyn Disk,
    dir: &Path,
    names: impl IntoIterator<Item = String>,
) -> Result<(), DiskError> {
    for path in names.into_iter().map(|name| dir.join(name)) {
        disk.remove(&path).during("remove", &path)?;
    }
    Ok(())
}
