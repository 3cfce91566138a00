//! Reading the log back: what is there, and whether a bad end is a torn write or damage.
//!
//! Frame n+1 is written only after the sync of frame n has returned. So at a power failure only the last frame can be
//! incomplete, and each of its blocks is then either as it was before or as it should be. Hence, of the newest segment,
//! from the first frame that is not whole (call it n) to the end of the file:
//!
//! | a block there is | then |
//! |---|---|
//! | zero, or whole and of an earlier use of the file | never written: frame n was not synced, or not even begun |
//! | whole, of frame n, at its place | frame n is torn: it was never acknowledged and is cut off |
//! | whole, of a later frame | frame n had been synced: damage |
//! | anything else | damage: a torn write does not leave that |
//!
//! In an older segment every frame up to the next segment's first one must be whole. What cannot be seen from here is a
//! device that acknowledges a sync and then brings back blocks of the last frame exactly as they were before it: that is
//! what a torn write looks like.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::block::{self, BLOCK_BYTES, BlockHeader, Seen, blocks_of, look};
use super::disk::{Disk, DiskFile};
use super::error::{Damage, DiskError, During, Impossible, OpenError};
use super::frame::payload_of;
use super::log::{Log, Place};
use super::prepare;
use super::record::{Record, SegmentStart, State, VERSION, version_of};
use super::segment::{Segment, file_name, id_of};

/// Blocks that are read at once.
const WINDOW_BLOCKS: u32 = 512;
/// No log ever has more frames.
const LAST_SEQ: u64 = 1 << 62;

/// What lies in the directory.
#[derive(Default)]
pub(super) struct Names {
    /// Numbers of the segments that follow each other up to the newest.
    pub(super) segments: Vec<u32>,
    /// Segments before a gap: their removal was not durable when the power failed.
    pub(super) stale: Vec<u32>,
    /// Files that hold nothing.
    pub(super) temporary: Vec<String>,
}

/// The log as found.
pub(super) struct Found {
    /// All that it holds.
    pub(super) log: Log,
    /// All segments, oldest first.
    pub(super) segments: VecDeque<Segment>,
    /// Which log it is.
    pub(super) log_id: u64,
    /// Sequence number at which the newest segment starts.
    pub(super) newest_seq: u64,
    /// Block at which the newest segment's first frame after the start stands.
    pub(super) newest_first: u32,
    /// The last frame: it was perhaps never synced and is in the page cache only.
    pub(super) doubtful: Option<Frame>,
    /// What the log held before that frame.
    pub(super) before: State,
}

/// A whole frame.
#[derive(Default)]
pub(super) struct Frame {
    pub(super) payload: Vec<u8>,
    pub(super) block: u32,
    pub(super) seq: u64,
}

impl Names {
    /// Sorts the names in the log's directory; those that are not ours are left alone.
    pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Self, DiskError> {
        let names = disk.list(dir).during("list", dir)?;
        let mut segments: Vec<u32> = names.iter().filter_map(|name| id_of(name)).collect();
        segments.sort_unstable();
        let follows = |pair: &[u32]| pair[0].checked_add(1) == Some(pair[1]);
        let gap = segments.windows(2).rposition(|pair| !follows(pair)).map_or(0, |at| at + 1);
        let stale = segments.drain(..gap).collect();
        let temporary = names.into_iter().filter(|name| prepare::is_temporary(name)).collect();
        Ok(Self { segments, stale, temporary })
    }
}

/// Is told of every record that was read and fits, in the order in which they were written.
pub(super) type Watch<'a> = dyn FnMut(&Record<'_>) + 'a;

/// Reads the given segments, which follow each other; at least one. Changes nothing.
pub(super) fn read(disk: &dyn Disk, dir: &Path, ids: &[u32]) -> Result<Found, OpenError> {
    let heads = ids.iter().map(|id| Head::read(disk, dir, *id)).collect::<Result<Vec<_>, _>>()?;
    let newest = heads.last().expect("at least one segment is given");
    let (log_id, newest_seq, newest_first) = (newest.start.log, newest.seq, newest.blocks);
    for head in &heads {
        head.belongs_to(log_id)?;
    }
    let mut log = Log::from_state(heads[0].start.state.clone());
    let ends: Vec<Option<u64>> =
        heads.iter().skip(1).map(|next| Some(next.seq)).chain([None]).collect();
    let mut segments = VecDeque::new();
    let (mut before, mut doubtful) = (State::default(), None);
    let mut nothing = |_: &Record<'_>| {};
    for (head, end) in heads.into_iter().zip(ends) {
        let mut walk = Walk::new(&head, &mut log, &mut nothing)?;
        if let Some(end) = end {
            walk.older(end)?;
        } else {
            (before, doubtful) = walk.newest()?;
        }
        let at = walk.at;
        segments.push_back(head.into_segment(at));
    }
    log.complete().map_err(|error| missing_before(dir, ids[0], &error))?;
    Ok(Found { log, segments, log_id, newest_seq, newest_first, doubtful, before })
}

/// Follows the records of a frame at `block` of `segment`.
fn follow(
    log: &mut Log,
    watch: &mut Watch<'_>,
    payload: &[u8],
    segment: u32,
    block: u32,
) -> Result<(), Impossible> {
    let mut at = 0;
    while at < payload.len() {
        let (record, bytes) = Record::decode(&payload[at..])?;
        log.admit(&record, Place { segment, block, at: small(at), bytes: small(bytes) })?;
        watch(&record);
        at += bytes;
    }
    Ok(())
}

fn small(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a frame's length is a u32")
}

/// The damage of a log whose oldest segment does not hold its oldest entries.
pub(super) fn missing_before(dir: &Path, first: u32, error: &Impossible) -> Damage {
    Damage {
        file: dir.join(file_name(first.saturating_sub(1))),
        offset: 0,
        what: "the file is missing".to_owned(),
        affected: error.to_string(),
    }
}

/// A segment with its start read and checked.
pub(super) struct Head {
    pub(super) id: u32,
    pub(super) path: PathBuf,
    file: Box<dyn DiskFile>,
    pub(super) bytes: u64,
    salt: u32,
    pub(super) seq: u64,
    /// Blocks of the first frame.
    blocks: u32,
    pub(super) start: SegmentStart,
}

impl Head {
    pub(super) fn read(disk: &dyn Disk, dir: &Path, id: u32) -> Result<Self, OpenError> {
        let path = dir.join(file_name(id));
        let file = disk.open(&path).during("open", &path)?;
        let bytes = file.size_bytes().during("read the length of", &path)?;
        let damaged = |offset, what: &str| Damage {
            file: path.clone(),
            offset,
            what: what.to_owned(),
            affected: "all that this segment holds: entries, terms and votes".to_owned(),
        };
        let mut scanner = Scanner::new(&*file, &path, bytes);
        if scanner.blocks == 0 {
            return Err(damaged(0, "the file is too short").into());
        }
        let first = scanner.block(0)?;
        let Seen::Whole(header @ BlockHeader { number: 0, .. }) = look(first, 0) else {
            return Err(damaged(0, "the first block is damaged, or this is no log segment").into());
        };
        match version_of(payload_of(first, &header)) {
            Some(VERSION) => {}
            Some(found) => {
                return Err(OpenError::UnknownVersion { file: path, found, supported: VERSION });
            }
            None => return Err(damaged(0, "the file does not start as a log segment").into()),
        }
        if header.seq == 0 || header.seq > LAST_SEQ {
            return Err(damaged(0, "an impossible frame number").into());
        }
        let mut payload = Vec::new();
        if let Err(block) = scanner.frame(0, &header, &mut payload)? {
            return Err(damaged(block::offset_of(block), "the segment's start is damaged").into());
        }
        let start = match Record::decode(&payload) {
            Ok((Record::Segment(start), length)) if length == payload.len() => start.into_owned(),
            Ok(_) => {
                return Err(damaged(0, "the segment's start is followed by something else").into());
            }
            Err(error) => return Err(damaged(0, &error.to_string()).into()),
        };
        if start.segment != id {
            let what = format!("the file holds segment {:08x}", start.segment);
            return Err(damaged(0, &what).into());
        }
        let blocks = u32::try_from(blocks_of(payload.len())).expect("it was read from this file");
        Ok(Self { id, path, file, bytes, salt: header.salt, seq: header.seq, blocks, start })
    }

    pub(super) fn belongs_to(&self, log: u64) -> Result<(), OpenError> {
        if self.start.log == log {
            return Ok(());
        }
        Err(OpenError::Foreign { file: self.path.clone(), found: self.start.log, expected: log })
    }

    fn into_segment(self, end: u32) -> Segment {
        Segment::found(self.id, self.path, self.file, self.salt, (self.bytes, end))
    }
}

/// Goes through the frames of one segment, and the log with it.
pub(super) struct Walk<'a> {
    head: &'a Head,
    log: &'a mut Log,
    watch: &'a mut Watch<'a>,
    scanner: Scanner<'a>,
    at: u32,
    seq: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        head: &'a Head,
        log: &'a mut Log,
        watch: &'a mut Watch<'a>,
    ) -> Result<Self, OpenError> {
        let scanner = Scanner::new(&*head.file, &head.path, head.bytes);
        let walk = Self { head, log, watch, scanner, at: head.blocks, seq: head.seq + 1 };
        walk.log.agree(&head.start.state).map_err(|error| walk.damage(0, error.to_string()))?;
        Ok(walk)
    }

    /// All frames below `end` must be whole; what follows was given up when the next segment started.
    pub(super) fn older(&mut self, end: u64) -> Result<(), OpenError> {
        let mut payload = Vec::new();
        while self.seq < end {
            if let Err(block) = self.next(&mut payload)? {
                let what = format!("frame {} is damaged, but the next segment is there", self.seq);
                return Err(self.damage(block, what).into());
            }
            self.follow(&payload, self.at)?;
            self.pass(&payload);
        }
        Ok(())
    }

    /// All whole frames; also returns the last of them, and what the log held before it.
    pub(super) fn newest(&mut self) -> Result<(State, Option<Frame>), OpenError> {
        if self.head.bytes != self.head.start.file_bytes {
            let (is, was) = (self.head.bytes, self.head.start.file_bytes);
            let block = self
                .scanner
                .blocks
                .min(u32::try_from(was / BLOCK_BYTES as u64).unwrap_or(u32::MAX));
            let what = format!(
                "the newest segment has {is} bytes instead of {was}, or the one after it is missing"
            );
            return Err(self.damage(block, what).into());
        }
        let mut last = Frame::default();
        let mut payload = Vec::new();
        while self.next(&mut payload)?.is_ok() {
            self.follow(&last.payload, last.block)?;
            std::mem::swap(&mut last.payload, &mut payload);
            (last.block, last.seq) = (self.at, self.seq);
            self.pass(&last.payload);
        }
        let before = self.log.state();
        self.follow(&last.payload, last.block)?;
        self.judge_end()?;
        Ok((before, Some(last).filter(|frame| !frame.payload.is_empty())))
    }

    /// All whole frames, of a segment of which it is not known where it ends.
    pub(super) fn rest(&mut self) -> Result<(), OpenError> {
        let mut payload = Vec::new();
        while self.next(&mut payload)?.is_ok() {
            self.follow(&payload, self.at)?;
            self.pass(&payload);
        }
        Ok(())
    }

    /// Frames behind the segment's start that were whole.
    pub(super) fn frames(&self) -> u64 {
        self.seq - self.head.seq - 1
    }

    /// Reads the frame that should stand here, or says which of its blocks is the first bad one.
    fn next(&mut self, payload: &mut Vec<u8>) -> Result<Result<(), u32>, DiskError> {
        if self.at >= self.scanner.blocks {
            return Ok(Err(self.at));
        }
        let expected =
            BlockHeader { salt: self.head.salt, seq: self.seq, frame_bytes: 0, number: 0 };
        match look(self.scanner.block(self.at)?, self.at) {
            Seen::Whole(header)
                if header == (BlockHeader { frame_bytes: header.frame_bytes, ..expected }) =>
            {
                self.scanner.frame(self.at, &header, payload)
            }
            Seen::Whole(_) | Seen::Zero | Seen::Damaged => Ok(Err(self.at)),
        }
    }

    fn pass(&mut self, payload: &[u8]) {
        self.at += u32::try_from(blocks_of(payload.len())).expect("it was read from this file");
        self.seq += 1;
    }

    fn follow(&mut self, payload: &[u8], block: u32) -> Result<(), Damage> {
        follow(self.log, self.watch, payload, self.head.id, block)
            .map_err(|error| self.damage(block, format!("impossible content: {error}")))
    }

    /// The table at the head of this file.
    fn judge_end(&mut self) -> Result<(), OpenError> {
        for at in self.at..self.scanner.blocks {
            match look(self.scanner.block(at)?, at) {
                Seen::Zero => {}
                Seen::Whole(header) if header.seq < self.head.seq => {}
                Seen::Whole(header) if header.salt == self.head.salt && header.seq == self.seq => {}
                Seen::Whole(header) => {
                    let (ours, other) = (self.seq, header.seq);
                    let what =
                        format!("frame {ours} is missing or damaged, but frame {other} is there");
                    return Err(self.damage(self.at, what).into());
                }
                Seen::Damaged => {
                    let what = "the block is neither as before nor as after a write".to_owned();
                    return Err(self.damage(at, what).into());
                }
            }
        }
        Ok(())
    }

    fn damage(&self, block: u32, what: String) -> Damage {
        let after = self.log.last();
        Damage {
            file: self.head.path.clone(),
            offset: block::offset_of(block),
            what,
            affected: format!(
                "entries above index {}, and terms and votes given since",
                after.index
            ),
        }
    }
}

/// Reads a file block by block through a window.
struct Scanner<'a> {
    file: &'a dyn DiskFile,
    path: &'a Path,
    /// Whole blocks in the file.
    blocks: u32,
    window: Vec<u8>,
    window_start: u32,
}

impl<'a> Scanner<'a> {
    fn new(file: &'a dyn DiskFile, path: &'a Path, bytes: u64) -> Self {
        let blocks = u32::try_from(bytes / BLOCK_BYTES as u64).unwrap_or(u32::MAX);
        Self { file, path, blocks, window: Vec::new(), window_start: 0 }
    }

    /// A block that must be in the file.
    fn block(&mut self, at: u32) -> Result<&[u8], DiskError> {
        let held = u32::try_from(self.window.len() / BLOCK_BYTES).expect("at most a window");
        if at < self.window_start || at - self.window_start >= held {
            let count = WINDOW_BLOCKS.min(self.blocks - at);
            self.window.resize(count as usize * BLOCK_BYTES, 0);
            self.window_start = at;
            self.file.read_at(&mut self.window, block::offset_of(at)).during("read", self.path)?;
        }
        let from = (at - self.window_start) as usize * BLOCK_BYTES;
        Ok(&self.window[from..from + BLOCK_BYTES])
    }

    /// Reads the frame whose first block has this header, or says which block is the first bad one.
    fn frame(
        &mut self,
        first: u32,
        header: &BlockHeader,
        payload: &mut Vec<u8>,
    ) -> Result<Result<(), u32>, DiskError> {
        payload.clear();
        let count =
            u32::try_from(blocks_of(header.frame_bytes as usize)).expect("less than its bytes");
        for number in 0..count {
            let at = first.saturating_add(number);
            if at >= self.blocks {
                return Ok(Err(at));
            }
            let block = self.block(at)?;
            let expected = BlockHeader { number, ..*header };
            if look(block, at) != Seen::Whole(expected) {
                return Ok(Err(at));
            }
            payload.extend_from_slice(payload_of(block, &expected));
        }
        Ok(Ok(()))
    }
}
