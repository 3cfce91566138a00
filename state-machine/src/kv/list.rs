//! `LIST`: keys with a prefix and their values, in the order of the keys' bytes, a bounded piece at a time.
//!
//! The answer:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | bit 0: there is more after the last key; bit 1: keys only |
//! | 1 | .. | for each pair: bytes of the key (2, little-endian), key; unless keys only: bytes of the value (4, little-endian), value |

use std::ops::Bound;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::command::MalformedAnswer;
use super::engine::Engine;
use crate::machine::MachineError;

/// The most pairs of one answer.
pub const MAX_LIST_PAIRS: u32 = 10_000;
/// Pairs of an answer when no number is named.
pub const DEFAULT_LIST_PAIRS: u32 = 1_000;
/// The most bytes of one answer (1 MiB); the largest pair fits.
pub const MAX_LIST_BYTES: usize = 1 << 20;
/// The most bytes that are read for one answer (8 MiB), so that keys of large values alone do not hold up the machine.
const MAX_READ_BYTES: usize = 8 << 20;

const MORE: u8 = 1;
const KEYS_ONLY: u8 = 2;

/// Which pairs are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// What the keys begin with; empty = every key.
    pub prefix: Bytes,
    /// Only keys above this one; empty = from the first.
    pub after: Bytes,
    /// At most so many; 1 to [`MAX_LIST_PAIRS`], what is beyond counts as the nearest of these.
    pub limit: u32,
    /// Without the values.
    pub keys_only: bool,
}

impl Range {
    /// All pairs whose keys begin so, as many as fit.
    pub fn of_prefix(prefix: Bytes) -> Range {
        Range { prefix, after: Bytes::new(), limit: DEFAULT_LIST_PAIRS, keys_only: false }
    }
}

/// A piece of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Keys ascending, with their values unless keys only were wanted.
    pub pairs: Vec<(Bytes, Option<Bytes>)>,
    /// Whether there are more: to go on, ask for what comes after the last key.
    pub more: bool,
}

/// Reads a range off an engine, as an answer.
pub(super) fn read<E: Engine>(engine: &E, range: &Range) -> Result<Bytes, MachineError> {
    let limit = range.limit.clamp(1, MAX_LIST_PAIRS);
    let from = if range.after < range.prefix {
        Bound::Included(&range.prefix)
    } else if range.after.is_empty() {
        Bound::Unbounded
    } else {
        Bound::Excluded(&range.after)
    };
    let mut answer = BytesMut::new();
    answer.put_u8(if range.keys_only { KEYS_ONLY } else { 0 });
    let (mut count, mut read_bytes) = (0, 0);
    for pair in engine.pairs_from(from.map(|key| &key[..])) {
        let (key, value) = pair?;
        if !key.starts_with(&range.prefix) {
            break;
        }
        read_bytes += key.len() + value.len();
        let bytes = 2 + key.len() + if range.keys_only { 0 } else { 4 + value.len() };
        let is_full = answer.len() + bytes > MAX_LIST_BYTES || read_bytes > MAX_READ_BYTES;
        if count == limit || (is_full && count > 0) {
            answer[0] |= MORE;
            break;
        }
        answer.put_u16_le(u16::try_from(key.len()).expect("checked when it was set"));
        answer.put_slice(&key);
        if !range.keys_only {
            answer.put_u32_le(u32::try_from(value.len()).expect("checked when it was set"));
            answer.put_slice(&value);
        }
        count += 1;
    }
    Ok(answer.freeze())
}

/// Reads the answer to `LIST`.
///
/// # Errors
/// [`MalformedAnswer`]: no key-value machine gave that answer.
pub fn decode_list(answer: &Bytes) -> Result<List, MalformedAnswer> {
    let mut rest = answer.clone();
    let flags = rest.try_get_u8().map_err(|_empty| MalformedAnswer)?;
    if flags > MORE | KEYS_ONLY {
        return Err(MalformedAnswer);
    }
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let key_bytes = rest.try_get_u16_le().map_err(|_short| MalformedAnswer)?;
        let key = take(&mut rest, key_bytes.into())?;
        let value = if flags & KEYS_ONLY == 0 {
            let value_bytes = rest.try_get_u32_le().map_err(|_short| MalformedAnswer)?;
            Some(take(&mut rest, value_bytes as usize)?)
        } else {
            None
        };
        pairs.push((key, value));
    }
    Ok(List { pairs, more: flags & MORE != 0 })
}

fn take(rest: &mut Bytes, bytes: usize) -> Result<Bytes, MalformedAnswer> {
    if bytes > rest.len() { Err(MalformedAnswer) } else { Ok(rest.split_to(bytes)) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::kv::command::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
    use crate::kv::{Changes, MemoryEngine};
    use crate::machine::LogId;

    fn engine(pairs: impl IntoIterator<Item = (Bytes, Bytes)>) -> MemoryEngine {
        let changes: Changes = pairs.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let mut engine = MemoryEngine::new();
        engine.write(changes, LogId { term: 1, index: 1 }).unwrap();
        engine
    }

    fn list(engine: &MemoryEngine, range: &Range) -> List {
        let answer = read(engine, range).unwrap();
        assert!(answer.len() <= MAX_LIST_BYTES);
        decode_list(&answer).unwrap()
    }

    #[test]
    fn an_answer_is_bounded_and_goes_on_after_its_last_key() {
        let large = |key: u8| {
            let mut name = vec![b'k'; MAX_KEY_BYTES];
            name[0] = key;
            (Bytes::from(name), Bytes::from(vec![0; MAX_VALUE_BYTES]))
        };
        let engine = engine((0..12).map(large));
        let mut range = Range::of_prefix(Bytes::new());
        for wanted in 0..12 {
            let List { pairs, more } = list(&engine, &range);
            assert_eq!((pairs.len(), pairs[0].0[0], more), (1, wanted, wanted < 11));
            range.after = pairs[0].0.clone();
        }
        assert_eq!(list(&engine, &range), List { pairs: Vec::new(), more: false });
        let keys = list(&engine, &Range { keys_only: true, ..Range::of_prefix(Bytes::new()) });
        assert_eq!((keys.pairs.len(), keys.more), (8, true), "reading is bounded, too");
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for bad in [&b""[..], b"\x04", b"\x00\x01", b"\x00\x02\x00k", b"\x00\x01\x00k\x01\0\0\0"] {
            assert_eq!(decode_list(&Bytes::copy_from_slice(bad)), Err(MalformedAnswer), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_up_what_a_filter_of_the_whole_map_would(
            map in prop::collection::btree_map("[ab]{1,4}", "[xy]{0,3}", 0..40),
            prefix in "[ab]{0,2}",
            after in "[ab]{0,3}",
            limit in 0_u32..6,
            keys_only: bool,
        ) {
            let map: BTreeMap<Bytes, Bytes> =
                map.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
            let engine = engine(map.clone());
            let (prefix, after) = (Bytes::from(prefix), Bytes::from(after));
            let wanted: Vec<_> = map
                .iter()
                .filter(|(key, _)| key.starts_with(&prefix) && **key > after)
                .map(|(key, value)| (key.clone(), (!keys_only).then(|| value.clone())))
                .collect();
            let mut range = Range { prefix, after, limit, keys_only };
            let mut got = Vec::new();
            loop {
                let piece = list(&engine, &range);
                prop_assert!(piece.pairs.len() <= limit.max(1) as usize);
                got.extend(piece.pairs);
                if !piece.more {
                    break;
                }
                range.after = got.last().unwrap().0.clone();
            }
            prop_assert_eq!(got, wanted);
        }

        #[test]
        fn raw_answers_never_panic(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            let _either = decode_list(&raw.into());
        }
    }
}
