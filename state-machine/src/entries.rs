//! A batch of committed entries as one buffer: raft encodes it once and the machine slices commands out of it without a copy.
//!
//! A batch is a sequence of records, nothing before, between or after them. All numbers are little-endian.
//!
//! | offset | bytes | field | meaning |
//! |---|---|---|---|
//! | 0 | 4 | `len` | bytes of `command` |
//! | 4 | 1 | `kind` | 0 = skip (no command, `len` is 0), 1 = command |
//! | 5 | 8 | `term` | term in which the entry was appended |
//! | 13 | 8 | `time_ms` | the leader's clock in milliseconds since 1970, never falling along the log |
//! | 21 | 8 | `session` | the client session that sent the command, 0 = none |
//! | 29 | 8 | `sequence` | its number within the session |
//! | 37 | `len` | `command` | opaque to everything but the machine |
//!
//! The index is not stored: record n of a batch is entry `first_index + n`. This is version 1 of the format, which is part of
//! [`CONTRACT_VERSION`](crate::rpc::CONTRACT_VERSION).

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes of a record before its command.
pub const ENTRY_HEADER_BYTES: usize = 37;

/// The largest command, in bytes (1 MiB).
pub const MAX_COMMAND_BYTES: usize = 1 << 20;

/// The largest batch, in bytes: 1 MiB of records, and one more entry of the largest size.
pub const MAX_BATCH_BYTES: usize = (1 << 20) + ENTRY_HEADER_BYTES + MAX_COMMAND_BYTES;

/// What an entry asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Nothing but to count it: a no-op, a membership change, or a duplicate of a command that was applied before.
    Skip,
    /// To run the command.
    Command,
}

impl EntryKind {
    fn to_byte(self) -> u8 {
        match self {
            EntryKind::Skip => 0,
            EntryKind::Command => 1,
        }
    }

    fn from_byte(byte: u8) -> Option<EntryKind> {
        match byte {
            0 => Some(EntryKind::Skip),
            1 => Some(EntryKind::Command),
            _ => None,
        }
    }
}

/// What comes with a command: the same on every node, so a machine may use all of it in its decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHeader {
    /// What to do with the entry.
    pub kind: EntryKind,
    /// Term in which the entry was appended.
    pub term: u64,
    /// The leader's clock when it took the command, in milliseconds since 1970; never falls along the log.
    pub time_ms: u64,
    /// The client session that sent the command; 0 when there is none.
    pub session: u64,
    /// The command's number within its session.
    pub sequence: u64,
}

/// One entry of a batch, sliced out of the batch's buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Everything but the command.
    pub header: EntryHeader,
    /// The command; empty for [`EntryKind::Skip`].
    pub command: Bytes,
}

/// Why a batch is not a sequence of whole records. Nothing of such a batch is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum BlobError {
    /// The batch is larger than [`MAX_BATCH_BYTES`].
    #[error("a batch of {bytes} bytes is over the limit of {MAX_BATCH_BYTES} bytes")]
    TooLarge {
        /// Size of the batch.
        bytes: u64,
    },
    /// The last record is cut short.
    #[error(
        "the record at byte {offset} is cut short: it needs {needed} bytes and {left} are left"
    )]
    CutShort {
        /// Where the record starts.
        offset: u64,
        /// Bytes of the record, as far as its header tells.
        needed: u64,
        /// Bytes between the record's start and the end of the batch.
        left: u64,
    },
    /// A command is larger than [`MAX_COMMAND_BYTES`].
    #[error(
        "the record at byte {offset} claims a command of {bytes} bytes, over the limit of {MAX_COMMAND_BYTES}"
    )]
    CommandTooLarge {
        /// Where the record starts.
        offset: u64,
        /// Size that its header claims.
        bytes: u64,
    },
    /// The kind is none that this version knows, or a skip that carries a command.
    #[error(
        "the record at byte {offset} has the kind {kind}, which is unknown or may not carry a command"
    )]
    BadKind {
        /// Where the record starts.
        offset: u64,
        /// The byte found.
        kind: u8,
    },
}

/// A batch of entries as it travels. It may hold anything until it was walked: [`EntryBlob::entries`] checks every record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryBlob(Bytes);

impl EntryBlob {
    /// Takes bytes as they came, unchecked.
    pub fn from_bytes(bytes: Bytes) -> EntryBlob {
        EntryBlob(bytes)
    }

    /// The records.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// True when there is no record.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Size of all records.
    pub fn len_bytes(&self) -> usize {
        self.0.len()
    }

    /// Walks the records; ends after the first error. Commands share the batch's buffer.
    pub fn entries(&self) -> Entries {
        Entries { rest: self.0.clone(), offset: 0 }
    }

    /// All entries, or the first thing that is wrong with them.
    ///
    /// # Errors
    /// [`BlobError`] with the place of the first bad record.
    pub fn decode(&self) -> Result<Vec<Entry>, BlobError> {
        if self.0.len() > MAX_BATCH_BYTES {
            return Err(BlobError::TooLarge { bytes: self.0.len() as u64 });
        }
        self.entries().collect()
    }
}

/// The records of a batch, one by one.
#[derive(Debug, Clone)]
pub struct Entries {
    rest: Bytes,
    offset: usize,
}

impl Entries {
    fn cut(&mut self) -> Result<Entry, BlobError> {
        let offset = self.offset as u64;
        let cut_short = |needed: usize, left: usize| BlobError::CutShort {
            offset,
            needed: needed as u64,
            left: left as u64,
        };
        let Some(head) = self.rest.first_chunk::<ENTRY_HEADER_BYTES>() else {
            return Err(cut_short(ENTRY_HEADER_BYTES, self.rest.len()));
        };
        let command_bytes = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if command_bytes > MAX_COMMAND_BYTES {
            return Err(BlobError::CommandTooLarge { offset, bytes: command_bytes as u64 });
        }
        let kind = match EntryKind::from_byte(head[4]) {
            Some(EntryKind::Skip) if command_bytes > 0 => None,
            known => known,
        };
        let Some(kind) = kind else { return Err(BlobError::BadKind { offset, kind: head[4] }) };
        let header = EntryHeader {
            kind,
            term: u64_at(head, 5),
            time_ms: u64_at(head, 13),
            session: u64_at(head, 21),
            sequence: u64_at(head, 29),
        };
        let record_bytes = ENTRY_HEADER_BYTES + command_bytes;
        if self.rest.len() < record_bytes {
            return Err(cut_short(record_bytes, self.rest.len()));
        }
        let record = self.rest.split_to(record_bytes);
        self.offset += record_bytes;
        Ok(Entry { header, command: record.slice(ENTRY_HEADER_BYTES..) })
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, BlobError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.cut();
        if entry.is_err() {
            self.rest = Bytes::new();
        }
        Some(entry)
    }
}

fn u64_at(head: &[u8; ENTRY_HEADER_BYTES], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&head[at..at + 8]);
    u64::from_le_bytes(bytes)
}

/// Builds a batch, record by record.
#[derive(Debug, Default)]
pub struct EntryBlobBuilder {
    records: BytesMut,
    entries: usize,
}

impl EntryBlobBuilder {
    /// An empty batch.
    pub fn new() -> EntryBlobBuilder {
        EntryBlobBuilder::default()
    }

    /// Adds one entry.
    ///
    /// # Panics
    /// When the command is over [`MAX_COMMAND_BYTES`], or a skip has one: entries are checked when they are proposed.
    pub fn push(&mut self, header: &EntryHeader, command: &[u8]) {
        assert!(
            command.len() <= MAX_COMMAND_BYTES,
            "a command of {} bytes is over the limit",
            command.len()
        );
        assert!(
            header.kind == EntryKind::Command || command.is_empty(),
            "a skipped entry carries no command"
        );
        self.records.reserve(ENTRY_HEADER_BYTES + command.len());
        self.records
            .put_u32_le(u32::try_from(command.len()).expect("the limit is far below 4 GiB"));
        self.records.put_u8(header.kind.to_byte());
        self.records.put_u64_le(header.term);
        self.records.put_u64_le(header.time_ms);
        self.records.put_u64_le(header.session);
        self.records.put_u64_le(header.sequence);
        self.records.put_slice(command);
        self.entries += 1;
    }

    /// Size of the batch so far; keep it at or below [`MAX_BATCH_BYTES`].
    pub fn len_bytes(&self) -> usize {
        self.records.len()
    }

    /// Entries so far.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// True before the first [`EntryBlobBuilder::push`].
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The batch.
    pub fn finish(self) -> EntryBlob {
        EntryBlob(self.records.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(kind: EntryKind, term: u64) -> EntryHeader {
        EntryHeader { kind, term, time_ms: 1_700_000_000_123, session: 9, sequence: term + 1 }
    }

    #[test]
    fn a_record_has_the_documented_bytes() {
        let mut builder = EntryBlobBuilder::new();
        let header = EntryHeader {
            kind: EntryKind::Command,
            term: 1,
            time_ms: 2,
            session: 3,
            sequence: 0x0405,
        };
        builder.push(&header, b"hi");
        let expected = [
            [2, 0, 0, 0, 1].as_slice(),
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[5, 4, 0, 0, 0, 0, 0, 0],
            b"hi",
        ]
        .concat();
        assert_eq!(builder.finish().as_bytes().as_ref(), expected);
    }

    #[test]
    fn commands_are_slices_of_the_batch() {
        let mut builder = EntryBlobBuilder::new();
        builder.push(&header(EntryKind::Command, 1), b"abc");
        let blob = builder.finish();
        let entries = blob.decode().unwrap();
        assert_eq!(entries[0].command.as_ptr(), blob.as_bytes()[ENTRY_HEADER_BYTES..].as_ptr());
    }

    #[test]
    fn damaged_batches_are_refused_with_their_place() {
        let whole = |kind: u8, len: u32, command: &[u8]| {
            let mut record = len.to_le_bytes().to_vec();
            record.push(kind);
            record.extend([0; 32]);
            record.extend(command);
            record
        };
        let good = whole(1, 1, b"x");
        let at = good.len() as u64;
        let cases = [
            (whole(1, 2, b"x"), BlobError::CutShort { offset: at, needed: 39, left: 38 }),
            (vec![1, 2, 3], BlobError::CutShort { offset: at, needed: 37, left: 3 }),
            (whole(2, 0, b""), BlobError::BadKind { offset: at, kind: 2 }),
            (whole(0, 1, b"x"), BlobError::BadKind { offset: at, kind: 0 }),
            (
                whole(1, u32::MAX, b""),
                BlobError::CommandTooLarge { offset: at, bytes: u64::from(u32::MAX) },
            ),
        ];
        for (bad, error) in cases {
            let blob = EntryBlob::from_bytes([good.clone(), bad].concat().into());
            assert_eq!(blob.decode(), Err(error));
            let walked: Vec<_> = blob.entries().collect();
            assert_eq!(walked.len(), 2, "the walk ends after the first error");
        }
    }

    #[test]
    fn an_oversized_batch_is_refused_before_it_is_walked() {
        let bytes = vec![0; MAX_BATCH_BYTES + 1];
        let error = BlobError::TooLarge { bytes: MAX_BATCH_BYTES as u64 + 1 };
        assert_eq!(EntryBlob::from_bytes(bytes.into()).decode(), Err(error));
    }

    proptest! {
        #[test]
        fn what_was_pushed_comes_back(commands in prop::collection::vec((any::<bool>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..40)), 0..20)) {
            let mut builder = EntryBlobBuilder::new();
            let mut expected = Vec::new();
            for (skip, term, command) in commands {
                let kind = if skip { EntryKind::Skip } else { EntryKind::Command };
                let command = if skip { Bytes::new() } else { Bytes::from(command) };
                builder.push(&header(kind, term % 1_000), &command);
                expected.push(Entry { header: header(kind, term % 1_000), command });
            }
            prop_assert_eq!(builder.entries(), expected.len());
            prop_assert_eq!(builder.finish().decode().unwrap(), expected);
        }

        #[test]
        fn raw_bytes_never_panic_and_never_yield_more_than_they_hold(raw in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..300)) {
            let len = raw.len();
            let entries = EntryBlob::from_bytes(raw.into()).entries().filter_map(Result::ok);
            let held: usize = entries.map(|entry| ENTRY_HEADER_BYTES + entry.command.len()).sum();
            prop_assert!(held <= len);
        }
    }
}
