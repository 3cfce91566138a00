//! What a command entry holds: raft's own header, then the state machine's bytes.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 1 | kind: 1 command, 2 open a session |
//! | 1 | 8 | leader's clock in milliseconds since 1970, big-endian |
//! | 9 | 8 | session, big-endian; 0 = none |
//! | 17 | 8 | sequence number, big-endian |
//! | 25 | 8 | `acked_below`: answers below are known to the client, big-endian |
//! | 33 | … | the command |
//!
//! A leader stamps with its clock or the latest stamp in its log, whichever is later: along the log the time never falls.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before the state machine's own.
pub const HEADER_BYTES: usize = 33;

/// A command with its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What it asks for.
    pub kind: Kind,
    /// Leader's clock, milliseconds since 1970.
    pub time_ms: u64,
    /// Session, or zero.
    pub session: u64,
    /// The client's number for this command.
    pub sequence: u64,
    /// Lower sequence numbers are answered and may be forgotten.
    pub acked_below: u64,
    /// The state machine's bytes; empty unless `kind` is `Apply`.
    pub body: Bytes,
}

/// What a command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To be applied by the state machine.
    Apply = 1,
    /// A session, whose number is the index of this entry. Raft's own: the state machine does not see it.
    OpenSession = 2,
}

impl Command {
    /// The entry's payload.
    pub fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::with_capacity(HEADER_BYTES + self.body.len());
        buffer.put_u8(self.kind as u8);
        buffer.put_u64(self.time_ms);
        buffer.put_u64(self.session);
        buffer.put_u64(self.sequence);
        buffer.put_u64(self.acked_below);
        buffer.put_slice(&self.body);
        buffer.freeze()
    }

    /// The stamp of a payload, without reading the rest; zero when there is none.
    pub fn time_ms_of(payload: &[u8]) -> u64 {
        payload.get(1..9).map_or(0, |mut stamp| stamp.get_u64())
    }

    /// Reads an entry's payload; the body shares its buffer. `None` means that it was not written by this module: such
    /// an entry applies nothing, on every node alike.
    pub fn decode(payload: &Bytes) -> Option<Self> {
        let mut header = payload.get(..HEADER_BYTES)?;
        let kind = match header.get_u8() {
            1 => Kind::Apply,
            2 => Kind::OpenSession,
            _ => return None,
        };
        Some(Self {
            kind,
            time_ms: header.get_u64(),
            session: header.get_u64(),
            sequence: header.get_u64(),
            acked_below: header.get_u64(),
            body: payload.slice(HEADER_BYTES..),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_log() {
        for (kind, body) in [(Kind::Apply, "PUT a b"), (Kind::Apply, ""), (Kind::OpenSession, "")] {
            let command = Command {
                kind,
                time_ms: 1,
                session: 2,
                sequence: u64::MAX,
                acked_below: 4,
                body: Bytes::from(body),
            };
            assert_eq!(Command::time_ms_of(&command.encode()), 1);
            assert_eq!(Command::decode(&command.encode()), Some(command));
        }
    }

    #[test]
    fn short_or_unknown_payload_is_none() {
        assert_eq!(Command::decode(&Bytes::from(vec![1; HEADER_BYTES - 1])), None);
        assert_eq!(Command::decode(&Bytes::from(vec![3; HEADER_BYTES])), None);
    }
}
