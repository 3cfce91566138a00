//! One segment: a file of frames, the first of which says where the log stood.
//!
//! A segment gets its name only when its first frames are durable, so a named segment always starts whole. While it is
//! the newest one its file has the length that its start names; when the next one takes over it is cut behind its last
//! frame. So a shortened file is always noticed.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::block::{self, BLOCK_BYTES, BlockHeader, Seen};
use super::disk::{Disk, DiskFile};
use super::error::{Damage, DiskError, During, ReadError};
use super::frame::{FrameBuffer, blocks_around, disk_bytes, payload_of};
use super::log::Place;
use super::prepare::{Prepared, Preparer};
use super::record::{Record, SegmentStart, State};

/// Smallest allowed file, in bytes.
pub(super) const MIN_FILE_BYTES: u64 = 4096;
const SUFFIX: &str = ".wal";

/// An open segment.
pub(super) struct Segment {
    pub(super) id: u32,
    pub(super) path: PathBuf,
    file: Box<dyn DiskFile>,
    salt: u32,
    /// Block where the next frame goes; of an older segment, the end of what counts.
    end: u32,
    file_bytes: u64,
    /// Made by this process at full length: its file can be used again.
    recyclable: bool,
}

/// What is the same in all segments of a log.
pub(super) struct Identity {
    /// Names the log.
    pub(super) log: u64,
    /// State of the generator of salts.
    pub(super) seed: u64,
}

impl Identity {
    /// Of a new log.
    pub(super) fn new(seed: u64) -> Self {
        let mut identity = Self { log: 0, seed };
        identity.log = u64::from(identity.salt()) << 32 | u64::from(identity.salt());
        identity
    }

    /// The next salt: never zero, and unlike earlier ones (splitmix64).
    fn salt(&mut self) -> u32 {
        loop {
            self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.seed ^ self.seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            let salt = u32::try_from((mixed ^ mixed >> 31) >> 32).expect("32 bits are left");
            if salt != 0 {
                return salt;
            }
        }
    }
}

/// Name of a segment's file.
pub(super) fn file_name(id: u32) -> String {
    format!("{id:08x}{SUFFIX}")
}

/// The segment that a file name stands for.
pub(super) fn id_of(name: &str) -> Option<u32> {
    let id = u32::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()?;
    // The last number is never used, so that there always is a next one.
    (file_name(id) == name && id < u32::MAX).then_some(id)
}

impl Segment {
    /// Starts segment `id` in a prepared file that has room for a frame of `payload_bytes` besides. It has no name and
    /// is not durable before [`Segment::publish`].
    pub(super) fn start(
        identity: &mut Identity,
        preparer: &mut Preparer,
        frame: &mut FrameBuffer,
        (id, seq, state): (u32, u64, State),
        payload_bytes: usize,
    ) -> Result<Self, DiskError> {
        let mut start = SegmentStart { segment: id, log: identity.log, file_bytes: 0, state };
        let own_bytes = Record::Segment(Cow::Borrowed(&start)).encoded_bytes();
        let prepared = preparer.take(disk_bytes(own_bytes) + disk_bytes(payload_bytes))?;
        start.file_bytes = prepared.bytes;
        frame.begin(own_bytes);
        Record::Segment(Cow::Borrowed(&start)).encode(|part| frame.put(part));
        let recyclable = preparer.is_standard(&prepared);
        let Prepared { file, path, bytes: file_bytes } = prepared;
        let salt = identity.salt();
        let mut segment = Self { id, path, file, salt, end: 0, file_bytes, recyclable };
        segment.write(frame, seq)?;
        Ok(segment)
    }

    /// A segment found on disk, with the length of its file and the block behind its last frame.
    pub(super) fn found(
        id: u32,
        path: PathBuf,
        file: Box<dyn DiskFile>,
        salt: u32,
        (file_bytes, end): (u64, u32),
    ) -> Self {
        Self { id, path, file, salt, end, file_bytes, recyclable: false }
    }

    /// Makes the segment durable and part of the log; a segment of that number is replaced in one step.
    pub(super) fn publish(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        sync: bool,
    ) -> Result<(), DiskError> {
        if sync {
            self.sync()?;
        }
        let path = dir.join(file_name(self.id));
        disk.rename(&self.path, &path).during("rename", &self.path)?;
        self.path = path;
        disk.sync_dir(dir).during("sync", dir)
    }

    /// Whether a frame with this payload fits behind the last one.
    pub(super) fn has_room(&self, payload_bytes: usize) -> bool {
        block::offset_of(self.end) + disk_bytes(payload_bytes) <= self.file_bytes
    }

    /// Block where the next frame goes.
    pub(super) fn end(&self) -> u32 {
        self.end
    }

    /// Length of the file, in bytes.
    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Writes the frame behind the last one.
    pub(super) fn write(&mut self, frame: &mut FrameBuffer, seq: u64) -> Result<(), DiskError> {
        let bytes = frame.seal(self.salt, seq, self.end);
        self.file.write_at(bytes, block::offset_of(self.end)).during("write", &self.path)?;
        self.end += u32::try_from(bytes.len() / BLOCK_BYTES).expect("a frame is far smaller");
        Ok(())
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_data().during("sync", &self.path)
    }

    /// Cuts the file at `end`: the next segment has taken over. Not synced: a file that is still long says the same.
    pub(super) fn seal(&mut self, end: u32) -> Result<(), DiskError> {
        self.end = end;
        self.file_bytes = block::offset_of(end);
        self.file.resize(self.file_bytes).during("cut", &self.path)
    }

    /// Whether the file is worth using again.
    pub(super) fn is_recyclable(&self) -> bool {
        self.recyclable
    }

    /// Reads payload bytes `at .. at + bytes` of the frame that starts at `place.block`, checking every block.
    pub(super) fn read(&self, place: Place, bytes: u32) -> Result<Bytes, ReadError> {
        let (first, count) = blocks_around(place.at, bytes);
        let mut raw = vec![0; count as usize * BLOCK_BYTES];
        let at = place.block + first;
        self.file.read_at(&mut raw, block::offset_of(at)).during("read", &self.path)?;
        let mut payload = Vec::with_capacity(count as usize * block::PAYLOAD_BYTES);
        for (at, raw) in (at..).zip(raw.chunks_exact(BLOCK_BYTES)) {
            payload.extend_from_slice(payload_of(raw, &self.check(block::look(raw, at), at)?));
        }
        let skipped = place.at as usize - first as usize * block::PAYLOAD_BYTES;
        let wanted = skipped..skipped + bytes as usize;
        if payload.len() < wanted.end {
            return Err(self.damage(at, "the frame is shorter than it was").into());
        }
        Ok(Bytes::from(payload).slice(wanted))
    }

    /// Describes damage at a block.
    pub(super) fn damage(&self, block: u32, what: &str) -> Damage {
        Damage {
            file: self.path.clone(),
            offset: block::offset_of(block),
            what: what.to_owned(),
            affected: "the entries that were asked for".to_owned(),
        }
    }

    /// A place is written once in each use of a file, and the checksum covers the place: so a whole block of this use is
    /// the right one.
    fn check(&self, seen: Seen, at: u32) -> Result<BlockHeader, Damage> {
        match seen {
            Seen::Whole(header) if header.salt == self.salt => Ok(header),
            Seen::Whole(_) => Err(self.damage(at, "the block is of another use of the file")),
            Seen::Zero => Err(self.damage(at, "the block was never written")),
            Seen::Damaged => Err(self.damage(at, "the block's checksum does not match")),
        }
    }
}
