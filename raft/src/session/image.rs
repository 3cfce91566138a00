//! The session table as it travels with a snapshot. Little-endian:
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 2 | version: 1 |
//! | 2 | 8 | folded: the last entry that is in it |
//! | 10 | 8 | log time, milliseconds since 1970 |
//! | 18 | 4 | sessions |
//! | 22 | 4 | entries that were passed over |
//! | 26 | 8 | of the entries up to this one it is not known which were passed over |
//! | 34 | … | the sessions, by number ascending |
//! | … | 8 each | indexes of the entries that were passed over, ascending |
//!
//! A session:
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 8 | number |
//! | 8 | 8 | index of the entry that used it last |
//! | 16 | 8 | log time of that |
//! | 24 | 8 | time to live, milliseconds |
//! | 32 | 8 | `acked_below` |
//! | 40 | 4 | commands that it remembers, at most 1,024 |
//! | 44 | … | the commands, by sequence number ascending |
//!
//! A command:
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 8 | sequence number |
//! | 8 | 8 | its index |
//! | 16 | 1 | result: 0 not kept, 1 done, 2 refused |
//! | 17 | 4 | of 1 and 2: length of the result in bytes |
//! | 21 | … | of 1 and 2: the result |
//!
//! There is no checksum: whatever stores or sends an image has one. What is read is checked all the same, since a table
//! that contradicts itself would give verdicts that no other node gives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::window::{Applied, Session};
use super::{MAX_REMEMBERED_COMMANDS, MAX_SESSIONS, MAX_TTL_MS, Sessions};
use crate::consensus::{Index, SnapshotMeta};
use crate::rpc::client::{Outcome, SESSION_WINDOW};

const VERSION: u16 = 1;

const NOT_KEPT: u8 = 0;
const DONE: u8 = 1;
const REFUSED: u8 = 2;

/// The session table at one place of the log. A clone shares the sessions with the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    folded: Index,
    time_ms: u64,
    open: BTreeMap<u64, Arc<Session>>,
    passed_over: BTreeSet<Index>,
    passed_over_after: Index,
}

/// What the beginning of an image tells of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The last entry that is folded into it.
    pub folded: Index,
    /// Log time, milliseconds since 1970.
    pub time_ms: u64,
    /// Sessions in it.
    pub sessions: usize,
}

/// Bytes are not an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// A later version of this program wrote it.
    #[error("session image of version {version}, known is {VERSION}: start a newer raft")]
    UnknownVersion {
        /// What it says.
        version: u16,
    },
    /// It was made before the last entry of the snapshot that it stands beside.
    #[error(
        "session image of entries up to {folded} beside a snapshot up to {last}: it lacks what was applied"
    )]
    Older {
        /// Last entry in the image.
        folded: Index,
        /// Last entry of the snapshot.
        last: Index,
    },
    /// It is cut off, or contradicts itself.
    #[error("malformed session image at byte {offset}: {what}")]
    Malformed {
        /// Where.
        offset: usize,
        /// What is wrong there.
        what: &'static str,
    },
}

impl Sessions {
    /// The table as it is after `folded`. `passed_over`: the entries that must not be applied.
    pub fn image(&self, folded: Index, passed_over: BTreeSet<Index>) -> Image {
        let (time_ms, open, passed_over_after) = (self.time_ms, self.open.clone(), Index(0));
        Image { folded, time_ms, open, passed_over, passed_over_after }
    }

    /// The table of an image, and the entries that must not be applied.
    pub fn from_image(image: Image) -> (Self, BTreeSet<Index>) {
        let Image { folded: _, time_ms, open, passed_over, passed_over_after: _ } = image;
        let mut sessions = Self { time_ms, ..Self::default() };
        for (number, session) in open {
            sessions.enter(number, session);
        }
        sessions.trim_results();
        (sessions, passed_over)
    }
}

impl Image {
    /// The last entry that is folded into it.
    pub fn folded(&self) -> Index {
        self.folded
    }

    /// Log time, milliseconds since 1970: no later command has an earlier stamp.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Which of the entries up to here must not be applied is not known: the log of whoever made it began after this one.
    pub fn passed_over_after(&self) -> Index {
        self.passed_over_after
    }

    /// Says up to where the entries that were passed over are not known.
    #[must_use]
    pub fn knowing_after(self, passed_over_after: Index) -> Self {
        Self { passed_over_after, ..self }
    }

    /// Whether it may stand beside this snapshot: one of an older entry lacks what was applied.
    pub fn covers(&self, snapshot: &SnapshotMeta) -> bool {
        self.folded >= snapshot.last.index
    }

    /// Sessions in it.
    pub fn sessions(&self) -> usize {
        self.open.len()
    }

    /// Its bytes. Takes a while for a large table: not to be done on an event loop.
    pub fn encode(&self) -> Vec<u8> {
        let mut buffer = Vec::new();
        buffer.put_u16_le(VERSION);
        buffer.put_u64_le(self.folded.0);
        buffer.put_u64_le(self.time_ms);
        put_count(&mut buffer, self.open.len());
        put_count(&mut buffer, self.passed_over.len());
        buffer.put_u64_le(self.passed_over_after.0);
        for (number, session) in &self.open {
            put_session(&mut buffer, *number, session);
        }
        self.passed_over.iter().for_each(|index| buffer.put_u64_le(index.0));
        buffer
    }

    /// What the first bytes of an image tell; none when there are too few, or of another version.
    pub fn outline(bytes: &[u8]) -> Option<Outline> {
        let mut reader = Reader { bytes, offset: 0 };
        let is_known = reader.u16().ok()? == VERSION;
        let (folded, time_ms) = (Index(reader.u64().ok()?), reader.u64().ok()?);
        let sessions = reader.count().ok()?;
        is_known.then_some(Outline { folded, time_ms, sessions })
    }

    /// Reads the image that stands beside this snapshot.
    ///
    /// # Errors
    /// As [`Image::decode`], or [`ImageError::Older`].
    pub fn beside(snapshot: &SnapshotMeta, bytes: &[u8]) -> Result<Self, ImageError> {
        let image = Self::decode(bytes)?;
        if image.covers(snapshot) {
            return Ok(image);
        }
        Err(ImageError::Older { folded: image.folded, last: snapshot.last.index })
    }

    /// Reads and checks an image. Takes no more memory than the bytes call for.
    ///
    /// # Errors
    /// Names the first byte that does not fit.
    pub fn decode(bytes: &[u8]) -> Result<Self, ImageError> {
        let mut reader = Reader { bytes, offset: 0 };
        let version = reader.u16()?;
        if version != VERSION {
            return Err(ImageError::UnknownVersion { version });
        }
        let (folded, time_ms) = (Index(reader.u64()?), reader.u64()?);
        let image = Self { folded, time_ms, ..Self::default() };
        Decoder { image, reader, users: BTreeSet::new(), places: BTreeSet::new() }.finish()
    }
}

fn put_count(buffer: &mut Vec<u8>, count: usize) {
    buffer.put_u32_le(u32::try_from(count).expect("the table is bounded"));
}

fn put_session(buffer: &mut Vec<u8>, number: u64, session: &Session) {
    buffer.put_u64_le(number);
    buffer.put_u64_le(session.last_used.0);
    buffer.put_u64_le(session.last_used_ms);
    buffer.put_u64_le(session.ttl_ms);
    buffer.put_u64_le(session.acked_below);
    put_count(buffer, session.applied.len());
    for (sequence, Applied { index, result }) in &session.applied {
        buffer.put_u64_le(*sequence);
        buffer.put_u64_le(index.0);
        put_result(buffer, result.as_ref());
    }
}

fn put_result(buffer: &mut Vec<u8>, result: Option<&Outcome>) {
    let (kind, bytes) = match result {
        None | Some(Outcome::AlreadyApplied) => return buffer.put_u8(NOT_KEPT),
        Some(Outcome::Done(bytes)) => (DONE, bytes),
        Some(Outcome::Refused(bytes)) => (REFUSED, bytes),
    };
    buffer.put_u8(kind);
    put_count(buffer, bytes.len());
    buffer.put_slice(bytes);
}

/// Bytes that are read from the front.
struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn malformed(&self, what: &'static str) -> ImageError {
        ImageError::Malformed { offset: self.offset, what }
    }

    fn require(&self, holds: bool, what: &'static str) -> Result<(), ImageError> {
        if holds { Ok(()) } else { Err(self.malformed(what)) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ImageError> {
        let end = self.offset.checked_add(length);
        let taken = end.and_then(|end| self.bytes.get(self.offset..end));
        let taken = taken.ok_or(self.malformed("cut off"))?;
        self.offset += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ImageError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, ImageError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, ImageError> {
        self.array().map(u16::from_le_bytes)
    }

    fn count(&mut self) -> Result<usize, ImageError> {
        Ok(usize::try_from(u32::from_le_bytes(self.array()?)).unwrap_or(usize::MAX))
    }

    fn u64(&mut self) -> Result<u64, ImageError> {
        self.array().map(u64::from_le_bytes)
    }
}

/// An image in the making.
struct Decoder<'a> {
    image: Image,
    reader: Reader<'a>,
    /// Entries that used a session last: an entry uses one.
    users: BTreeSet<Index>,
    /// Entries of the commands so far: each stands alone.
    places: BTreeSet<Index>,
}

impl Decoder<'_> {
    fn finish(mut self) -> Result<Image, ImageError> {
        let (sessions, passed_over) = (self.reader.count()?, self.reader.count()?);
        self.image.passed_over_after = Index(self.reader.u64()?);
        let known = self.image.passed_over_after <= self.image.folded;
        self.reader.require(known, "nothing is known of what was passed over")?;
        self.reader.require(sessions <= MAX_SESSIONS, "too many sessions")?;
        for _ in 0..sessions {
            self.read_session()?;
        }
        for _ in 0..passed_over {
            let index = Index(self.reader.u64()?);
            let last = self.image.passed_over.last().copied().unwrap_or_default();
            let fits = last < index && index <= self.image.folded;
            self.reader.require(fits, "passed over out of order")?;
            self.image.passed_over.insert(index);
        }
        let at_end = self.reader.offset == self.reader.bytes.len();
        self.reader.require(at_end, "something follows the end")?;
        Ok(self.image)
    }

    fn read_session(&mut self) -> Result<(), ImageError> {
        let number = self.reader.u64()?;
        let last = self.image.open.last_key_value().map_or(0, |(number, _)| *number);
        self.reader.require(last < number, "sessions out of order")?;
        let mut session = Session {
            last_used: Index(self.reader.u64()?),
            last_used_ms: self.reader.u64()?,
            ttl_ms: self.reader.u64()?,
            acked_below: self.reader.u64()?,
            applied: BTreeMap::new(),
        };
        self.check_use(number, &session)?;
        let commands = self.reader.count()?;
        for _ in 0..commands {
            self.read_command(number, &mut session)?;
        }
        self.image.open.insert(number, Arc::new(session));
        Ok(())
    }

    fn check_use(&mut self, number: u64, session: &Session) -> Result<(), ImageError> {
        let in_log = number <= session.last_used.0 && session.last_used <= self.image.folded;
        self.reader.require(in_log, "used before it was opened, or after the image")?;
        let alone = self.users.insert(session.last_used);
        self.reader.require(alone, "one entry used two sessions")?;
        let has_ttl = (1..=MAX_TTL_MS).contains(&session.ttl_ms);
        self.reader.require(has_ttl, "time to live out of range")?;
        let time_ms = self.image.time_ms;
        let lives = session.last_used_ms <= time_ms && time_ms <= session.deadline_ms();
        self.reader.require(lives, "expired, or used in the future")
    }

    fn read_command(&mut self, number: u64, session: &mut Session) -> Result<(), ImageError> {
        let (sequence, index) = (self.reader.u64()?, Index(self.reader.u64()?));
        let ascends = session.applied.last_key_value().is_none_or(|(last, _)| *last < sequence);
        self.reader.require(ascends, "sequence numbers out of order")?;
        let ahead = sequence.checked_sub(session.acked_below);
        let in_window = ahead.is_some_and(|ahead| ahead < SESSION_WINDOW);
        self.reader.require(in_window, "sequence number outside of the window")?;
        let in_log = number < index.0 && index <= session.last_used;
        self.reader.require(in_log, "applied outside of its session's life")?;
        self.reader.require(self.places.insert(index), "two commands at one place")?;
        let bounded = self.places.len() <= MAX_REMEMBERED_COMMANDS;
        self.reader.require(bounded, "too many commands")?;
        let result = self.read_result()?;
        session.applied.insert(sequence, Applied { index, result });
        Ok(())
    }

    fn read_result(&mut self) -> Result<Option<Outcome>, ImageError> {
        let wrap = match self.reader.u8()? {
            NOT_KEPT => return Ok(None),
            DONE => Outcome::Done,
            REFUSED => Outcome::Refused,
            _ => return Err(self.reader.malformed("unknown kind of result")),
        };
        let length = self.reader.count()?;
        // A copy of its own: a slice would keep the whole image in memory.
        Ok(Some(wrap(Bytes::copy_from_slice(self.reader.take(length)?))))
    }
}
