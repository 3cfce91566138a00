//! Records: the content of frames.
//!
//! | kind | record | layout after the kind byte (integers little-endian) |
//! |---:|---|---|
//! | 1 | hard state | term 8, vote 8 (0: none) |
//! | 2 | truncation | first dropped index 8 |
//! | 3 | commit hint | commit index 8 |
//! | 4 | base | keeps suffix 1 (0 or 1), length 4, postcard of [`SnapshotMeta`] |
//! | 5 | no-op entry | length 4 (0), term 8, index 8 |
//! | 6 | command entry | length 4, term 8, index 8, command |
//! | 7 | membership entry | length 4, term 8, index 8, postcard of [`Membership`] |
//! | 8 | segment start | length 4, magic 8, version 4, segment 4, log 8, file bytes 8, postcard of [`State`] |
//!
//! Kind 0 is no record. An unknown kind is never skipped: whoever wrote it meant something by it.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::Impossible;
use crate::consensus::{
    Entry, HardState, Index, LogId, Membership, NodeId, Payload, Persist, SnapshotMeta, Term,
};

/// Format of everything below the directory. Version 1 is the first.
pub(super) const VERSION: u32 = 1;
/// First payload bytes of a segment, in this and every later version, followed by the version.
pub(super) const MAGIC: [u8; 8] = *b"OUTRIGGR";

/// Bytes of an entry's record besides its payload.
pub(super) const ENTRY_HEADER_BYTES: usize = 21;
/// Highest index that is accepted; thousands of years away.
const LAST_INDEX: Index = Index(1 << 62);
const SEGMENT_FIXED_BYTES: usize = 32;

const HARD_STATE: u8 = 1;
const TRUNCATE: u8 = 2;
const COMMIT: u8 = 3;
const BASE: u8 = 4;
const NOOP: u8 = 5;
const COMMAND: u8 = 6;
const MEMBERSHIP: u8 = 7;
const SEGMENT: u8 = 8;

/// One record; payloads are borrowed from the entry that is written or from the frame that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// New term or vote.
    HardState(HardState),
    /// This index and everything above it is dropped.
    Truncate(Index),
    /// Commit hint.
    Commit(Index),
    /// The log begins after this entry; what stood behind it stays or goes (paper Figure 13, step 6).
    Base { meta: Cow<'a, SnapshotMeta>, keeps_suffix: bool },
    /// Appends.
    Entry { id: LogId, payload: EntryPayload<'a> },
    /// First record of each segment, and nowhere else.
    Segment(Cow<'a, SegmentStart>),
}

/// Payload of an entry, as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EntryPayload<'a> {
    Noop,
    Command(&'a [u8]),
    Membership(Cow<'a, Membership>),
}

/// How a segment starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentStart {
    /// Number of the segment; also its file's name.
    pub(super) segment: u32,
    /// Which log it belongs to: random, the same in all its segments.
    pub(super) log: u64,
    /// Length of the file while it is the newest one.
    pub(super) file_bytes: u64,
    /// What the log held before this segment's first frame.
    pub(super) state: State,
}

/// All that a reader must know to go on from here. Fields are encoded in this order.
#[expect(clippy::struct_field_names, reason = "`hard_state` is the field's word (paper Figure 2)")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The last entry that the log no longer holds.
    pub(super) base: Option<SnapshotMeta>,
    /// Term and vote.
    pub(super) hard_state: HardState,
    /// End of the log.
    pub(super) last: LogId,
    /// Commit hint.
    pub(super) commit_index: Index,
    /// Configuration in force, and where it stands.
    pub(super) membership: Option<(Index, Membership)>,
}

/// The records of a batch, in the order in which they take effect.
pub(super) fn records_of(batch: &Persist) -> impl Iterator<Item = Record<'_>> + Clone {
    let hard_state = batch.hard_state.map(Record::HardState);
    let truncate = batch.truncate_from.map(Record::Truncate);
    let commit = Some(batch.commit_index).filter(|index| *index > Index(0)).map(Record::Commit);
    hard_state
        .into_iter()
        .chain(truncate)
        .chain(batch.append.iter().map(Record::of_entry))
        .chain(commit)
}

impl Record<'_> {
    /// The record that appends `entry`.
    pub(super) fn of_entry(entry: &Entry) -> Record<'_> {
        let payload = match &entry.payload {
            Payload::Noop => EntryPayload::Noop,
            Payload::Command(command) => EntryPayload::Command(command),
            Payload::Membership(membership) => EntryPayload::Membership(Cow::Borrowed(membership)),
        };
        Record::Entry { id: entry.id, payload }
    }

    /// Length of the encoded record, in bytes.
    pub(super) fn encoded_bytes(&self) -> usize {
        match self {
            Record::HardState(_) => 17,
            Record::Truncate(_) | Record::Commit(_) => 9,
            Record::Base { meta, .. } => 6 + encode_meta(meta).len(),
            Record::Entry { payload, .. } => {
                ENTRY_HEADER_BYTES
                    + match payload {
                        EntryPayload::Noop => 0,
                        EntryPayload::Command(command) => command.len(),
                        EntryPayload::Membership(membership) => to_postcard(&**membership).len(),
                    }
            }
            Record::Segment(start) => 5 + SEGMENT_FIXED_BYTES + to_postcard(&start.state).len(),
        }
    }

    /// Encodes; `put` is called with consecutive parts.
    pub(super) fn encode(&self, mut put: impl FnMut(&[u8])) {
        match self {
            Record::HardState(HardState { term, vote }) => {
                put(&[HARD_STATE]);
                put(&term.0.to_le_bytes());
                put(&vote.map_or(0, |vote| vote.0).to_le_bytes());
            }
            Record::Truncate(Index(from)) => put_index(TRUNCATE, *from, put),
            Record::Commit(Index(index)) => put_index(COMMIT, *index, put),
            Record::Base { meta, keeps_suffix } => {
                let meta = encode_meta(meta);
                put(&[BASE, u8::from(*keeps_suffix)]);
                put(&length(&meta).to_le_bytes());
                put(&meta);
            }
            Record::Entry { id, payload } => match payload {
                EntryPayload::Noop => put_entry(NOOP, *id, &[], put),
                EntryPayload::Command(command) => put_entry(COMMAND, *id, command, put),
                EntryPayload::Membership(membership) => {
                    put_entry(MEMBERSHIP, *id, &to_postcard(&**membership), put);
                }
            },
            Record::Segment(start) => put_segment(start, put),
        }
    }

    /// Decodes the record that `bytes` start with; also returns its length.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Record<'_>, usize), Impossible> {
        let mut reader = Reader { bytes };
        let record = match reader.u8()? {
            HARD_STATE => {
                let (term, vote) = (Term(reader.u64()?), reader.u64()?);
                Record::HardState(HardState {
                    term,
                    vote: Some(vote).filter(|v| *v != 0).map(NodeId),
                })
            }
            TRUNCATE => Record::Truncate(reader.index()?),
            COMMIT => Record::Commit(reader.index()?),
            BASE => reader.base()?,
            kind @ (NOOP | COMMAND | MEMBERSHIP) => reader.entry(kind)?,
            SEGMENT => Record::Segment(Cow::Owned(reader.segment()?)),
            kind => return Err(Impossible(format!("unknown record kind {kind}"))),
        };
        let length = bytes.len() - reader.bytes.len();
        Ok((record, length))
    }
}

impl EntryPayload<'_> {
    /// Makes it an entry's payload; a command's bytes are shared with `frame`, from which it was decoded.
    pub(super) fn shared(self, frame: &Bytes) -> Payload {
        match self {
            EntryPayload::Noop => Payload::Noop,
            EntryPayload::Command(command) => Payload::Command(frame.slice_ref(command)),
            EntryPayload::Membership(membership) => {
                Payload::Membership(Box::new(membership.into_owned()))
            }
        }
    }
}

/// The version in a segment's first payload bytes, or `None` when they are no segment's.
pub(super) fn version_of(payload: &[u8]) -> Option<u32> {
    let mut reader = Reader { bytes: payload.get(5..)? };
    let magic = reader.take(8).ok()?;
    let version = reader.u32().ok()?;
    (payload[0] == SEGMENT && magic == MAGIC).then_some(version)
}

fn put_index(kind: u8, index: u64, mut put: impl FnMut(&[u8])) {
    put(&[kind]);
    put(&index.to_le_bytes());
}

fn put_entry(kind: u8, id: LogId, payload: &[u8], mut put: impl FnMut(&[u8])) {
    let mut header = [kind; ENTRY_HEADER_BYTES];
    header[1..5].copy_from_slice(&length(payload).to_le_bytes());
    header[5..13].copy_from_slice(&id.term.0.to_le_bytes());
    header[13..].copy_from_slice(&id.index.0.to_le_bytes());
    put(&header);
    put(payload);
}

fn put_segment(start: &SegmentStart, mut put: impl FnMut(&[u8])) {
    let state = to_postcard(&start.state);
    put(&[SEGMENT]);
    put(&(u32::try_from(SEGMENT_FIXED_BYTES).expect("a small constant") + length(&state))
        .to_le_bytes());
    put(&MAGIC);
    put(&VERSION.to_le_bytes());
    put(&start.segment.to_le_bytes());
    put(&start.log.to_le_bytes());
    put(&start.file_bytes.to_le_bytes());
    put(&state);
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("records are limited to far less")
}

/// A snapshot's description as the log and the snapshot's own file hold it.
pub(crate) fn encode_meta(meta: &SnapshotMeta) -> Vec<u8> {
    to_postcard(meta)
}

/// Reads what [`encode_meta`] made; there must be nothing behind it.
pub(crate) fn decode_meta(bytes: &[u8]) -> Result<SnapshotMeta, Impossible> {
    let meta: SnapshotMeta = from_postcard(bytes)?;
    checked(meta.last.index)?;
    Ok(meta)
}

fn to_postcard<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data in memory always encodes")
}

fn from_postcard<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, Impossible> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(Impossible(format!("{} bytes too many in a record", rest.len()))),
        Err(error) => Err(Impossible(format!("undecodable record: {error}"))),
    }
}

/// Refuses indexes that no log ever reaches, so that arithmetic on them cannot overflow.
fn checked(index: Index) -> Result<Index, Impossible> {
    if index > LAST_INDEX {
        Err(Impossible(format!("impossible index {index}")))
    } else {
        Ok(index)
    }
}

/// Takes values off the front of a payload.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: u32) -> Result<&'a [u8], Impossible> {
        let missing = || Impossible(format!("a record of {length} bytes ends early"));
        let (taken, rest) = self.bytes.split_at_checked(length as usize).ok_or_else(missing)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Impossible> {
        Ok(self.take(1)?[0])
    }

    fn bool(&mut self) -> Result<bool, Impossible> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Impossible(format!("{other} is neither yes nor no"))),
        }
    }

    fn u32(&mut self) -> Result<u32, Impossible> {
        Ok(self.take(4)?.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }

    fn u64(&mut self) -> Result<u64, Impossible> {
        Ok(self.take(8)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn index(&mut self) -> Result<Index, Impossible> {
        checked(Index(self.u64()?))
    }

    fn base(&mut self) -> Result<Record<'a>, Impossible> {
        let keeps_suffix = self.bool()?;
        let length = self.u32()?;
        let meta = decode_meta(self.take(length)?)?;
        Ok(Record::Base { meta: Cow::Owned(meta), keeps_suffix })
    }

    fn entry(&mut self, kind: u8) -> Result<Record<'a>, Impossible> {
        let length = self.u32()?;
        let id = LogId::new(Term(self.u64()?), self.index()?);
        let bytes = self.take(length)?;
        let payload = match kind {
            NOOP if bytes.is_empty() => EntryPayload::Noop,
            NOOP => return Err(Impossible("a no-op entry with content".to_owned())),
            COMMAND => EntryPayload::Command(bytes),
            _ => EntryPayload::Membership(Cow::Owned(from_postcard(bytes)?)),
        };
        Ok(Record::Entry { id, payload })
    }

    fn segment(&mut self) -> Result<SegmentStart, Impossible> {
        let length = self.u32()?;
        let mut reader = Self { bytes: self.take(length)? };
        if reader.take(8)? != MAGIC || reader.u32()? != VERSION {
            return Err(Impossible("a segment start of another format".to_owned()));
        }
        let (segment, log, file_bytes) = (reader.u32()?, reader.u64()?, reader.u64()?);
        let state: State = from_postcard(reader.bytes)?;
        checked(state.last.index)?;
        let base = state.base.as_ref().map_or(Index(0), |base| base.last.index);
        if base > state.last.index || state.commit_index > state.last.index {
            return Err(Impossible("a segment start that contradicts itself".to_owned()));
        }
        Ok(SegmentStart { segment, log, file_bytes, state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode(|part| bytes.extend_from_slice(part));
        assert_eq!(bytes.len(), record.encoded_bytes(), "{record:?}");
        bytes
    }

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(Term(term), Index(index))
    }

    fn membership() -> Membership {
        Membership { voters: [NodeId(7)].into(), ..Membership::default() }
    }

    fn meta() -> SnapshotMeta {
        SnapshotMeta { last: id(3, 9), membership: membership(), membership_index: Index(4) }
    }

    fn start() -> SegmentStart {
        let state = State {
            base: Some(meta()),
            hard_state: HardState { term: Term(5), vote: Some(NodeId(7)) },
            last: id(4, 12),
            commit_index: Index(10),
            membership: Some((Index(11), membership())),
        };
        SegmentStart { segment: 2, log: 3, file_bytes: 4096, state }
    }

    /// The format on disk: a change here is another [`VERSION`].
    #[test]
    fn the_format_is_as_the_table_says() {
        let vote = Some(NodeId(0x0102_0304_0506_0708));
        let table: [(Record<'_>, &[u8]); 9] = [
            (
                Record::HardState(HardState { term: Term(5), vote }),
                &[1, 5, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1],
            ),
            (
                Record::HardState(HardState { term: Term(5), vote: None }),
                &[1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
            (Record::Truncate(Index(258)), &[2, 2, 1, 0, 0, 0, 0, 0, 0]),
            (Record::Commit(Index(258)), &[3, 2, 1, 0, 0, 0, 0, 0, 0]),
            (
                Record::Base { meta: Cow::Owned(meta()), keeps_suffix: true },
                &[4, 1, 8, 0, 0, 0, 3, 9, 1, 7, 0, 0, 0, 4],
            ),
            (
                Record::Entry { id: id(3, 9), payload: EntryPayload::Noop },
                &[5, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0],
            ),
            (
                Record::Entry { id: id(3, 9), payload: EntryPayload::Command(b"hi") },
                &[6, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, b'h', b'i'],
            ),
            (
                Record::Entry {
                    id: id(3, 9),
                    payload: EntryPayload::Membership(Cow::Owned(membership())),
                },
                &[7, 5, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 7, 0, 0, 0],
            ),
            (
                Record::Segment(Cow::Owned(start())),
                b"\x08\x36\0\0\0OUTRIGGR\x01\0\0\0\x02\0\0\0\x03\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\
                  \x01\x03\x09\x01\x07\0\0\0\x04\x05\x01\x07\x04\x0c\x0a\x01\x0b\x01\x07\0\0\0",
            ),
        ];
        for (record, bytes) in table {
            assert_eq!(encoded(&record), bytes, "{record:?}");
            assert_eq!(Record::decode(bytes), Ok((record, bytes.len())));
        }
    }

    #[test]
    fn a_record_that_ends_early_or_says_nonsense_is_refused() {
        let records = [
            Record::Truncate(Index(1)),
            Record::Base { meta: Cow::Owned(meta()), keeps_suffix: false },
            Record::Entry { id: id(1, 1), payload: EntryPayload::Command(b"abc") },
            Record::Segment(Cow::Owned(start())),
        ];
        for record in records {
            let bytes = encoded(&record);
            for length in 0..bytes.len() {
                assert!(Record::decode(&bytes[..length]).is_err(), "{record:?} cut at {length}");
            }
        }
        let nonsense: [&[u8]; 6] = [
            &[0; 40],
            &[9; 40],
            &[2, 0, 0, 0, 0, 0, 0, 0, 0xff],
            &[4, 2, 8, 0, 0, 0, 3, 9, 1, 7, 0, 0, 0, 4],
            &[4, 1, 9, 0, 0, 0, 3, 9, 1, 7, 0, 0, 0, 4, 0],
            &[5, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        for bytes in nonsense {
            assert!(Record::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn the_version_is_found_without_understanding_the_rest() {
        let mut bytes = encoded(&Record::Segment(Cow::Owned(start())));
        bytes[13] = 77;
        assert_eq!(version_of(&bytes[..17]), Some(77));
        assert!(Record::decode(&bytes).is_err());
        bytes[5] = b'X';
        assert_eq!(version_of(&bytes), None);
        assert_eq!(version_of(&[]), None);
    }

    #[test]
    fn a_batch_takes_effect_in_the_order_of_its_fields() {
        let entry = |index| Entry { id: id(2, index), payload: Payload::Noop };
        let batch = Persist {
            batch: crate::consensus::BatchNo(1),
            hard_state: Some(HardState { term: Term(2), vote: None }),
            truncate_from: Some(Index(4)),
            append: vec![entry(4), entry(5)],
            commit_index: Index(5),
        };
        let kinds: Vec<u8> = records_of(&batch).map(|record| encoded(&record)[0]).collect();
        assert_eq!(kinds, [HARD_STATE, TRUNCATE, NOOP, NOOP, COMMIT]);
        assert_eq!(records_of(&Persist::default()).count(), 0);
    }

    proptest! {
        #[test]
        fn bytes_never_panic_and_what_decodes_encodes_to_the_same(kind in 0..10_u8, rest in prop::collection::vec(any::<u8>(), 0..120)) {
            let bytes = [vec![kind], rest].concat();
            if let Ok((record, length)) = Record::decode(&bytes) {
                let again = encoded(&record);
                prop_assert_eq!(Record::decode(&again), Ok((record, again.len())));
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
