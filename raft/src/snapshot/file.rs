//! Files of frames: read front to back, or grown at their end.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::frame::{END_BYTES, Flaw, HEADER_BYTES, Head, Kind, Progress, VERSION, head_of, is_end};
use super::{SnapshotDamage, SnapshotError, names};
use crate::wal::{Disk, DiskError, DiskFile, During};

/// What is written is made durable in steps of this size: one huge sync would hold up those of the log.
const SYNC_BYTES: u64 = 8 << 20;

/// Reads a file frame by frame; holds one of them at a time. Every frame is checked before anything of it is used.
pub(super) struct Reader {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    bytes: u64,
    progress: Progress,
    head: Head,
}

impl Reader {
    /// Opens a file and reads its head.
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<Self, SnapshotError> {
        let file = disk.open(path).during("open", path)?;
        let bytes = file.size_bytes().during("read the length of", path)?;
        let mut progress = Progress::default();
        let head = match read_frame(&*file, path, bytes, &mut progress)? {
            Ok((_, frame)) => head_of(&frame).map_err(|flaw| rejected(flaw, path, 0))?,
            Err(flaw) => return Err(rejected(flaw, path, 0)),
        };
        Ok(Self { file, path: path.to_owned(), bytes, progress, head })
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// Length of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How far the file has been read; what is before is whole.
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The next piece; none when the file was read to its end and is whole.
    pub(super) fn next_piece(&mut self) -> Result<Option<(Kind, Bytes)>, SnapshotError> {
        let at = self.progress.offset;
        if self.progress.is_complete() {
            let flaw = || rejected("there is something behind the end".into(), &self.path, at);
            return if at == self.bytes { Ok(None) } else { Err(flaw()) };
        }
        match read_frame(&*self.file, &self.path, self.bytes, &mut self.progress)? {
            Ok((Kind::End, _)) => self.next_piece(),
            Ok((kind, frame)) => Ok(Some((kind, frame.slice(HEADER_BYTES..)))),
            Err(flaw) => Err(rejected(flaw, &self.path, at)),
        }
    }

    /// Checks that a file which is named as a snapshot has the name of what it holds.
    pub(super) fn check_name(&self) -> Result<(), SnapshotError> {
        let name = self.path.file_name().and_then(|name| name.to_str());
        let last = self.head.meta.last;
        match name.and_then(names::last_of) {
            Some(named) if named != last => {
                let what = format!("the file holds a snapshot up to {last}");
                Err(rejected(Flaw::Damage(what), &self.path, 0))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Checks that the end stands where the file ends, without reading what is before.
    pub(super) fn check_end(&self) -> Result<(), SnapshotError> {
        let at = self.bytes.saturating_sub(END_BYTES as u64).max(self.progress.offset);
        let mut frame = [0; END_BYTES];
        let is_there = at + END_BYTES as u64 == self.bytes;
        if is_there {
            self.file.read_at(&mut frame, at).during("read", &self.path)?;
        }
        if is_there && is_end(self.head.id, at, &frame) {
            return Ok(());
        }
        Err(rejected("the file does not end as it did".into(), &self.path, at))
    }

    /// Gives the file away to be read or written as it is.
    pub(super) fn into_file(self) -> Box<dyn DiskFile> {
        self.file
    }
}

/// Reads and checks the frame that should stand here.
fn read_frame(
    file: &dyn DiskFile,
    path: &Path,
    file_bytes: u64,
    progress: &mut Progress,
) -> Result<Result<(Kind, Bytes), Flaw>, DiskError> {
    let (at, left) = (progress.offset, file_bytes - progress.offset);
    let mut header = [0; HEADER_BYTES];
    if left < HEADER_BYTES as u64 {
        return Ok(Err("the file ends here, without its end".into()));
    }
    file.read_at(&mut header, at).during("read", path)?;
    let frame_bytes = match progress.expect(header) {
        Ok(bytes) if bytes as u64 <= left => bytes,
        Ok(_) => return Ok(Err("the file ends within the frame".into())),
        Err(flaw) => return Ok(Err(flaw)),
    };
    let mut frame = vec![0; frame_bytes];
    file.read_at(&mut frame, at).during("read", path)?;
    // Between the two reads the header may have changed.
    if frame[..HEADER_BYTES] != header {
        return Ok(Err("the file changes while it is read".into()));
    }
    Ok(progress.admit(&frame).map(|kind| (kind, Bytes::from(frame))))
}

/// What a flaw at a place of a file means.
pub(super) fn rejected(flaw: Flaw, file: &Path, offset: u64) -> SnapshotError {
    let file = file.to_owned();
    match flaw {
        Flaw::Damage(what) => SnapshotDamage { file, offset, what }.into(),
        Flaw::Version(found) => SnapshotError::UnknownVersion { file, found, supported: VERSION },
    }
}

/// A file that grows.
pub(super) struct Growing {
    file: Box<dyn DiskFile>,
    pub(super) path: PathBuf,
    unsynced_bytes: u64,
}

impl Growing {
    pub(super) fn new(file: Box<dyn DiskFile>, path: PathBuf) -> Self {
        Self { file, path, unsynced_bytes: 0 }
    }

    /// Writes at the file's end.
    pub(super) fn write(&mut self, bytes: &[u8], end: u64) -> Result<(), DiskError> {
        self.file.write_at(bytes, end).during("write", &self.path)?;
        self.unsynced_bytes += bytes.len() as u64;
        if self.unsynced_bytes >= SYNC_BYTES { self.sync() } else { Ok(()) }
    }

    /// Makes all of it durable.
    pub(super) fn sync(&mut self) -> Result<(), DiskError> {
        self.unsynced_bytes = 0;
        self.file.sync_data().during("sync", &self.path)
    }

    /// Cuts the file.
    pub(super) fn cut(&mut self, bytes: u64) -> Result<(), DiskError> {
        self.file.resize(bytes).during("cut", &self.path)
    }
}
