//! Files for the next segments: reserved, zero-filled and synced before they are needed, because filling 64 MiB inside
//! an append would stall it.
//!
//! A prepared file holds only whole blocks: zeros, or those of an earlier use. Failing to prepare one is logged and
//! otherwise without effect until the space is needed: then a smaller file is made on the spot, and only when that
//! fails too does the append fail.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::disk::{Disk, DiskFile};
use super::error::{DiskError, During};

/// Zeros are written in pieces of this size, each synced on its own in the background, so that the log's own syncs
/// never wait behind a large one.
const PIECE_BYTES: u64 = 1 << 20;
/// Size of a file that is made on the spot: some ten milliseconds of zeros.
const QUICK_BYTES: u64 = 4 << 20;
/// Files of dropped segments that are kept for another use.
const MAX_SPARES: usize = 2;
const PREFIX: &str = "next-";
const SUFFIX: &str = ".tmp";

/// A file that a segment can start in.
pub(super) struct Prepared {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// Makes [`Prepared`] files, one ahead.
pub(super) struct Preparer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    /// Without it everything happens inside the calls, in a fixed order.
    background: bool,
    made: u64,
    spares: Vec<PathBuf>,
    task: Option<Task>,
}

struct Task {
    cancelled: Arc<AtomicBool>,
    thread: JoinHandle<Option<Prepared>>,
}

/// Whether a file name is one of ours; such files hold nothing once the process has ended.
pub(super) fn is_temporary(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| rest.ends_with(SUFFIX))
}

impl Preparer {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        segment_bytes: u64,
        background: bool,
    ) -> Self {
        let dir = dir.to_owned();
        Self { disk, dir, segment_bytes, background, made: 0, spares: Vec::new(), task: None }
    }

    /// Starts to prepare the next file, unless that is under way or done.
    pub(super) fn start(&mut self) {
        if !self.background || self.task.is_some() {
            return;
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        let job = Job { cancelled: Some(Arc::clone(&cancelled)), ..self.job(self.segment_bytes) };
        let thread = std::thread::Builder::new()
            .name("wal-prepare".to_owned())
            .spawn(move || job.run_or_log());
        match thread {
            Ok(thread) => self.task = Some(Task { cancelled, thread }),
            Err(error) => tracing::warn!(%error, "no thread to prepare the next log segment"),
        }
    }

    /// Hands out a file of at least this size: the prepared one, or else one made on the spot.
    pub(super) fn take(&mut self, at_least: u64) -> Result<Prepared, DiskError> {
        let ready = self.task.take_if(|task| task.thread.is_finished());
        let ready = ready.and_then(|task| task.thread.join().ok().flatten());
        match ready {
            Some(prepared) if prepared.bytes >= at_least => Ok(prepared),
            Some(prepared) => prepared.grow(at_least),
            None => self.make_now(at_least),
        }
    }

    /// Whether the file has the usual length, so that it is worth using again.
    pub(super) fn is_standard(&self, prepared: &Prepared) -> bool {
        prepared.bytes == self.segment_bytes
    }

    /// Keeps the file of a dropped segment for another use. Returns false if there are enough; then it may be removed.
    ///
    /// The caller syncs the directory before the next [`Preparer::take`]: a file that could reappear under its old name
    /// must not be written to.
    pub(super) fn recycle(&mut self, dropped: &Path) -> Result<bool, DiskError> {
        if self.spares.len() >= MAX_SPARES {
            return Ok(false);
        }
        let path = self.next_path();
        self.disk.rename(dropped, &path).during("rename", dropped)?;
        self.spares.push(path);
        Ok(true)
    }

    fn make_now(&mut self, at_least: u64) -> Result<Prepared, DiskError> {
        let hurry = self.background && self.spares.is_empty();
        let bytes = if hurry { QUICK_BYTES.min(self.segment_bytes) } else { self.segment_bytes };
        self.job(bytes.max(at_least)).run()
    }

    fn job(&mut self, bytes: u64) -> Job {
        let spare = self.spares.pop();
        let is_new = spare.is_none();
        let path = spare.unwrap_or_else(|| self.next_path());
        Job { disk: Arc::clone(&self.disk), path, is_new, bytes, cancelled: None }
    }

    fn next_path(&mut self) -> PathBuf {
        self.made += 1;
        self.dir.join(format!("{PREFIX}{}{SUFFIX}", self.made))
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.cancelled.store(true, Ordering::Relaxed);
            // What it made is removed by the next open; a panic in it was reported by the panic hook.
            drop(task.thread.join());
        }
    }
}

impl Prepared {
    fn grow(self, bytes: u64) -> Result<Self, DiskError> {
        fill(&*self.file, &self.path, self.bytes, bytes, None)?;
        Ok(Self { bytes, ..self })
    }
}

/// One file to prepare.
struct Job {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Whether the file is to be made; else it is there and used again.
    is_new: bool,
    bytes: u64,
    /// Set for a job in the background, which also syncs as it goes.
    cancelled: Option<Arc<AtomicBool>>,
}

impl Job {
    fn run(self) -> Result<Prepared, DiskError> {
        let Self { disk, path, is_new, bytes, cancelled } = self;
        let file = if is_new {
            disk.create(&path).during("create", &path)?
        } else {
            disk.open(&path).during("open", &path)?
        };
        let old_bytes = file.size_bytes().during("read the length of", &path)?;
        fill(&*file, &path, old_bytes, bytes, cancelled.as_deref())?;
        Ok(Prepared { file, path, bytes: bytes.max(old_bytes) })
    }

    fn run_or_log(self) -> Option<Prepared> {
        let (disk, path) = (Arc::clone(&self.disk), self.path.clone());
        match self.run() {
            Ok(prepared) => Some(prepared),
            Err(error) => {
                tracing::warn!(%error, "cannot prepare the next log segment; the log stops when it is needed");
                // Best effort: give the space back. The next open removes what stays.
                drop(disk.remove(&path));
                None
            }
        }
    }
}

/// Extends a file with zeros that are really written, because a first write into space that is merely reserved costs
/// half as much again. Syncs piece by piece when it runs in the background.
fn fill(
    file: &dyn DiskFile,
    path: &Path,
    from: u64,
    to: u64,
    cancelled: Option<&AtomicBool>,
) -> Result<(), DiskError> {
    if from >= to {
        return Ok(());
    }
    file.resize(to).during("reserve space for", path)?;
    let zeros = vec![0; usize::try_from(PIECE_BYTES.min(to - from)).expect("at most a piece")];
    let mut at = from;
    while at < to && !cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
        let piece = &zeros[..usize::try_from((to - at).min(PIECE_BYTES)).expect("at most a piece")];
        file.write_at(piece, at).during("zero-fill", path)?;
        if cancelled.is_some() {
            file.sync_data().during("sync", path)?;
        }
        at += piece.len() as u64;
    }
    Ok(())
}
