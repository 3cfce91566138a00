//! Reading the log's files without taking them over, for whoever wants to know what is in them. Unlike an open this goes on
//! behind damage, as far as it can: each segment says where the log stood when it was started.

use std::path::{Path, PathBuf};

use super::Disk;
use super::error::{DiskError, OpenError};
use super::log::Log;
use super::record::{EntryPayload, Record, State};
use super::recovery::{Head, Names, Walk, missing_before};
use super::segment::file_name;
use crate::consensus::{Entry, HardState, Index, LogId, Membership, Payload, SnapshotMeta};

/// What stands in the log, in the order of writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A segment starts.
    Segment {
        /// Its file.
        file: PathBuf,
        /// Which log it belongs to.
        log: u64,
        /// What the log held before.
        held: Held,
    },
    /// New term or vote.
    HardState(HardState),
    /// This index and everything above it is dropped.
    Truncation(Index),
    /// Everything up to here is known to be committed.
    CommitHint(Index),
    /// The log starts after a snapshot from here on.
    Base {
        /// What it replaces.
        meta: SnapshotMeta,
        /// Whether what stands behind it stays.
        keeps_suffix: bool,
    },
    /// An entry is appended.
    Entry(Entry),
}

/// Where a log stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// What the log starts after.
    pub base: Option<SnapshotMeta>,
    /// Its end.
    pub last: LogId,
    /// Term and vote.
    pub hard_state: HardState,
    /// Everything up to here is known to be committed.
    pub commit_index: Index,
    /// The configuration in force, and where it stands.
    pub membership: Option<(Index, Membership)>,
}

/// A segment that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Its file.
    pub file: PathBuf,
    /// Length of the file.
    pub bytes: u64,
    /// Frames that are whole, without the one that the segment starts with.
    pub frames: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Segments whose start is whole, oldest first.
    pub segments: Vec<SegmentSummary>,
    /// Files of segments that count no more: their removal was cut short by a power cut, the next open repeats it.
    pub stale: Vec<PathBuf>,
    /// Where the log stands, as far as it could be read.
    pub held: Held,
    /// First index whose entry is there; one past the end when there is none.
    pub first: Index,
    /// What an open would refuse, in the order of the files.
    pub faults: Vec<OpenError>,
}

/// Reads all segments in `dir` and tells `on_item` of everything that is whole, as it is read.
///
/// The writer of the log may be at work meanwhile. Then the end of the log may be torn or seem damaged, and old segments
/// may vanish: only what is found again a moment later is so.
///
/// # Errors
/// The directory cannot be listed; of a file that cannot be read [`Inspection::faults`] tells.
pub fn inspect(
    disk: &dyn Disk,
    dir: &Path,
    on_item: &mut dyn FnMut(Item),
) -> Result<Inspection, DiskError> {
    let names = Names::list(disk, dir)?;
    let heads: Vec<_> = names.segments.iter().map(|id| Head::read(disk, dir, *id)).collect();
    let log_id = heads.iter().rev().find_map(|head| head.as_ref().ok()).map(|head| head.start.log);
    let ends: Vec<_> = heads.iter().skip(1).map(End::before).chain([End::Open]).collect();
    let mut inspector = Inspector { log: None, found: Inspection::default(), on_item };
    inspector.found.stale = names.stale.into_iter().map(|id| dir.join(file_name(id))).collect();
    for (head, end) in heads.into_iter().zip(ends) {
        let head = head.and_then(|head| head.belongs_to(log_id.unwrap_or_default()).map(|()| head));
        match head {
            Ok(head) => inspector.read(&head, end),
            Err(error) => inspector.fault(error),
        }
    }
    Ok(inspector.finish(dir, names.segments.first().copied()))
}

/// Where a segment ends.
#[derive(Clone, Copy)]
enum End {
    /// Before the frame with this number.
    At(u64),
    /// The next segment should say it, but is damaged.
    Unknown,
    /// It is the newest.
    Open,
}

impl End {
    fn before(next: &Result<Head, OpenError>) -> Self {
        next.as_ref().map_or(Self::Unknown, |next| Self::At(next.seq))
    }
}

struct Inspector<'a> {
    /// None when the next segment does not continue what was read.
    log: Option<Log>,
    found: Inspection,
    on_item: &'a mut dyn FnMut(Item),
}

impl Inspector<'_> {
    fn fault(&mut self, error: OpenError) {
        self.note_state();
        self.log = None;
        self.found.faults.push(error);
    }

    fn read(&mut self, head: &Head, end: End) {
        let (file, log) = (head.path.clone(), head.start.log);
        (self.on_item)(Item::Segment { file, log, held: Held::from(head.start.state.clone()) });
        let from_start = || Log::from_state(head.start.state.clone());
        let mut log = self.log.take().unwrap_or_else(from_start);
        if let Err(error) = self.walk(head, &mut log, end) {
            self.log = Some(log);
            self.fault(error);
        } else {
            self.log = Some(log);
        }
    }

    fn walk(&mut self, head: &Head, log: &mut Log, end: End) -> Result<(), OpenError> {
        let on_item = &mut *self.on_item;
        let mut watch = |record: &Record<'_>| on_item(Item::of(record));
        let mut walk = Walk::new(head, log, &mut watch)?;
        let outcome = match end {
            End::At(seq) => walk.older(seq),
            End::Unknown => walk.rest(),
            End::Open => walk.newest().map(drop),
        };
        let (file, bytes, frames) = (head.path.clone(), head.bytes, walk.frames());
        self.found.segments.push(SegmentSummary { file, bytes, frames });
        outcome
    }

    fn note_state(&mut self) {
        if let Some(log) = &self.log {
            self.found.held = log.state().into();
            self.found.first = log.first();
        }
    }

    fn finish(mut self, dir: &Path, first: Option<u32>) -> Inspection {
        self.note_state();
        let is_one_log = self.found.faults.is_empty();
        if let Some((log, first)) = self.log.as_mut().zip(first)
            && is_one_log
            && let Err(error) = log.complete()
        {
            self.found.faults.push(missing_before(dir, first, &error).into());
        }
        self.found
    }
}

impl Item {
    fn of(record: &Record<'_>) -> Self {
        match record {
            Record::HardState(hard_state) => Self::HardState(*hard_state),
            Record::Truncate(from) => Self::Truncation(*from),
            Record::Commit(index) => Self::CommitHint(*index),
            Record::Base { meta, keeps_suffix } => {
                Self::Base { meta: meta.clone().into_owned(), keeps_suffix: *keeps_suffix }
            }
            Record::Entry { id, payload } => {
                let payload = match payload {
                    EntryPayload::Noop => Payload::Noop,
                    EntryPayload::Command(command) => Payload::Command(command.to_vec().into()),
                    EntryPayload::Membership(membership) => {
                        Payload::Membership(Box::new(membership.clone().into_owned()))
                    }
                };
                Self::Entry(Entry { id: *id, payload })
            }
            Record::Segment(_) => unreachable!("no log admits a segment start inside a segment"),
        }
    }
}

impl From<State> for Held {
    fn from(state: State) -> Self {
        let State { base, hard_state, last, commit_index, membership } = state;
        Self { base, last, hard_state, commit_index, membership }
    }
}
