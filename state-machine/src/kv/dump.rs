//! The body of a key-value snapshot: every pair, keys ascending, each as
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | bytes of the key, little-endian |
//! | 2 | 4 | bytes of the value, little-endian |
//! | 6 | .. | key |
//! | .. | .. | value |
//!
//! Version 1, under the version of the snapshot's frame. A body that is not in this form is refused as a whole.

use std::io::{self, Read};

use bytes::{Buf, Bytes, BytesMut};

use super::command::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use super::engine::{Pair, Pairs};
use crate::machine::RestoreFailure;

const HEAD_BYTES: usize = 6;

/// Writes pairs as they are read.
pub(super) struct DumpReader {
    pairs: Pairs,
    /// The record that is being read.
    record: Bytes,
}

impl DumpReader {
    pub(super) fn new(pairs: Pairs) -> DumpReader {
        DumpReader { pairs, record: Bytes::new() }
    }
}

impl Read for DumpReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.record.is_empty() {
            match self.pairs.next().transpose().map_err(io::Error::other)? {
                Some(pair) => self.record = encode(&pair),
                None => return Ok(0),
            }
        }
        let bytes = self.record.len().min(buffer.len());
        self.record.copy_to_slice(&mut buffer[..bytes]);
        Ok(bytes)
    }
}

fn encode((key, value): &Pair) -> Bytes {
    let key_bytes = u16::try_from(key.len()).expect("a stored key is at most MAX_KEY_BYTES long");
    let value_bytes = u32::try_from(value.len()).expect("a stored value is below 4 GiB");
    [&key_bytes.to_le_bytes(), value_bytes.to_le_bytes().as_slice(), key, value].concat().into()
}

/// Reads pairs out of a body that comes in pieces; holds at most one record that is not whole yet.
#[derive(Debug, Default)]
pub(super) struct DumpParser {
    held: BytesMut,
    last_key: Bytes,
}

impl DumpParser {
    /// The pairs that are whole now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Pair>, RestoreFailure> {
        self.held.extend_from_slice(bytes);
        let mut pairs = Vec::new();
        while let Some(pair) = self.next_pair()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }

    fn next_pair(&mut self) -> Result<Option<Pair>, RestoreFailure> {
        let Some(&[k0, k1, v0, v1, v2, v3]) = self.held.first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let key_bytes = usize::from(u16::from_le_bytes([k0, k1]));
        let value_bytes = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
        if key_bytes == 0 || key_bytes > MAX_KEY_BYTES || value_bytes > MAX_VALUE_BYTES {
            return Err(bad("a key or value in it has an impossible size"));
        }
        if self.held.len() < HEAD_BYTES + key_bytes + value_bytes {
            return Ok(None);
        }
        self.held.advance(HEAD_BYTES);
        let key = Bytes::copy_from_slice(&self.held.split_to(key_bytes));
        let value = Bytes::copy_from_slice(&self.held.split_to(value_bytes));
        if key <= self.last_key {
            return Err(bad("its keys are not in order"));
        }
        self.last_key = key.clone();
        Ok(Some((key, value)))
    }

    /// Checks that nothing is left over.
    pub(super) fn finish(self) -> Result<(), RestoreFailure> {
        if self.held.is_empty() { Ok(()) } else { Err(bad("its last pair is cut short")) }
    }
}

fn bad(reason: &str) -> RestoreFailure {
    RestoreFailure::BadSnapshot(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs() -> Vec<Pair> {
        [("a", "1"), ("b", ""), ("c c", "three")].map(|(k, v)| (k.into(), v.into())).to_vec()
    }

    fn dump(pairs: Vec<Pair>) -> Vec<u8> {
        let mut body = Vec::new();
        let mut reader = DumpReader::new(Box::new(pairs.into_iter().map(Ok)));
        reader.read_to_end(&mut body).unwrap();
        body
    }

    fn parse(body: &[u8], piece_bytes: usize) -> Result<Vec<Pair>, String> {
        let mut parser = DumpParser::default();
        let mut pairs = Vec::new();
        for piece in body.chunks(piece_bytes) {
            pairs.extend(parser.push(piece).map_err(|error| error.to_string())?);
        }
        parser.finish().map_err(|error| error.to_string())?;
        Ok(pairs)
    }

    #[test]
    fn any_cut_gives_the_same_pairs() {
        let body = dump(pairs());
        assert_eq!(body[..8], [1, 0, 1, 0, 0, 0, b'a', b'1']);
        for piece_bytes in 1..=body.len() {
            assert_eq!(parse(&body, piece_bytes), Ok(pairs()), "pieces of {piece_bytes}");
        }
    }

    #[test]
    fn bad_bodies_are_refused() {
        let body = dump(pairs());
        let mut backwards = pairs();
        backwards.reverse();
        let cases = [
            (body[..body.len() - 1].to_vec(), "its last pair is cut short"),
            (dump(backwards), "its keys are not in order"),
            (vec![0; 6], "a key or value in it has an impossible size"),
            (vec![1, 0, 255, 255, 255, 255], "a key or value in it has an impossible size"),
        ];
        for (body, reason) in cases {
            assert_eq!(parse(&body, 5), Err(reason.to_owned()));
        }
    }
}
