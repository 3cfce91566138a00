//! Entries between rafts: one buffer for a whole batch, and slices of it at the other end.
//!
//! Entries of a batch are consecutive, so their indexes are not sent. Each record is
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 1 | kind: 0 no-op, 1 command, 2 membership |
//! | 1 | 8 | term, little-endian |
//! | 9 | 4 | length of the payload in bytes, little-endian |
//! | 13 | … | payload: nothing, the command, or the membership in postcard |

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::consensus::{Entry, Index, LogId, Membership, Payload, Term};

const HEADER_BYTES: usize = 13;
const NOOP: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// A buffer is not a batch of entries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed entries at byte {offset}: {what}")]
pub struct MalformedEntries {
    /// Where in the buffer.
    pub offset: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// Encodes consecutive entries.
pub fn encode(entries: &[Entry]) -> Bytes {
    let mut buffer = BytesMut::with_capacity(entries.iter().map(Entry::weight_bytes).sum());
    for entry in entries {
        let (kind, payload) = match &entry.payload {
            Payload::Noop => (NOOP, Bytes::new()),
            Payload::Command(command) => (COMMAND, command.clone()),
            Payload::Membership(membership) => (MEMBERSHIP, encode_membership(membership)),
        };
        buffer.put_u8(kind);
        buffer.put_u64_le(entry.id.term.0);
        buffer.put_u32_le(u32::try_from(payload.len()).expect("entries are limited to 1 MiB"));
        buffer.put_slice(&payload);
    }
    buffer.freeze()
}

/// Decodes entries that follow `prev`. Commands share `buffer`.
///
/// # Errors
/// Names the first byte that does not fit; terms may not fall.
pub fn decode(prev: LogId, buffer: &Bytes) -> Result<Vec<Entry>, MalformedEntries> {
    let mut entries = Vec::new();
    let (mut offset, mut previous) = (0, prev);
    while offset < buffer.len() {
        let malformed = |what| MalformedEntries { offset, what };
        let mut header =
            buffer.get(offset..offset + HEADER_BYTES).ok_or(malformed("cut off in a header"))?;
        let kind = header.get_u8();
        let id = LogId::new(
            Term(header.get_u64_le()),
            next_index(previous.index).ok_or(malformed("index overflow"))?,
        );
        if id.term < previous.term {
            return Err(malformed("term falls"));
        }
        let start = offset + HEADER_BYTES;
        let end =
            usize::try_from(header.get_u32_le()).ok().and_then(|length| start.checked_add(length));
        let end =
            end.filter(|end| *end <= buffer.len()).ok_or(malformed("cut off in a payload"))?;
        let payload = match kind {
            NOOP if start == end => Payload::Noop,
            COMMAND => Payload::Command(buffer.slice(start..end)),
            MEMBERSHIP => Payload::Membership(Box::new(
                decode_membership(&buffer[start..end]).ok_or(malformed("not a membership"))?,
            )),
            _ => return Err(malformed("unknown kind")),
        };
        entries.push(Entry { id, payload });
        (offset, previous) = (end, id);
    }
    Ok(entries)
}

fn next_index(index: Index) -> Option<Index> {
    index.0.checked_add(1).map(Index)
}

fn encode_membership(membership: &Membership) -> Bytes {
    Bytes::from(
        postcard::to_stdvec(membership).expect("a membership has nothing that postcard refuses"),
    )
}

fn decode_membership(bytes: &[u8]) -> Option<Membership> {
    match postcard::take_from_bytes(bytes) {
        Ok((membership, [])) => Some(membership),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{NodeId, NodeInfo};

    fn batch() -> (LogId, Vec<Entry>) {
        let membership = Membership {
            voters: [NodeId(7)].into(),
            nodes: [(NodeId(7), NodeInfo::default())].into(),
            ..Membership::default()
        };
        let payloads = [
            Payload::Noop,
            Payload::Command(Bytes::from_static(b"PUT a b")),
            Payload::Command(Bytes::new()),
            Payload::Membership(Box::new(membership)),
        ];
        let entries = (10..).zip(payloads).map(|(index, payload)| Entry {
            id: LogId::new(Term(index / 5), Index(index)),
            payload,
        });
        (LogId::new(Term(2), Index(9)), entries.collect())
    }

    #[test]
    fn a_batch_survives_the_way() {
        let (prev, entries) = batch();
        assert_eq!(decode(prev, &encode(&entries)).unwrap(), entries);
        assert_eq!(decode(prev, &Bytes::new()).unwrap(), []);
    }

    #[test]
    fn every_cut_is_an_error_or_a_prefix() {
        let (prev, entries) = batch();
        let whole = encode(&entries);
        for length in 0..whole.len() {
            if let Ok(decoded) = decode(prev, &whole.slice(..length)) {
                assert_eq!(decoded, entries[..decoded.len()], "cut at {length}");
                assert!(decoded.len() < entries.len(), "cut at {length}");
            }
        }
    }

    #[test]
    fn falling_terms_and_unknown_kinds_are_refused() {
        let (prev, entries) = batch();
        let mut falling = entries.clone();
        falling[1].id.term = Term(1);
        assert_eq!(decode(prev, &encode(&falling)).unwrap_err().what, "term falls");
        let mut unknown = encode(&entries).to_vec();
        unknown[0] = 9;
        assert_eq!(decode(prev, &unknown.into()).unwrap_err().what, "unknown kind");
    }

    proptest::proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>) {
            let _outcome = decode(LogId::default(), &bytes.into());
        }
    }
}
