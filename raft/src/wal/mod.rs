//! The write-ahead log: what this node must never forget.
//!
//! ```text
//!  data/raft/wal/   00000007.wal   00000008.wal   00000009.wal  next-3.tmp
//!                   └ oldest kept  └ cut at its   └ newest:     └ zero-filled,
//!                                    last frame     grows here    will be 0000000a
//!
//!  00000009.wal     | start: state so far | frame | frame | frame | zeros …
//!                     └ seq 812             └ 813   └ 814   └ 815
//!  a frame          | hard state | truncation | entry | entry | … | commit hint |   spread over blocks of 512 bytes
//! ```
//!
//! One [`Wal::append`] writes one frame and syncs it once; the next frame is written only after that sync has returned.
//! From this rule and the blocks' own checksums follows what a bad end of the log means (`recovery.rs`). Nothing is
//! ever overwritten: a truncation is a record. A segment starts with all the state a reader needs, so compaction is
//! one record that says where the log begins now, and then removing the files that lie wholly below, or using them again.
//!
//! The last frame found by an open may be in the page cache only (the process was killed, or its last sync failed and
//! the kernel forgot about it). So it is copied into a fresh segment, which is synced before the open returns. The old
//! copy no longer counts from then on; if it was all that its segment held, the fresh segment takes that one's place.
//!
//! What is assumed of the disk: a sync that returns is true; a sector of 512 bytes is written as a whole or not at all,
//! and a write never changes sectors beside it. What breaks these is detected where it leaves traces, and then the log
//! is refused with its place.
//!
//! Formats: `block.rs`, `record.rs`. [`Writer`] runs a [`Wal`] on a thread of its own.

mod block;
mod disk;
mod error;
mod frame;
mod inspection;
mod log;
mod opening;
mod prepare;
mod reading;
mod record;
mod recovery;
mod segment;
mod writer;
mod writing;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

pub use self::disk::{Disk, DiskFile, RealDisk};
pub(crate) use self::error::During;
pub use self::error::{Damage, DiskError, Impossible, OpenError, ReadError, WriteError};
pub use self::inspection::{Held, Inspection, Item, SegmentSummary, inspect};
pub(crate) use self::opening::LOCK_FILE;
pub(crate) use self::record::{decode_meta, encode_meta};
pub use self::writer::{Question, Request, SyncCost, WalEvent, Worker, Writer};

use self::block::BLOCK_BYTES;
use self::frame::FrameBuffer;
use self::log::Log;
use self::prepare::Preparer;
use self::record::{Record, records_of};
use self::segment::{Identity, MIN_FILE_BYTES, Segment};
use crate::consensus::{BatchNo, HardState, Index, LogId, Persist, SnapshotMeta};

/// A frame that has reached this many payload bytes is closed and synced; the rest of the append follows in another.
pub const FRAME_BYTES: usize = 8 << 20;
/// Longest record that is accepted, in bytes; the largest entry is this less 21.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of a segment's file, in bytes: a multiple of 512, 4 KiB to 1 GiB. A frame that needs more gets a longer
    /// file.
    pub segment_bytes: u64,
    /// How much of the log's end [`tail`](crate::consensus::Restored::tail) brings, in bytes
    /// ([`weight_bytes`](crate::consensus::Entry::weight_bytes)).
    pub tail_cache_bytes: usize,
    /// False for `--unsafe-no-fsync`: appends are acknowledged without being durable.
    pub sync: bool,
    /// Prepare the next segment on a thread. Without it everything happens inside the calls, in a fixed order: for
    /// simulations.
    pub background: bool,
    /// Seeds the salts of new segments. Must not repeat within a directory, save in simulations.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            tail_cache_bytes: 16 << 20,
            sync: true,
            background: true,
            seed: rand::random(),
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), OpenError> {
        let range = MIN_FILE_BYTES..=1 << 30;
        if range.contains(&self.segment_bytes)
            && self.segment_bytes.is_multiple_of(BLOCK_BYTES as u64)
        {
            return Ok(());
        }
        let allowed = "a multiple of 512 between 4 KiB and 1 GiB";
        Err(OpenError::Option { option: "segment_bytes", allowed, got: self.segment_bytes })
    }
}

/// What an append made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The last of its batches.
    pub batch: BatchNo,
    /// Term and vote on disk.
    pub hard_state: HardState,
    /// End of the log on disk.
    pub last: LogId,
}

/// An open log. It has one owner; [`Writer`] is the usual one.
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    identity: Identity,
    log: Log,
    /// Oldest first, numbered without gaps; the last one is written to. Never empty.
    segments: VecDeque<Segment>,
    next_seq: u64,
    frame: FrameBuffer,
    preparer: Preparer,
    /// An append or compaction failed.
    stopped: bool,
    _lock: Box<dyn Send>,
}

impl Wal {
    /// Makes these batches durable, in order: one frame, one sync. A call with more than [`FRAME_BYTES`] takes several,
    /// and a failure may then leave a part of a batch.
    ///
    /// # Errors
    /// [`WriteError`]: the batches are durable in part, as a whole or not at all, and the log refuses everything from
    /// then on.
    pub fn append(&mut self, batches: &[Persist]) -> Result<Durable, WriteError> {
        let known = self.log.commit_index();
        let is_news =
            |record: &Record<'_>| !matches!(record, Record::Commit(index) if *index <= known);
        self.guarded(|wal| wal.write(batches.iter().flat_map(records_of).filter(is_news)))?;
        Ok(Durable {
            batch: batches.last().map_or(BatchNo::default(), |batch| batch.batch),
            hard_state: self.log.hard_state(),
            last: self.log.last(),
        })
    }

    /// Makes the log begin after `base`: a committed entry with the configuration in force there. What stands behind it stays
    /// if the log holds that entry, else the whole log is replaced (paper Figure 13, step 6). Segments that hold only older
    /// entries are removed, or their files used again. A base that is not beyond the present one changes nothing.
    ///
    /// A snapshot that includes at least `base` must be durable. It need not end there: entries may stay behind it.
    ///
    /// # Errors
    /// [`WriteError`]: as with [`Wal::append`].
    pub fn compact(&mut self, base: &SnapshotMeta) -> Result<(), WriteError> {
        self.guarded(|wal| {
            let Some(record) = wal.log.base_record(base) else { return Ok(()) };
            wal.write(std::iter::once(record))?;
            wal.drop_old_segments()?;
            Ok(())
        })
    }

    /// How far the log may be compacted so that of its entries up to `index` the newest stay, `keep_bytes` of them or a little
    /// more, as records on disk: the highest index that may go. Where there are fewer, that is the log's base.
    pub fn trailing(&self, index: Index, keep_bytes: u64) -> Index {
        self.log.trailing(index, keep_bytes)
    }

    /// Bytes of the entries above `index`, as records on disk.
    pub fn bytes_after(&self, index: Index) -> u64 {
        self.log.bytes_after(index)
    }

    /// First index that the log holds; one past the end when it holds none.
    pub fn first_index(&self) -> Index {
        self.log.first()
    }

    /// End of the log.
    pub fn last(&self) -> LogId {
        self.log.last()
    }

    /// Term and vote.
    pub fn hard_state(&self) -> HardState {
        self.log.hard_state()
    }

    /// Bytes that the segments' files take.
    pub fn disk_bytes(&self) -> u64 {
        self.segments.iter().map(Segment::file_bytes).sum()
    }

    /// Number of segments.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Runs `change` unless an earlier one failed.
    fn guarded(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        if self.stopped {
            return Err(WriteError::Stopped);
        }
        // A panic in `change` stops the log too.
        self.stopped = true;
        change(self)?;
        self.stopped = false;
        Ok(())
    }
}
