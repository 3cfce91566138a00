//! What clients want, as commands of the key-value machine, and its answers as words of a history.

use bytes::Bytes;
use raft::rpc::client::Outcome as Said;
use rand::RngExt;
use state_machine::kv::command::{Command, Swap, decode_swap, decode_value};

use super::random::Rng;
use crate::history::{Answer, Call, PIECE_END};

/// A command's bytes, in its binary form.
pub fn encode(key: &str, call: &Call) -> Bytes {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let value = |text: &String| Bytes::copy_from_slice(text.as_bytes());
    let command = match call {
        Call::Put(new) => Command::Put { key, value: value(new) },
        Call::Append(piece) => Command::Append { key, value: value(piece) },
        Call::Increment => Command::Incr { key, by: 1 },
        Call::CompareAndSet { expected, new } => {
            Command::Cas { key, expected: expected.as_ref().map(value), value: value(new) }
        }
        Call::Delete => Command::Del { key },
        Call::Get => Command::Get { key },
    };
    command.encode().expect("keys and values are short")
}

/// Something to do on a key of this kind. `serial` has never been used before.
pub fn random(kind: u64, serial: u64, rng: &mut Rng) -> Call {
    let reads = rng.random_bool(0.35);
    match kind % 3 {
        _ if reads => Call::Get,
        0 => Call::Append(format!("{serial}{PIECE_END}")),
        1 => Call::Increment,
        _ => match rng.random_range(0..6) {
            0 => Call::Delete,
            1 => Call::CompareAndSet { expected: None, new: serial.to_string() },
            2 => {
                let before = serial.saturating_sub(rng.random_range(1..30));
                let (expected, new) = (Some(before.to_string()), serial.to_string());
                Call::CompareAndSet { expected, new }
            }
            _ => Call::Put(serial.to_string()),
        },
    }
}

/// What the machine said; none when it said nothing of it.
pub fn decode(call: &Call, said: &Said) -> Option<Answer> {
    let Said::Done(bytes) = said else { return None };
    Some(match call {
        Call::Put(_) => Answer::Applied,
        Call::Append(_) => Answer::Length(number(bytes)),
        Call::Increment => Answer::Number(i64::try_from(number(bytes)).expect("a small number")),
        Call::CompareAndSet { .. } => match decode_swap(bytes).expect("an answer to CAS") {
            Swap::Done => Answer::Swapped,
            Swap::Mismatch { present } => Answer::NotSwapped(present.as_ref().map(text)),
        },
        Call::Delete => Answer::Removed(&bytes[..] == b"1"),
        Call::Get => {
            let value = decode_value(bytes).expect("an answer to GET");
            Answer::Value(value.as_ref().map(text))
        }
    })
}

fn number(bytes: &Bytes) -> u64 {
    text(bytes).parse().expect("a decimal number")
}

/// Bytes as text, which is all that clients write.
pub fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
