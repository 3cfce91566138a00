//! What a command entry holds: raft's own header, then the state machine's bytes.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 1 | kind: 1 command, 2 open a session, 3 renew one, 4 close one |
//! | 1 | 8 | leader's clock in milliseconds since 1970, big-endian |
//! | 9 | 8 | session, big-endian; 0 = none |
//! | 17 | 8 | sequence number, big-endian |
//! | 25 | 8 | `acked_below`: answers below are known to the client, big-endian |
//! | 33 | … | 1: the command; 2: the session's time to live in milliseconds, big-endian, or nothing = the default; else nothing |
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
    /// The state machine's bytes; of `OpenSession` the time to live ([`Command::ttl_body`]), else empty.
    pub body: Bytes,
}

/// What a command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To be applied by the state machine.
    Apply = 1,
    /// A session, whose number is the index of this entry. Raft's own: the state machine does not see it.
    OpenSession = 2,
    /// Keeps a session alive without a command. Raft's own.
    RenewSession = 3,
    /// Ends a session. Raft's own.
    CloseSession = 4,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Apply),
            2 => Some(Self::OpenSession),
            3 => Some(Self::RenewSession),
            4 => Some(Self::CloseSession),
            _ => None,
        }
    }

    /// Whether a body of so many bytes belongs to it.
    fn takes(self, body_bytes: usize) -> bool {
        match self {
            Self::Apply => true,
            Self::OpenSession => body_bytes == 0 || body_bytes == size_of::<u64>(),
            Self::RenewSession | Self::CloseSession => body_bytes == 0,
        }
    }
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

    /// The body of an opening entry whose session lives for so many milliseconds unused.
    pub fn ttl_body(ttl_ms: u64) -> Bytes {
        Bytes::copy_from_slice(&ttl_ms.to_be_bytes())
    }

    /// What an opening entry asks for, in milliseconds; zero when it asks for nothing.
    pub fn asked_ttl_ms(&self) -> u64 {
        self.body.as_ref().try_into().map_or(0, u64::from_be_bytes)
    }

    /// Reads an entry's payload; the body shares its buffer. `None` means that it was not written by this module: such
    /// an entry applies nothing, on every node alike.
    pub fn decode(payload: &Bytes) -> Option<Self> {
        let mut header = payload.get(..HEADER_BYTES)?;
        let kind = Kind::from_byte(header.get_u8())
            .filter(|kind| kind.takes(payload.len() - HEADER_BYTES))?;
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
        let ttl = Command::ttl_body(5_000);
        for (kind, body) in [
            (Kind::Apply, Bytes::from_static(b"PUT a b")),
            (Kind::Apply, Bytes::new()),
            (Kind::OpenSession, Bytes::new()),
            (Kind::OpenSession, ttl),
            (Kind::RenewSession, Bytes::new()),
            (Kind::CloseSession, Bytes::new()),
        ] {
            let command =
                Command { kind, time_ms: 1, session: 2, sequence: u64::MAX, acked_below: 4, body };
            let is_long = kind == Kind::OpenSession && !command.body.is_empty();
            assert_eq!(command.asked_ttl_ms(), if is_long { 5_000 } else { 0 });
            assert_eq!(Command::time_ms_of(&command.encode()), 1);
            assert_eq!(Command::decode(&command.encode()), Some(command));
        }
    }

    #[test]
    fn short_or_unknown_payload_is_none() {
        assert_eq!(Command::decode(&Bytes::from(vec![1; HEADER_BYTES - 1])), None);
        for (kind, body_bytes) in [(0, 0), (5, 0), (2, 7), (2, 9), (3, 1), (4, 8)] {
            let payload = vec![kind; HEADER_BYTES + body_bytes];
            assert_eq!(Command::decode(&Bytes::from(payload)), None, "{kind} {body_bytes}");
        }
    }
}
