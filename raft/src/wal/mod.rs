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
//! nothing but removing the oldest files.
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
mod log;
mod prepare;
mod record;
mod recovery;
mod segment;
mod writer;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::disk::{Disk, DiskFile, RealDisk};
pub use self::error::{Damage, DiskError, Impossible, OpenError, ReadError, WriteError};
pub use self::writer::{WalEvent, Writer};

use self::block::BLOCK_BYTES;
use self::error::During;
use self::frame::FrameBuffer;
use self::log::{Log, Place};
use self::prepare::Preparer;
use self::record::{ENTRY_HEADER_BYTES, Record, State, records_of};
use self::recovery::{Found, Frame, Names};
use self::segment::{Identity, MIN_FILE_BYTES, Segment};
use crate::consensus::{BatchNo, Entry, HardState, Index, LogId, Persist, Restored, SnapshotMeta};

/// A frame that has reached this many payload bytes is closed and synced; the rest of the append follows in another.
pub const FRAME_BYTES: usize = 8 << 20;
/// Longest record that is accepted, in bytes; the largest entry is this less 21.
pub const MAX_RECORD_BYTES: usize = 64 << 20;
/// What an entry weighs besides its payload, as in [`Entry::weight_bytes`].
const ENTRY_OVERHEAD_BYTES: usize = 32;
const LOCK_FILE: &str = "lock";

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of a segment's file, in bytes: a multiple of 512, 4 KiB to 1 GiB. A frame that needs more gets a longer
    /// file.
    pub segment_bytes: u64,
    /// How much of the log's end [`Restored::tail`] brings, in bytes ([`Entry::weight_bytes`]).
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
    /// Opens or creates the log in `dir`; returns what it holds, all of it durable.
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
        for name in &names.temporary {
            let path = dir.join(name);
            disk.remove(&path).during("remove", &path)?;
        }
        let mut wal = Self::take_over(disk, dir, options, found, lock)?;
        wal.remove_segments(&names.stale)?;
        wal.preparer.start();
        let restored = wal.restored()?;
        Ok((wal, restored))
    }

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
        self.guarded(|wal| wal.write_records(batches.iter().flat_map(records_of).filter(is_news)))?;
        Ok(Durable {
            batch: batches.last().map_or(BatchNo::default(), |batch| batch.batch),
            hard_state: self.log.hard_state(),
            last: self.log.last(),
        })
    }

    /// Reads the entries `from ..= to`, or fewer once `max_bytes` ([`Entry::weight_bytes`]) are reached, but at least
    /// one. Every block read is checked.
    ///
    /// # Errors
    /// [`ReadError`]; the log goes on.
    pub fn read(
        &mut self,
        from: Index,
        to: Index,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let (first, last) = (self.log.first(), self.log.last().index);
        if self.stopped {
            return Err(ReadError::Stopped);
        }
        if from < first {
            return Err(ReadError::Compacted { first });
        }
        if from > to || to > last {
            return Err(ReadError::Beyond { last });
        }
        let mut wanted = self.wanted(from, to, max_bytes);
        let mut entries = Vec::with_capacity(wanted.len());
        while let Some((_, place)) = wanted.first() {
            let frame = (place.segment, place.block);
            let together =
                wanted.partition_point(|(_, other)| (other.segment, other.block) <= frame);
            let later = wanted.split_off(together);
            self.read_from_frame(&wanted, &mut entries)?;
            wanted = later;
        }
        Ok(entries)
    }

    /// Makes the log start after this snapshot. What stands behind it stays if the log holds the snapshot's last entry,
    /// else the whole log is replaced (paper Figure 13, step 6). Segments that hold only older entries are removed. A
    /// snapshot that is not newer than the log's start changes nothing.
    ///
    /// The snapshot must be durable.
    ///
    /// # Errors
    /// [`WriteError`]: as with [`Wal::append`].
    pub fn compact(&mut self, meta: &SnapshotMeta) -> Result<(), WriteError> {
        self.guarded(|wal| {
            let Some(record) = wal.log.base_record(meta) else { return Ok(()) };
            wal.write_records(std::iter::once(record))?;
            wal.drop_old_segments()?;
            Ok(())
        })
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

    /// Starts the segment that this process writes to, with the doubtful frame copied into it.
    fn take_over(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        found: Option<Found>,
        lock: Box<dyn Send>,
    ) -> Result<Self, OpenError> {
        let preparer =
            Preparer::new(Arc::clone(&disk), dir, options.segment_bytes, options.background);
        let identity = Identity::new(found.as_ref().map(|found| found.log_id), options.seed);
        let mut wal = Self {
            disk,
            dir: dir.to_owned(),
            options,
            identity,
            log: Log::default(),
            segments: VecDeque::new(),
            next_seq: 1,
            frame: FrameBuffer::default(),
            preparer,
            stopped: false,
            _lock: lock,
        };
        match found {
            None => wal.create()?,
            Some(found) => wal.go_on_from(found)?,
        }
        Ok(wal)
    }

    fn create(&mut self) -> Result<(), DiskError> {
        let mut first = self.start_segment(1, self.log.state(), 0)?;
        first.publish(&*self.disk, &self.dir, true)?;
        self.segments.push_back(first);
        Ok(())
    }

    /// Starts a fresh segment with a copy of the last frame.
    fn go_on_from(&mut self, found: Found) -> Result<(), DiskError> {
        let next = Next::after(&found);
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

    fn start_segment(
        &mut self,
        id: u32,
        state: State,
        payload_bytes: usize,
    ) -> Result<Segment, DiskError> {
        let start = (id, self.next_seq, state);
        let segment = Segment::start(
            &mut self.identity,
            &mut self.preparer,
            &mut self.frame,
            start,
            payload_bytes,
        )?;
        self.next_seq += 1;
        Ok(segment)
    }

    fn newest(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a log always has a segment")
    }

    fn remove_segments(&self, ids: &[u32]) -> Result<(), DiskError> {
        for id in ids {
            let path = self.dir.join(segment::file_name(*id));
            self.disk.remove(&path).during("remove", &path)?;
        }
        Ok(())
    }

    fn restored(&mut self) -> Result<Restored, OpenError> {
        let last = self.log.last();
        let start = self.log.tail_start(self.options.tail_cache_bytes, weight_bytes);
        let tail =
            if start > last.index { Vec::new() } else { self.read(start, last.index, usize::MAX)? };
        Ok(Restored {
            hard_state: self.log.hard_state(),
            snapshot: self.log.base().cloned(),
            terms: self.log.terms().to_vec(),
            last,
            memberships: self.log.memberships().to_vec(),
            commit_index: self.log.commit_index(),
            tail,
        })
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

    fn write_records<'r>(
        &mut self,
        mut records: impl Iterator<Item = Record<'r>> + Clone,
    ) -> Result<(), WriteError> {
        loop {
            let (count, payload_bytes) = measure(records.clone())?;
            if count == 0 {
                return Ok(());
            }
            self.make_room(payload_bytes)?;
            self.encode(records.by_ref().take(count), payload_bytes)?;
            let seq = self.next_seq;
            self.next_seq += 1;
            let newest = self.segments.back_mut().expect("a log always has a segment");
            newest.write(&mut self.frame, seq)?;
            if self.options.sync {
                newest.sync()?;
            }
        }
    }

    /// Fills the frame buffer, and follows the records at once: if the write fails, the log is over anyway.
    fn encode<'r>(
        &mut self,
        records: impl Iterator<Item = Record<'r>>,
        payload_bytes: usize,
    ) -> Result<(), Impossible> {
        let newest = self.newest();
        let (segment, block) = (newest.id, newest.end());
        self.frame.begin(payload_bytes);
        for record in records {
            let at = self.frame.payload_bytes();
            record.encode(|part| self.frame.put(part));
            let bytes = self.frame.payload_bytes() - at;
            let limited = |value| u32::try_from(value).expect("frames are limited");
            self.log
                .admit(&record, Place { segment, block, at: limited(at), bytes: limited(bytes) })?;
        }
        Ok(())
    }

    /// Goes to the next segment if the frame does not fit into this one.
    fn make_room(&mut self, payload_bytes: usize) -> Result<(), WriteError> {
        if self.newest().has_room(payload_bytes) {
            return Ok(());
        }
        let id = self
            .newest()
            .id
            .checked_add(1)
            .ok_or_else(|| Impossible("2^32 segments".to_owned()))?;
        let mut fresh = self.start_segment(id, self.log.state(), payload_bytes)?;
        fresh.publish(&*self.disk, &self.dir, self.options.sync)?;
        let end = self.newest().end();
        self.newest().seal(end)?;
        self.segments.push_back(fresh);
        self.preparer.start();
        Ok(())
    }

    fn drop_old_segments(&mut self) -> Result<(), DiskError> {
        let newest = self.newest().id;
        let oldest_needed = self.log.oldest_segment().unwrap_or(newest);
        let count = self.segments.partition_point(|segment| segment.id < oldest_needed);
        for segment in self.segments.drain(..count) {
            let reused = segment.is_recyclable(self.options.segment_bytes)
                && self.preparer.recycle(&segment.path)?;
            if !reused {
                self.disk.remove(&segment.path).during("remove", &segment.path)?;
            }
        }
        if count > 0 { self.disk.sync_dir(&self.dir).during("sync", &self.dir) } else { Ok(()) }
    }

    fn wanted(&self, from: Index, to: Index, max_bytes: usize) -> Vec<(Index, Place)> {
        let mut bytes = 0;
        let places = (from.0..=to.0)
            .map(|index| (Index(index), self.log.place(Index(index)).expect("it is in range")));
        places
            .take_while(|(index, place)| {
                bytes += weight_bytes(place);
                *index == from || bytes <= max_bytes
            })
            .collect()
    }

    /// Reads these entries, which stand in one frame; they share one buffer.
    fn read_from_frame(
        &self,
        wanted: &[(Index, Place)],
        entries: &mut Vec<Entry>,
    ) -> Result<(), ReadError> {
        let (Some((_, first)), Some((_, last))) = (wanted.first(), wanted.last()) else {
            return Ok(());
        };
        let oldest = self.segments.front().expect("a log always has a segment").id;
        let segment = &self.segments[(first.segment - oldest) as usize];
        let frame = segment.read(*first, last.at + last.bytes - first.at)?;
        for (index, place) in wanted {
            let from = (place.at - first.at) as usize;
            let record = Record::decode(&frame[from..from + place.bytes as usize]);
            match record {
                Ok((Record::Entry { id, payload }, _)) if Some(id) == self.id_at(*index) => {
                    entries.push(Entry { id, payload: payload.shared(&frame) });
                }
                Ok(_) | Err(_) => {
                    return Err(segment.damage(place.block, "not the expected entry").into());
                }
            }
        }
        Ok(())
    }

    fn id_at(&self, index: Index) -> Option<LogId> {
        self.log.term(index).map(|term| LogId::new(term, index))
    }
}

/// Which segment this process starts.
struct Next {
    id: u32,
    seq: u64,
    /// Where the segment before it ends now; `None` if there is none, or if it is replaced.
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

/// How many of the records go into the next frame, and their length.
fn measure<'r>(records: impl Iterator<Item = Record<'r>>) -> Result<(usize, usize), Impossible> {
    let (mut count, mut bytes) = (0, 0);
    for record in records {
        let length = record.encoded_bytes();
        if length > MAX_RECORD_BYTES {
            return Err(Impossible(format!(
                "a record of {length} bytes; the limit is {MAX_RECORD_BYTES}"
            )));
        }
        if count > 0 && bytes + length > FRAME_BYTES {
            break;
        }
        count += 1;
        bytes += length;
    }
    Ok((count, bytes))
}

/// [`Entry::weight_bytes`] of the entry at a place, without reading it.
fn weight_bytes(place: &Place) -> usize {
    (place.bytes as usize).saturating_sub(ENTRY_HEADER_BYTES) + ENTRY_OVERHEAD_BYTES
}
