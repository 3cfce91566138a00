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
//!
//! Verbs are upper case. Exactly one space stands between the parts. A key in a line has no white space and no control
//! character, a value no line break; one line break at the end of the line is not part of it.
//!
//! Everything else takes the **binary form**, marked by its first byte, which no line begins with:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | `0x01` |
//! | 1 | 1 | verb: 1 = PUT, 2 = DEL, 3 = INCR, 4 = GET |
//! | 2 | 2 | bytes of the key, little-endian |
//! | 4 | .. | key |
//! | .. | .. | PUT: the value, to the end; INCR: what to add, 8 bytes, little-endian, signed; else nothing |
//!
//! Keys have 1 to [`MAX_KEY_BYTES`] bytes, values 0 to [`MAX_VALUE_BYTES`], and both may hold any bytes.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// The longest key, in bytes (4 KiB).
pub const MAX_KEY_BYTES: usize = 4096;

/// The longest value, in bytes (1 MiB − 8 KiB): with the longest key it still fits into an entry.
pub const MAX_VALUE_BYTES: usize = (1 << 20) - (8 << 10);

const BINARY_MARK: u8 = 0x01;

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
}

/// Why bytes are not a [`Command`]. It never quotes them: they may be private.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandError {
    /// Nothing there.
    #[error("an empty command; write PUT key value, DEL key, INCR key [by] or GET key")]
    Empty,
    /// Not text, and not marked as binary.
    #[error("neither a line of UTF-8 text nor the binary form (first byte 0x01)")]
    NotText,
    /// More than one line.
    #[error("more than one line; values with line breaks take the binary form")]
    ManyLines,
    /// The first word is no verb.
    #[error("unknown verb; known are PUT, DEL, INCR and GET, in upper case")]
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

    /// The key.
    pub fn key(&self) -> &Bytes {
        match self {
            Command::Put { key, .. }
            | Command::Del { key }
            | Command::Incr { key, .. }
            | Command::Get { key } => key,
        }
    }

    fn value(&self) -> &[u8] {
        match self {
            Command::Put { value, .. } => value,
            Command::Del { .. } | Command::Incr { .. } | Command::Get { .. } => &[],
        }
    }

    fn check(&self) -> Result<(), CommandError> {
        let (key_bytes, value_bytes) = (self.key().len(), self.value().len());
        if key_bytes == 0 || key_bytes > MAX_KEY_BYTES {
            return Err(CommandError::KeySize { bytes: key_bytes });
        }
        if value_bytes > MAX_VALUE_BYTES {
            return Err(CommandError::ValueTooLarge { bytes: value_bytes });
        }
        Ok(())
    }

    fn fits_a_line(&self) -> bool {
        let one_line = |text: &str| !text.contains(['\n', '\r']);
        str::from_utf8(self.key()).is_ok_and(is_plain)
            && str::from_utf8(self.value()).is_ok_and(one_line)
    }

    fn encode_line(&self) -> Bytes {
        let (key, mut line) = (self.key(), BytesMut::new());
        match self {
            Command::Put { .. } => line.put_slice(b"PUT "),
            Command::Del { .. } => line.put_slice(b"DEL "),
            Command::Incr { .. } => line.put_slice(b"INCR "),
            Command::Get { .. } => line.put_slice(b"GET "),
        }
        line.put_slice(key);
        match self {
            Command::Put { value, .. } => {
                line.put_u8(b' ');
                line.put_slice(value);
            }
            Command::Incr { by, .. } => line.put_slice(format!(" {by}").as_bytes()),
            Command::Del { .. } | Command::Get { .. } => {}
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
        });
        bytes.put_u16_le(u16::try_from(key.len()).expect("checked: at most MAX_KEY_BYTES"));
        bytes.put_slice(key);
        match self {
            Command::Put { value, .. } => bytes.put_slice(value),
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
            let (key, value) = key_and_rest(arguments, PUT_USAGE)?;
            let missing = CommandError::Missing { usage: PUT_USAGE, missing: "the value" };
            let value = bytes.slice_ref(value.ok_or(missing)?.as_bytes());
            Ok(Command::Put { key: bytes.slice_ref(key.as_bytes()), value })
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
        _ => Err(CommandError::UnknownVerb),
    }
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

/// Bytes that are no answer of a key-value machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an answer of a key-value machine: does the cluster run another one?")]
pub struct MalformedAnswer;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Result<Command, CommandError> {
        Command::decode(&Bytes::copy_from_slice(bytes))
    }

    fn put(key: &str, value: &str) -> Command {
        Command::Put { key: key.to_owned().into(), value: value.to_owned().into() }
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
            (b"\x01\x05\x01\x00k", CommandError::UnknownVerb),
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

    fn any_command() -> impl Strategy<Value = Command> {
        let text = prop_oneof!["[a-z äß☃\t\r\n]{1,8}", "[a-z]{1,4}"].prop_map(Bytes::from);
        let raw = prop::collection::vec(any::<u8>(), 1..8).prop_map(Bytes::from);
        let part = prop_oneof![text, raw].boxed();
        let value = prop_oneof![Just(Bytes::new()), part.clone()];
        prop_oneof![
            (part.clone(), value).prop_map(|(key, value)| Command::Put { key, value }),
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
        fn raw_bytes_never_panic(raw in prop::collection::vec(any::<u8>(), 0..64), verb in 0_usize..5) {
            let start: &[u8] = [b"".as_slice(), b"PUT ", b"INCR ", b"\x01\x01", b"\x01\x03"][verb];
            if let Ok(command) = decode(&[start, &raw].concat()) {
                prop_assert_eq!(Command::decode(&command.encode().unwrap()), Ok(command));
            }
        }
    }
}
