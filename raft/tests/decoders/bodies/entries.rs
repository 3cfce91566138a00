//! What an entry holds, in the log of a peer: bytes, a command, a session's use.

use bytes::Bytes;
use raft::command::{Command, Kind};
use raft::consensus::{Entry, Index, LogId, Payload, Term};
use raft::entries;
use raft::session::Sessions;

/// Entries behind the place before them; whatever they ask of the sessions is answered.
pub(crate) fn batch(bytes: &[u8]) -> bool {
    let Some((place, bytes)) = bytes.split_first_chunk::<16>() else { return false };
    let number = |at: usize| u64::from_le_bytes(place[at..at + 8].try_into().unwrap());
    let prev = LogId { term: Term(number(0)), index: Index(number(8)) };
    let batch = Bytes::copy_from_slice(bytes);
    match entries::decode(prev, &batch) {
        Ok(entries) => {
            let again = entries::decode(prev, &entries::encode(&entries)).unwrap();
            assert_eq!(again, entries);
            fold(&entries);
            !entries.is_empty()
        }
        Err(error) => {
            assert!(error.offset < bytes.len(), "{error}");
            false
        }
    }
}

fn fold(entries: &[Entry]) {
    let mut sessions = Sessions::default();
    for entry in entries {
        let Payload::Command(payload) = &entry.payload else { continue };
        let Some(command) = Command::decode(payload) else { continue };
        assert_eq!(command.encode(), payload, "there is one way to write a command");
        sessions.fold(entry.id.index, &command);
    }
    let last = entries.last().map_or(Index(0), |entry| entry.id.index);
    let image = sessions.image(last, [].into());
    assert_eq!(raft::session::Image::decode(&image.encode()).unwrap(), image);
}

pub(crate) fn batch_seeds() -> Vec<Vec<u8>> {
    let command = |kind, session, sequence, body: &'static [u8]| {
        let (time_ms, body) = (1000, Bytes::from_static(body));
        let command = Command { kind, time_ms, session, sequence, acked_below: 1, body };
        Payload::Command(command.encode())
    };
    let payloads = [
        command(Kind::OpenSession, 0, 0, b"\0\0\0\0\0\0\x10\0"),
        command(Kind::OpenSession, 0, 0, b""),
        command(Kind::Apply, 8, 1, b"PUT a b"),
        command(Kind::Apply, 8, 1, b"PUT a b"),
        command(Kind::Apply, 8, 3, b"INCR n"),
        command(Kind::RenewSession, 9, 0, b""),
        command(Kind::CloseSession, 8, 0, b""),
        Payload::Noop,
        Payload::Membership(Box::new(crate::support::membership(&[1, 2, 3], &[4]))),
    ];
    let entry = |(index, payload): (u64, &Payload)| Entry {
        id: LogId::new(Term(2), Index(index)),
        payload: payload.clone(),
    };
    let batch = |payloads: &[Payload]| {
        let entries: Vec<_> = (8..).zip(payloads).map(entry).collect();
        [&2_u64.to_le_bytes()[..], &7_u64.to_le_bytes(), &entries::encode(&entries)].concat()
    };
    payloads.chunks(1).chain([&payloads[..]]).map(batch).collect()
}
