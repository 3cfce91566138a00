//! A snapshot as it travels: the machine's own bytes between a head that says what they are and a tail that proves them whole.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | `OUTRSNAP` |
//! | 8 | 2 | version of this format, 1 |
//! | 10 | 8 | term of the newest entry in it |
//! | 18 | 8 | index of that entry |
//! | 26 | 1 | bytes of `name` |
//! | 27 | .. | `name` of the machine, UTF-8 |
//! | .. | .. | body: the machine's own |
//! | end − 12 | 8 | bytes before the tail |
//! | end − 4 | 4 | CRC32C of everything before |
//!
//! Numbers are little-endian. [`SnapshotReader`] makes the stream, [`SnapshotParser`] takes it apart again; neither holds more of it
//! than one piece.

use std::io::{self, Read};

use thiserror::Error;

use crate::machine::LogId;

/// Version of the format that this build writes and reads.
pub const SNAPSHOT_VERSION: u16 = 1;

const MAGIC: &[u8; 8] = b"OUTRSNAP";
const HEAD_BYTES: usize = 27;
const TAIL_BYTES: usize = 12;

fn encode_head(name: &str, applied: LogId) -> Vec<u8> {
    let name_bytes = u8::try_from(name.len()).expect("a machine's name is at most 255 bytes");
    let mut head = MAGIC.to_vec();
    head.extend(SNAPSHOT_VERSION.to_le_bytes());
    head.extend(applied.term.to_le_bytes());
    head.extend(applied.index.to_le_bytes());
    head.push(name_bytes);
    head.extend(name.as_bytes());
    head
}

/// Which machine a stream that begins with these bytes says it is of, and up to which entry. None if it does not begin like
/// a snapshot of this version; nothing is checked beyond that.
pub fn label(stream: &[u8]) -> Option<(String, LogId)> {
    let head = stream.first_chunk::<HEAD_BYTES>()?;
    let version = u16::from_le_bytes([head[8], head[9]]);
    let name = stream.get(HEAD_BYTES..HEAD_BYTES + usize::from(head[26]))?;
    let applied = LogId { term: u64_at(head, 10), index: u64_at(head, 18) };
    (head[..8] == MAGIC[..] && version == SNAPSHOT_VERSION)
        .then(|| (String::from_utf8_lossy(name).into_owned(), applied))
}

fn encode_tail(bytes: u64, checksum: u32) -> [u8; TAIL_BYTES] {
    let mut tail = [0; TAIL_BYTES];
    tail[..8].copy_from_slice(&bytes.to_le_bytes());
    tail[8..].copy_from_slice(&checksum.to_le_bytes());
    tail
}

/// Size and checksum of the bytes that went by.
#[derive(Debug, Default)]
struct Sum {
    bytes: u64,
    checksum: u32,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
    }

    fn tail(&self) -> [u8; TAIL_BYTES] {
        encode_tail(self.bytes, self.checksum)
    }
}

/// The stream of a snapshot: head, body, tail.
pub struct SnapshotReader {
    head_and_body: Box<dyn Read + Send>,
    sum: Sum,
    /// What is left of the tail, once head and body are read.
    tail: Option<Vec<u8>>,
}

impl SnapshotReader {
    /// Frames a machine's body.
    ///
    /// # Panics
    /// When the name is over 255 bytes.
    pub fn new(name: &str, applied: LogId, body: Box<dyn Read + Send>) -> SnapshotReader {
        let head = io::Cursor::new(encode_head(name, applied));
        let head_and_body = Box::new(head.chain(body));
        SnapshotReader { head_and_body, sum: Sum::default(), tail: None }
    }

    /// The next piece of exactly `max_bytes`; shorter only at the end of the stream.
    ///
    /// # Errors
    /// Whatever reading the body says.
    pub fn next_piece(&mut self, max_bytes: usize) -> io::Result<Vec<u8>> {
        let mut piece = Vec::with_capacity(max_bytes);
        if self.tail.is_none() {
            self.head_and_body.by_ref().take(max_bytes as u64).read_to_end(&mut piece)?;
            self.sum.add(&piece);
            self.tail = (piece.len() < max_bytes).then(|| self.sum.tail().to_vec());
        }
        if let Some(tail) = &mut self.tail {
            let fits = tail.len().min(max_bytes - piece.len());
            piece.extend(tail.drain(..fits));
        }
        Ok(piece)
    }

    /// True when the whole stream was read.
    pub fn is_at_end(&self) -> bool {
        self.tail.as_ref().is_some_and(Vec::is_empty)
    }
}

impl std::fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotReader").field("sum", &self.sum).finish_non_exhaustive()
    }
}

/// Why a stream is not a snapshot that this machine can take.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// It does not begin as one.
    #[error("it does not begin like a snapshot")]
    NotASnapshot,
    /// Another version of the format.
    #[error("its format has version {0}, this build reads {SNAPSHOT_VERSION}")]
    Version(u16),
    /// It was made by another kind of machine.
    #[error("it was made by a machine \"{theirs}\", this one is \"{ours}\"")]
    OtherMachine {
        /// This machine's name.
        ours: &'static str,
        /// The name found, as far as it is text.
        theirs: String,
    },
    /// It ends at another entry than was announced.
    #[error("it ends at entry {got:?}, announced was {expected:?}")]
    OtherPlace {
        /// As announced.
        expected: LogId,
        /// As found.
        got: LogId,
    },
    /// It is cut short, too long, or its bytes changed on the way.
    #[error("it is damaged or incomplete after {bytes} bytes")]
    Damaged {
        /// Bytes before the tail.
        bytes: u64,
    },
}

/// Takes a stream apart: checks the head, hands out the body as it comes, and checks the tail at the end.
#[derive(Debug)]
pub struct SnapshotParser {
    name: &'static str,
    applied: LogId,
    head_done: bool,
    /// What came and is neither head nor surely body: it may be the tail.
    held: Vec<u8>,
    sum: Sum,
}

impl SnapshotParser {
    /// Expects a snapshot of this machine that ends at `applied`.
    pub fn new(name: &'static str, applied: LogId) -> SnapshotParser {
        SnapshotParser { name, applied, head_done: false, held: Vec::new(), sum: Sum::default() }
    }

    /// Takes the next bytes, cut anywhere, and returns what is surely body. It is not to be relied on before
    /// [`SnapshotParser::finish`].
    ///
    /// # Errors
    /// [`ParseError`] of the head.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, ParseError> {
        self.held.extend_from_slice(bytes);
        if !self.head_done {
            let Some(head_bytes) = self.check_head()? else { return Ok(Vec::new()) };
            self.sum.add(&self.held[..head_bytes]);
            self.held.drain(..head_bytes);
            self.head_done = true;
        }
        let surely_body = self.held.len().saturating_sub(TAIL_BYTES);
        let body: Vec<u8> = self.held.drain(..surely_body).collect();
        self.sum.add(&body);
        Ok(body)
    }

    /// Size of the head once all of it is there.
    fn check_head(&self) -> Result<Option<usize>, ParseError> {
        let seen = self.held.len().min(MAGIC.len());
        if self.held[..seen] != MAGIC[..seen] {
            return Err(ParseError::NotASnapshot);
        }
        let Some(fixed) = self.held.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let version = u16::from_le_bytes([fixed[8], fixed[9]]);
        if version != SNAPSHOT_VERSION {
            return Err(ParseError::Version(version));
        }
        let head_bytes = HEAD_BYTES + usize::from(fixed[26]);
        let Some(name) = self.held.get(HEAD_BYTES..head_bytes) else { return Ok(None) };
        if name != self.name.as_bytes() {
            let theirs = String::from_utf8_lossy(name).into_owned();
            return Err(ParseError::OtherMachine { ours: self.name, theirs });
        }
        let got = LogId { term: u64_at(fixed, 10), index: u64_at(fixed, 18) };
        if got != self.applied {
            return Err(ParseError::OtherPlace { expected: self.applied, got });
        }
        Ok(Some(head_bytes))
    }

    /// Checks that the whole stream came, unchanged.
    ///
    /// # Errors
    /// [`ParseError::Damaged`].
    pub fn finish(self) -> Result<(), ParseError> {
        if self.head_done && self.held == self.sum.tail() {
            return Ok(());
        }
        Err(ParseError::Damaged { bytes: self.sum.bytes })
    }
}

fn u64_at(head: &[u8; HEAD_BYTES], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&head[at..at + 8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPLIED: LogId = LogId { term: 3, index: 77 };

    fn stream(body: &[u8], piece_bytes: usize) -> Vec<u8> {
        let mut reader =
            SnapshotReader::new("kv", APPLIED, Box::new(io::Cursor::new(body.to_vec())));
        let mut whole = Vec::new();
        while !reader.is_at_end() {
            let piece = reader.next_piece(piece_bytes).unwrap();
            assert!(piece.len() == piece_bytes || reader.is_at_end());
            whole.extend(piece);
        }
        whole
    }

    fn parse(stream: &[u8], piece_bytes: usize) -> Result<Vec<u8>, ParseError> {
        let mut parser = SnapshotParser::new("kv", APPLIED);
        let mut body = Vec::new();
        for piece in stream.chunks(piece_bytes) {
            body.extend(parser.push(piece)?);
        }
        parser.finish().map(|()| body)
    }

    #[test]
    fn any_cut_gives_the_same_stream_and_the_same_body() {
        let body: Vec<u8> = (0..100).collect();
        let whole = stream(&body, 1_000);
        assert_eq!(whole.len(), HEAD_BYTES + 2 + 100 + TAIL_BYTES);
        for piece_bytes in 1..=whole.len() + 1 {
            assert_eq!(stream(&body, piece_bytes), whole, "pieces of {piece_bytes}");
            assert_eq!(parse(&whole, piece_bytes), Ok(body.clone()), "pieces of {piece_bytes}");
        }
        assert_eq!(parse(&stream(&[], 10), 10), Ok(vec![]));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let whole = stream(b"some body", 1_000);
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&damaged, 7).is_err(), "bit {bit}");
        }
        for length in 0..whole.len() {
            assert!(parse(&whole[..length], 7).is_err(), "cut at {length}");
        }
        let longer = [whole, vec![0]].concat();
        assert_eq!(parse(&longer, 7), Err(ParseError::Damaged { bytes: 39 }));
    }

    #[test]
    fn the_label_is_read_off_the_beginning() {
        let whole = stream(b"body", 1_000);
        assert_eq!(label(&whole), Some(("kv".to_owned(), APPLIED)));
        assert_eq!(label(&whole[..HEAD_BYTES + 2]), Some(("kv".to_owned(), APPLIED)));
        assert_eq!(label(&whole[..=HEAD_BYTES]), None);
        assert_eq!(label(&[&b"X"[..], &whole[1..]].concat()), None);
    }

    #[test]
    fn a_foreign_snapshot_is_refused_by_its_head() {
        let whole = stream(b"body", 1_000);
        let refusal = |name, applied| SnapshotParser::new(name, applied).push(&whole).unwrap_err();
        assert_eq!(
            refusal("register", APPLIED).to_string(),
            "it was made by a machine \"kv\", this one is \"register\""
        );
        let expected = LogId { term: 3, index: 78 };
        assert_eq!(refusal("kv", expected), ParseError::OtherPlace { expected, got: APPLIED });
    }
}
