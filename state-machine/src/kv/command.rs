//! What one says to the key-value machine, and what it answers.
//!
//! A command or query is one **line** of UTF-8 text, as a person types it:
//!
//! | line | effect | answer |
//! |---|---|---|
//! | `PUT key value` | sets; the value is all that follows the one space after the key, and may be empty | empty |
//! | `DEL key` | removes | `1`, or `0` when there was nothing |
//! | `INCR key` or `INCR key by` | adds a signed 64-bit number (default 1); a missing key counts as 0 | the new number in decimal |
//! | `GET key` | reads | [`encode_value`] |
//! | `CAS key expected value` | sets the value if the present one is `expected`, a word without a space | [`encode_swap`] |
//! | `CAS key --absent value` | sets the value if there is none | [`encode_swap`] |
//! | `APPEND key value` | puts the value behind the present one; a missing key counts as empty | the new length in bytes, in decimal |
//! | `LIST` or `LIST prefix` | reads the first pairs whose keys begin so; only as a query | [`decode_list`](super::list::decode_list) |
//!
//! Verbs are upper case. Exactly one space stands between the parts. A key in a line has no white space and no control
//! character, a value no line break; one line break at the end of the line is not part of it.
//!
//! Everything else takes the **binary form**, marked by its first byte, which no line begins with:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | `0x01` |
//! | 1 | 1 | verb: 1 = PUT, 2 = DEL, 3 = INCR, 4 = GET, 5 = CAS, 6 = APPEND, 7 = LIST |
//! | 2 | 2 | bytes of the key (LIST: of the prefix), little-endian |
//! | 4 | .. | key (LIST: prefix, which may be empty) |
//! | .. | .. | PUT, APPEND: the value, to the end; INCR: what to add, 8 bytes, little-endian, signed; CAS and LIST: see below; else nothing |
//!
//! CAS goes on with the bytes of the expected value (4, little-endian; `0xFFFFFFFF` = there must be none), the expected
//! value, and the new one to the end. LIST goes on with 1 byte, whose bit 0 is "keys only", the most pairs wanted (4, little-endian),
//! and, to the end, the key after which to begin, which may be empty; see [`Range`].
//!
//! Keys have 1 to [`MAX_KEY_BYTES`] bytes, values 0 to [`MAX_VALUE_BYTES`], and both may hold any bytes. The two values of a
//! CAS together have no more than one alone may have.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::list::Range;

/// The longest key, in bytes (4 KiB).
pub const MAX_KEY_BYTES: usize = 4096;

/// The longest value, in bytes (1 MiB − 8 KiB): with the longest key it still fits into an entry.
pub const MAX_VALUE_BYTES: usize = (1 << 20) - (8 << 10);

const BINARY_MARK: u8 = 0x01;
/// In the place of an expected value: there must be none.
const ABSENT_WORD: &str = "--absent";
const ABSENT_BYTES: u32 = u32::MAX;

/// What the key-value machine can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Sets a value.
    Put {
        /// Where.
        key: Bytes,
        /// To what.
        value: Bytes,
    },
    /// Removes a key.
    Del {
        /// Which.
        key: Bytes,
    },
    /// Adds to a decimal number.
    Incr {
        /// Which number.
        key: Bytes,
        /// How much.
        by: i64,
    },
    /// Reads a value. As a query it changes nothing; in the log it reads the state at its own place.
    Get {
        /// Which.
        key: Bytes,
    },
    /// Sets a value if the present one is as expected.
    Cas {
        /// Where.
        key: Bytes,
        /// What must be there; `None` = no value.
        expected: Option<Bytes>,
        /// To what.
        value: Bytes,
    },
    /// Puts bytes behind the present value.
    Append {
        /// Where.
        key: Bytes,
        /// What to add.
        value: Bytes,
    },
    /// Reads pairs in the order of their keys; only as a query.
    List(Range),
}

/// Why bytes are not a [`Command`]. It never quotes them: they may be private.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandError {
    /// Nothing there.
    #[error("an empty command; write PUT, APPEND or CAS, DEL, INCR, GET or LIST, and a key")]
    Empty,
    /// Not text, and not marked as binary.
    #[error("neither a line of UTF-8 text nor the binary form (first byte 0x01)")]
    NotText,
    /// More than one line.
    #[error("more than one line; values with line breaks take the binary form")]
    ManyLines,
    /// The first word is no verb.
    #[error("unknown verb; known are PUT, DEL, INCR, GET, CAS, APPEND and LIST, in upper case")]
    UnknownVerb,
    /// Something is missing.
    #[error("{usage}: {missing} is missing")]
    Missing {
        /// How it is written.
        usage: &'static str,
        /// What is missing.
        missing: &'static str,
    },
    /// Something is too much.
    #[error("{usage}: more than that was given")]
    TooMuch {
        /// How it is written.
        usage: &'static str,
    },
    /// The key in a line has white space or control characters.
    #[error("the key has white space or control characters; such keys take the binary form")]
    KeyNotPlain,
    /// The key is too long, or the binary form claims an empty one.
    #[error("the key has {bytes} bytes; 1 to {MAX_KEY_BYTES} are possible")]
    KeySize {
        /// Its size.
        bytes: usize,
    },
    /// The value is too long.
    #[error("the value has {bytes} bytes; up to {MAX_VALUE_BYTES} are possible")]
    ValueTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The number to add is none.
    #[error("INCR adds a whole number from {} to {}", i64::MIN, i64::MAX)]
    NotANumber,
    /// The binary form is cut short.
    #[error("the binary form is cut short")]
    CutShort,
}

const PUT_USAGE: &str = "PUT key value";
const DEL_USAGE: &str = "DEL key";
const INCR_USAGE: &str = "INCR key [by]";
const GET_USAGE: &str = "GET key";
const CAS_USAGE: &str = "CAS key expected value";
const APPEND_USAGE: &str = "APPEND key value";
const LIST_USAGE: &str = "LIST [prefix]";

impl Command {
    /// Reads either form. The parts share the buffer.
    ///
    /// # Errors
    /// [`CommandError`], the same on every node.
    pub fn decode(bytes: &Bytes) -> Result<Command, CommandError> {
        let command = match bytes.first() {
            None => return Err(CommandError::Empty),
            Some(&BINARY_MARK) => decode_binary(bytes)?,
            Some(_) => decode_line(bytes)?,
        };
        command.check()?;
        Ok(command)
    }

    /// The bytes to submit: the line where it reads back as the same command, else the binary form.
    ///
    /// # Errors
    /// [`CommandError`] when key or value are over their limits.
    pub fn encode(&self) -> Result<Bytes, CommandError> {
        self.check()?;
        Ok(if self.fits_a_line() { self.encode_line() } else { self.encode_binary() })
    }

    /// The key; of a LIST the prefix of the keys.
    pub fn key(&self) -> &Bytes {
        match self {
            Command::Put { key, .. }
            | Command::Del { key }
            | Command::Incr { key, .. }
            | Command::Get { key }
            | Command::Cas { key, .. }
            | Command::Append { key, .. } => key,
            Command::List(range) => &range.prefix,
        }
    }

    fn value(&self) -> &[u8] {
        match self {
            Command::Put { value, .. }
            | Command::Cas { value, .. }
            | Command::Append { value, .. } => value,
            Command::Del { .. } | Command::Incr { .. } | Command::Get { .. } | Command::List(_) => {
                &[]
            }
        }
    }

    fn expected(&self) -> &[u8] {
        if let Command::Cas { expected: Some(expected), .. } = self { expected } else { &[] }
    }

    fn check(&self) -> Result<(), CommandError> {
        let key_bytes = self.key().len();
        let value_bytes = self.value().len() + self.expected().len();
        let (least_bytes, after_bytes) =
            if let Command::List(range) = self { (0, range.after.len()) } else { (1, 0) };
        if key_bytes < least_bytes || key_bytes > MAX_KEY_BYTES {
            return Err(CommandError::KeySize { bytes: key_bytes });
        }
        if after_bytes > MAX_KEY_BYTES {
            return Err(CommandError::KeySize { bytes: after_bytes });
        }
        if value_bytes > MAX_VALUE_BYTES {
            return Err(CommandError::ValueTooLarge { bytes: value_bytes });
        }
        Ok(())
    }

    fn fits_a_line(&self) -> bool {
        let one_line = |text: &str| !text.contains(['\n', '\r']);
        let one_word = |text: &str| is_plain(text) && text != ABSENT_WORD;
        let is_simple = if let Command::List(range) = self {
            *range == Range::of_prefix(range.prefix.clone())
        } else {
            true
        };
        is_simple
            && str::from_utf8(self.key()).is_ok_and(is_plain)
            && str::from_utf8(self.value()).is_ok_and(one_line)
            && str::from_utf8(self.expected()).is_ok_and(one_word)
    }

    fn encode_line(&self) -> Bytes {
        let (key, mut line) = (self.key(), BytesMut::new());
        match self {
            Command::Put { .. } => line.put_slice(b"PUT "),
            Command::Del { .. } => line.put_slice(b"DEL "),
            Command::Incr { .. } => line.put_slice(b"INCR "),
            Command::Get { .. } => line.put_slice(b"GET "),
            Command::Cas { .. } => line.put_slice(b"CAS "),
            Command::Append { .. } => line.put_slice(b"APPEND "),
            Command::List(_) if key.is_empty() => line.put_slice(b"LIST"),
            Command::List(_) => line.put_slice(b"LIST "),
        }
        line.put_slice(key);
        match self {
            Command::Put { value, .. } | Command::Append { value, .. } => {
                line.put_u8(b' ');
                line.put_slice(value);
            }
            Command::Cas { expected, value, .. } => {
                line.put_u8(b' ');
                line.put_slice(expected.as_deref().unwrap_or(ABSENT_WORD.as_bytes()));
                line.put_u8(b' ');
                line.put_slice(value);
            }
            Command::Incr { by, .. } => line.put_slice(format!(" {by}").as_bytes()),
            Command::Del { .. } | Command::Get { .. } | Command::List(_) => {}
        }
        line.freeze()
    }

    fn encode_binary(&self) -> Bytes {
        let key = self.key();
        let mut bytes = BytesMut::with_capacity(4 + key.len() + self.value().len().max(8));
        bytes.put_u8(BINARY_MARK);
        bytes.put_u8(match self {
            Command::Put { .. } => 1,
            Command::Del { .. } => 2,
            Command::Incr { .. } => 3,
            Command::Get { .. } => 4,
            Command::Cas { .. } => 5,
            Command::Append { .. } => 6,
            Command::List(_) => 7,
        });
        bytes.put_u16_le(u16::try_from(key.len()).expect("checked: at most MAX_KEY_BYTES"));
        bytes.put_slice(key);
        match self {
            Command::Put { value, .. } | Command::Append { value, .. } => bytes.put_slice(value),
            Command::Cas { expected, value, .. } => {
                let checked = |expected: &Bytes| {
                    u32::try_from(expected.len()).expect("checked: at most MAX_VALUE_BYTES")
                };
                bytes.put_u32_le(expected.as_ref().map_or(ABSENT_BYTES, checked));
                bytes.put_slice(self.expected());
                bytes.put_slice(value);
            }
            Command::List(range) => {
                bytes.put_u8(range.keys_only.into());
                bytes.put_u32_le(range.limit);
                bytes.put_slice(&range.after);
            }
            Command::Incr { by, .. } => bytes.put_i64_le(*by),
            Command::Del { .. } | Command::Get { .. } => {}
        }
        bytes.freeze()
    }
}

/// A key that stands in a line: no white space, no control characters.
fn is_plain(key: &str) -> bool {
    !key.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn decode_line(bytes: &Bytes) -> Result<Command, CommandError> {
    let text = str::from_utf8(bytes).map_err(|_not_utf8| CommandError::NotText)?;
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.contains(['\n', '\r']) {
        return Err(CommandError::ManyLines);
    }
    let (verb, arguments) = match line.split_once(' ') {
        Some((verb, arguments)) => (verb, Some(arguments)),
        None => (line, None),
    };
    match verb {
        "" => Err(CommandError::Empty),
        "PUT" => {
            let (key, value) = key_and_value(bytes, arguments, PUT_USAGE)?;
            Ok(Command::Put { key, value })
        }
        "APPEND" => {
            let (key, value) = key_and_value(bytes, arguments, APPEND_USAGE)?;
            Ok(Command::Append { key, value })
        }
        "CAS" => {
            let (key, rest) = key_and_rest(arguments, CAS_USAGE)?;
            let missing = |missing| CommandError::Missing { usage: CAS_USAGE, missing };
            let rest = rest.ok_or(missing("the expected value"))?;
            let (expected, value) = rest.split_once(' ').ok_or(missing("the new value"))?;
            let part = |text: &str| bytes.slice_ref(text.as_bytes());
            let expected = Some(expected).filter(|word| *word != ABSENT_WORD).map(part);
            Ok(Command::Cas { key: part(key), expected, value: part(value) })
        }
        "LIST" => {
            let key = match arguments {
                None | Some("") => Bytes::new(),
                Some(_) => only_key(bytes, arguments, LIST_USAGE)?,
            };
            Ok(Command::List(Range::of_prefix(key)))
        }
        "DEL" => only_key(bytes, arguments, DEL_USAGE).map(|key| Command::Del { key }),
        "GET" => only_key(bytes, arguments, GET_USAGE).map(|key| Command::Get { key }),
        "INCR" => {
            let (key, by) = key_and_rest(arguments, INCR_USAGE)?;
            let by = by.map_or(Ok(1), |by| by.parse().map_err(|_bad| CommandError::NotANumber))?;
            Ok(Command::Incr { key: bytes.slice_ref(key.as_bytes()), by })
        }
        _ => Err(CommandError::UnknownVerb),
    }
}

/// The key, and what follows the space after it.
fn key_and_rest<'a>(
    arguments: Option<&'a str>,
    usage: &'static str,
) -> Result<(&'a str, Option<&'a str>), CommandError> {
    let arguments = arguments.unwrap_or_default();
    let (key, rest) = match arguments.split_once(' ') {
        Some((key, rest)) => (key, Some(rest)),
        None => (arguments, None),
    };
    if key.is_empty() {
        return Err(CommandError::Missing { usage, missing: "the key" });
    }
    if !is_plain(key) {
        return Err(CommandError::KeyNotPlain);
    }
    Ok((key, rest))
}

fn key_and_value(
    bytes: &Bytes,
    arguments: Option<&str>,
    usage: &'static str,
) -> Result<(Bytes, Bytes), CommandError> {
    let (key, value) = key_and_rest(arguments, usage)?;
    let value = value.ok_or(CommandError::Missing { usage, missing: "the value" })?;
    Ok((bytes.slice_ref(key.as_bytes()), bytes.slice_ref(value.as_bytes())))
}

fn only_key(
    bytes: &Bytes,
    arguments: Option<&str>,
    usage: &'static str,
) -> Result<Bytes, CommandError> {
    match key_and_rest(arguments, usage)? {
        (key, None) => Ok(bytes.slice_ref(key.as_bytes())),
        (_, Some(_)) => Err(CommandError::TooMuch { usage }),
    }
}

fn decode_binary(bytes: &Bytes) -> Result<Command, CommandError> {
    let Some(&[_, verb, low, high]) = bytes.first_chunk::<4>() else {
        return Err(CommandError::CutShort);
    };
    let key_end = 4 + usize::from(u16::from_le_bytes([low, high]));
    if bytes.len() < key_end {
        return Err(CommandError::CutShort);
    }
    let (key, rest) = (bytes.slice(4..key_end), bytes.slice(key_end..));
    let alone = |usage| match rest.len() {
        0 => Ok(key.clone()),
        _ => Err(CommandError::TooMuch { usage }),
    };
    match verb {
        1 => Ok(Command::Put { key, value: rest }),
        2 => alone(DEL_USAGE).map(|key| Command::Del { key }),
        3 => {
            let by =
                <[u8; 8]>::try_from(rest.as_ref()).map_err(|_size| CommandError::NotANumber)?;
            Ok(Command::Incr { key, by: i64::from_le_bytes(by) })
        }
        4 => alone(GET_USAGE).map(|key| Command::Get { key }),
        5 => decode_cas(key, rest),
        6 => Ok(Command::Append { key, value: rest }),
        7 => decode_range(key, rest),
        _ => Err(CommandError::UnknownVerb),
    }
}

fn decode_cas(key: Bytes, mut rest: Bytes) -> Result<Command, CommandError> {
    let expected = match rest.try_get_u32_le().map_err(|_short| CommandError::CutShort)? {
        ABSENT_BYTES => None,
        bytes if bytes as usize > rest.len() => return Err(CommandError::CutShort),
        bytes => Some(rest.split_to(bytes as usize)),
    };
    Ok(Command::Cas { key, expected, value: rest })
}

fn decode_range(prefix: Bytes, mut rest: Bytes) -> Result<Command, CommandError> {
    let keys_only = match rest.try_get_u8().map_err(|_short| CommandError::CutShort)? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::TooMuch { usage: LIST_USAGE }),
    };
    let limit = rest.try_get_u32_le().map_err(|_short| CommandError::CutShort)?;
    Ok(Command::List(Range { prefix, after: rest, limit, keys_only }))
}

/// The answer to `GET`: `0x00` for no such key, or `0x01` and the value.
pub fn encode_value(value: Option<&[u8]>) -> Bytes {
    match value {
        None => Bytes::from_static(&[0]),
        Some(value) => [&[1], value].concat().into(),
    }
}

/// Reads the answer to `GET`: the value, or `None` for no such key.
///
/// # Errors
/// [`MalformedAnswer`]: no key-value machine gave that answer.
pub fn decode_value(answer: &Bytes) -> Result<Option<Bytes>, MalformedAnswer> {
    match answer.first() {
        Some(0) if answer.len() == 1 => Ok(None),
        Some(1) => Ok(Some(answer.slice(1..))),
        _ => Err(MalformedAnswer),
    }
}

/// What a `CAS` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// The value was as expected and is now the new one.
    Done,
    /// It was not, and nothing was changed.
    Mismatch {
        /// The present value, if any.
        present: Option<Bytes>,
    },
}

/// The answer to `CAS`: `0x02` if it was done, else the present value as [`encode_value`] has it.
pub fn encode_swap(swap: &Swap) -> Bytes {
    match swap {
        Swap::Done => Bytes::from_static(&[2]),
        Swap::Mismatch { present } => encode_value(present.as_deref()),
    }
}

/// Reads the answer to `CAS`.
///
/// # Errors
/// [`MalformedAnswer`]: no key-value machine gave that answer.
pub fn decode_swap(answer: &Bytes) -> Result<Swap, MalformedAnswer> {
    if answer[..] == [2] {
        return Ok(Swap::Done);
    }
    decode_value(answer).map(|present| Swap::Mismatch { present })
}

/// Bytes that are no answer of a key-value machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an answer of a key-value machine: does the cluster run another one?")]
pub struct MalformedAnswer;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::list::DEFAULT_LIST_PAIRS;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Result<Command, CommandError> {
        Command::decode(&Bytes::copy_from_slice(bytes))
    }

    fn put(key: &str, value: &str) -> Command {
        Command::Put { key: key.to_owned().into(), value: value.to_owned().into() }
    }

    fn cas(key: &str, expected: Option<&str>, value: &str) -> Command {
        let part = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Command::Cas { key: part(key), expected: expected.map(part), value: part(value) }
    }

    fn incr(key: &str, by: i64) -> Command {
        Command::Incr { key: key.to_owned().into(), by }
    }

    #[test]
    fn lines_read_as_a_person_means_them() {
        let key = Bytes::from_static(b"k");
        let cases: &[(&str, Command)] = &[
            ("PUT k v", put("k", "v")),
            ("PUT k peporoni peppr cheddar", put("k", "peporoni peppr cheddar")),
            ("PUT k ", put("k", "")),
            ("PUT k  two  spaces ", put("k", " two  spaces ")),
            ("PUT k v\n", put("k", "v")),
            ("PUT k v\r\n", put("k", "v")),
            ("PUT käse ☃", put("käse", "☃")),
            ("DEL k", Command::Del { key: key.clone() }),
            ("GET k", Command::Get { key }),
            ("INCR k", incr("k", 1)),
            ("INCR k -5", incr("k", -5)),
            ("INCR k 9223372036854775807", incr("k", i64::MAX)),
            ("CAS k old new", cas("k", Some("old"), "new")),
            ("CAS k old two  words ", cas("k", Some("old"), "two  words ")),
            ("CAS k old ", cas("k", Some("old"), "")),
            ("CAS k  v", cas("k", Some(""), "v")),
            ("CAS k --absent v", cas("k", None, "v")),
            ("APPEND k  v", Command::Append { key: "k".into(), value: " v".into() }),
            ("LIST", Command::List(Range::of_prefix(Bytes::new()))),
            ("LIST\n", Command::List(Range::of_prefix(Bytes::new()))),
            ("LIST k", Command::List(Range::of_prefix("k".into()))),
        ];
        for (line, command) in cases {
            assert_eq!(decode(line.as_bytes()).as_ref(), Ok(command), "{line}");
        }
    }

    #[test]
    fn bad_lines_are_refused_with_a_reason() {
        let long_key = format!("GET {}", "k".repeat(MAX_KEY_BYTES + 1));
        let long_value = format!("PUT k {}", "v".repeat(MAX_VALUE_BYTES + 1));
        let cases: &[(&[u8], &str)] = &[
            (b"", "an empty command"),
            (b"\n", "an empty command"),
            (b" PUT k v", "an empty command"),
            (b"\xff", "neither a line"),
            (b"FROB k", "unknown verb"),
            (b"put k v", "unknown verb"),
            (b"PUT", "PUT key value: the key is missing"),
            (b"PUT k", "PUT key value: the value is missing"),
            (b"PUT  v", "PUT key value: the key is missing"),
            (b"PUT k v\nDEL k", "more than one line"),
            (b"PUT k v\n\n", "more than one line"),
            (b"PUT k\tk v", "the key has white space"),
            (b"PUT k\x02 v", "the key has white space"),
            (b"DEL", "DEL key: the key is missing"),
            (b"DEL k j", "DEL key: more than that"),
            (b"GET k ", "GET key: more than that"),
            (b"CAS", "CAS key expected value: the key is missing"),
            (b"CAS k", "CAS key expected value: the expected value is missing"),
            (b"CAS k old", "CAS key expected value: the new value is missing"),
            (b"CAS k --absent", "CAS key expected value: the new value is missing"),
            (b"APPEND k", "APPEND key value: the value is missing"),
            (b"LIST a b", "LIST [prefix]: more than that"),
            (b"LIST a\tb", "the key has white space"),
            (b"INCR k x", "INCR adds a whole number"),
            (b"INCR k 1.5", "INCR adds a whole number"),
            (b"INCR k 9223372036854775808", "INCR adds a whole number"),
            (long_key.as_bytes(), "the key has 4097 bytes"),
            (long_value.as_bytes(), "the value has 1040385 bytes"),
        ];
        for (line, reason) in cases {
            let error = decode(line).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{:?}: {error}", line.escape_ascii().to_string());
        }
    }

    #[test]
    fn the_binary_form_has_the_documented_bytes() {
        let cases: &[(Command, &[u8])] = &[
            (put("a b", "v\n"), b"\x01\x01\x03\x00a bv\n"),
            (put("a b", ""), b"\x01\x01\x03\x00a b"),
            (Command::Del { key: Bytes::from_static(b"\xff") }, b"\x01\x02\x01\x00\xff"),
            (incr("a b", -2), b"\x01\x03\x03\x00a b\xfe\xff\xff\xff\xff\xff\xff\xff"),
            (Command::Get { key: Bytes::from_static(b" ") }, b"\x01\x04\x01\x00 "),
            (cas("k", Some("a b"), "v"), b"\x01\x05\x01\x00k\x03\0\0\0a bv"),
            (cas("k", Some("--absent"), ""), b"\x01\x05\x01\x00k\x08\0\0\0--absent"),
            (cas(" ", None, "v"), b"\x01\x05\x01\x00 \xff\xff\xff\xffv"),
            (Command::Append { key: " ".into(), value: "v".into() }, b"\x01\x06\x01\x00 v"),
            (
                Command::List(Range {
                    prefix: "k".into(),
                    after: "k1".into(),
                    limit: 7,
                    keys_only: true,
                }),
                b"\x01\x07\x01\x00k\x01\x07\0\0\0k1",
            ),
        ];
        for (command, bytes) in cases {
            assert_eq!(command.encode().unwrap(), bytes);
            assert_eq!(decode(bytes).as_ref(), Ok(command));
        }
    }

    #[test]
    fn a_bad_binary_form_is_refused_with_a_reason() {
        let cases: &[(&[u8], CommandError)] = &[
            (b"\x01", CommandError::CutShort),
            (b"\x01\x01\x02\x00k", CommandError::CutShort),
            (b"\x01\x01\x00\x00v", CommandError::KeySize { bytes: 0 }),
            (b"\x01\x02\x01\x00kx", CommandError::TooMuch { usage: DEL_USAGE }),
            (b"\x01\x03\x01\x00k\x01", CommandError::NotANumber),
            (b"\x01\x05\x01\x00k", CommandError::CutShort),
            (b"\x01\x05\x01\x00k\x02\0\0\0v", CommandError::CutShort),
            (b"\x01\x05\x00\x00\x00\0\0\0v", CommandError::KeySize { bytes: 0 }),
            (b"\x01\x07\x01\x00k", CommandError::CutShort),
            (b"\x01\x07\x00\x00\x02\x01\0\0\0", CommandError::TooMuch { usage: LIST_USAGE }),
            (b"\x01\x08\x01\x00k", CommandError::UnknownVerb),
        ];
        for (bytes, error) in cases {
            assert_eq!(decode(bytes).as_ref(), Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_largest_command_fits_into_an_entry() {
        let command = Command::Put {
            key: vec![0; MAX_KEY_BYTES].into(),
            value: vec![0; MAX_VALUE_BYTES].into(),
        };
        assert!(command.encode().unwrap().len() <= crate::entries::MAX_COMMAND_BYTES);
        let too_large =
            Command::Put { key: "k".into(), value: vec![0; MAX_VALUE_BYTES + 1].into() };
        let bytes = MAX_VALUE_BYTES + 1;
        assert_eq!(too_large.encode(), Err(CommandError::ValueTooLarge { bytes }));
        let both = |expected_bytes| Command::Cas {
            key: vec![0; MAX_KEY_BYTES].into(),
            expected: Some(vec![0; expected_bytes].into()),
            value: vec![0; MAX_VALUE_BYTES - 5].into(),
        };
        assert!(both(5).encode().unwrap().len() <= crate::entries::MAX_COMMAND_BYTES);
        assert_eq!(both(6).encode(), Err(CommandError::ValueTooLarge { bytes }));
    }

    #[test]
    fn found_empty_and_missing_are_three_answers() {
        for value in [None, Some(b"".as_slice()), Some(b"v"), Some(&[0])] {
            let answer = decode_value(&encode_value(value)).unwrap();
            assert_eq!(answer.as_deref(), value);
        }
        for bad in [b"".as_slice(), b"\x00v", b"\x02"] {
            assert_eq!(decode_value(&Bytes::copy_from_slice(bad)), Err(MalformedAnswer));
        }
    }

    #[test]
    fn a_swap_is_done_or_tells_what_is_there() {
        let there = |present: Option<&'static [u8]>| Swap::Mismatch {
            present: present.map(Bytes::from_static),
        };
        for swap in [Swap::Done, there(None), there(Some(b"")), there(Some(b"\x02"))] {
            assert_eq!(decode_swap(&encode_swap(&swap)), Ok(swap));
        }
        for bad in [b"".as_slice(), b"\x02v", b"\x03"] {
            assert_eq!(decode_swap(&Bytes::copy_from_slice(bad)), Err(MalformedAnswer));
        }
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let text = prop_oneof!["[a-z äß☃\t\r\n]{1,8}", "[a-z]{1,4}"].prop_map(Bytes::from);
        let raw = prop::collection::vec(any::<u8>(), 1..8).prop_map(Bytes::from);
        let part = prop_oneof![text, raw].boxed();
        let value = prop_oneof![Just(Bytes::new()), part.clone()];
        prop_oneof![
            (part.clone(), value.clone()).prop_map(|(key, value)| Command::Put { key, value }),
            (part.clone(), value.clone()).prop_map(|(key, value)| Command::Append { key, value }),
            (part.clone(), prop::option::of(value.clone()), value.clone())
                .prop_map(|(key, expected, value)| Command::Cas { key, expected, value }),
            (value.clone(), value, 0_u32..3, any::<bool>()).prop_map(
                |(prefix, after, limit, keys_only)| {
                    let limit = if limit == 0 { DEFAULT_LIST_PAIRS } else { limit };
                    Command::List(Range { prefix, after, limit, keys_only })
                }
            ),
            part.clone().prop_map(|key| Command::Del { key }),
            (part.clone(), any::<i64>()).prop_map(|(key, by)| Command::Incr { key, by }),
            part.prop_map(|key| Command::Get { key }),
        ]
    }

    proptest! {
        #[test]
        fn every_command_reads_back_as_itself(command in any_command()) {
            prop_assert_eq!(Command::decode(&command.encode().unwrap()), Ok(command));
        }

        #[test]
        fn raw_bytes_never_panic(raw in prop::collection::vec(any::<u8>(), 0..64), verb in 0_usize..9) {
            let starts: [&[u8]; 9] = [
                b"", b"PUT ", b"INCR ", b"\x01\x01", b"\x01\x03", b"CAS k ", b"LIST ", b"\x01\x05\x01\0k",
                b"\x01\x07\x01\0k",
            ];
            let start = starts[verb];
            if let Ok(command) = decode(&[start, &raw].concat()) {
                prop_assert_eq!(Command::decode(&command.encode().unwrap()), Ok(command));
            }
        }
    }
}
