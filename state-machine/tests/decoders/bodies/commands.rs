//! Batches of entries, commands of the key-value machine, and its answers as a client reads them.

use bytes::Bytes;
use state_machine::entries::{Entry, EntryBlob, EntryBlobBuilder, EntryHeader, EntryKind};
use state_machine::kv::command::{Command, decode_swap, decode_value, encode_swap, encode_value};
use state_machine::kv::list::{Range, decode_list};
use state_machine::kv::{Kv, MemoryEngine};
use state_machine::machine::Machine;
use state_machine::rpc::CommandResult;

use super::calls::blob;

/// A batch: what is accepted is made of the very bytes.
pub(crate) fn batch(bytes: &[u8]) -> bool {
    let batch = EntryBlob::from_bytes(Bytes::copy_from_slice(bytes));
    let Ok(entries) = batch.decode() else { return false };
    let mut again = EntryBlobBuilder::new();
    for entry in &entries {
        again.push(&entry.header, &entry.command);
    }
    assert_eq!(again.finish().as_bytes(), bytes, "there is one way to write a batch");
    !entries.is_empty()
}

pub(crate) fn batch_seeds() -> Vec<Vec<u8>> {
    let batches: [&[&[u8]]; 3] = [&[b""], &[b"PUT a b"], &[b"PUT a b", b"", b"\x01\x01binary"]];
    batches.iter().map(|commands| blob(commands).as_bytes().to_vec()).collect()
}

/// Commands behind their lengths (2 bytes), each done twice: as it came, and as it is written by our own client.
pub(crate) fn kv(mut bytes: &[u8]) -> bool {
    let mut machines = [Kv::new(MemoryEngine::new()), Kv::new(MemoryEngine::new())];
    let mut understood = false;
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (command, rest) = rest.split_at(length);
        bytes = rest;
        let command = Bytes::copy_from_slice(command);
        let decoded = Command::decode(&command);
        let again = decoded.as_ref().map_or(command.clone(), |known| known.encode().unwrap());
        if let Ok(known) = &decoded {
            assert_eq!(Command::decode(&again).as_ref(), Ok(known));
        }
        understood |= decoded.is_ok();
        let [first, second] = &mut machines;
        assert_eq!(apply(first, command.clone()), apply(second, again.clone()));
        assert_eq!(first.query(&command).unwrap(), second.query(&again).unwrap());
    }
    understood
}

fn apply(machine: &mut Kv<MemoryEngine>, command: Bytes) -> Vec<CommandResult> {
    let (kind, time_ms) = (EntryKind::Command, 1000);
    let header = EntryHeader { kind, term: 1, time_ms, session: 0, sequence: 0 };
    machine.apply(&[Entry { header, command }]).unwrap()
}

pub(crate) fn kv_seeds() -> Vec<Vec<u8>> {
    let lines: [&[u8]; 9] = [
        b"PUT a 1",
        b"INCR a 41",
        b"GET a",
        b"CAS a 42 b",
        b"CAS n --absent x",
        b"APPEND a tail of it",
        b"LIST a",
        b"LIST",
        b"DEL a",
    ];
    let binary = [
        Command::Put { key: Bytes::from_static(b"a b"), value: Bytes::from_static(b"\r\n") },
        Command::Cas {
            key: Bytes::from_static(b"\0"),
            expected: None,
            value: Bytes::from_static(b"--absent\n"),
        },
        Command::List(Range {
            after: Bytes::from_static(b"aa"),
            limit: 3,
            ..Range::of_prefix(Bytes::from_static(b"a"))
        }),
    ];
    let binary = binary.map(|command| command.encode().unwrap().to_vec());
    let all: Vec<Vec<u8>> = lines.iter().map(|line| line.to_vec()).chain(binary).collect();
    let with_length = |command: &Vec<u8>| {
        let length = u16::try_from(command.len()).unwrap().to_le_bytes();
        [&length[..], command].concat()
    };
    let alone = all.iter().map(with_length);
    let together = all.iter().flat_map(with_length).collect();
    alone.chain([together]).collect()
}

/// Answers, as whoever asked reads them.
pub(crate) fn answers(bytes: &[u8]) -> bool {
    let answer = Bytes::copy_from_slice(bytes);
    let value = decode_value(&answer);
    if let Ok(value) = &value {
        assert_eq!(decode_value(&encode_value(value.as_deref())), Ok(value.clone()));
    }
    let swap = decode_swap(&answer);
    if let Ok(swap) = &swap {
        assert_eq!(decode_swap(&encode_swap(swap)).as_ref(), Ok(swap));
    }
    value.is_ok() | swap.is_ok() | decode_list(&answer).is_ok()
}

pub(crate) fn answer_seeds() -> Vec<Vec<u8>> {
    let mut machine = Kv::new(MemoryEngine::new());
    let commands: [&[u8]; 5] = [b"PUT a 1", b"GET a", b"GET b", b"CAS a 2 3", b"CAS a 1 3"];
    let mut results: Vec<_> = commands
        .iter()
        .flat_map(|command| apply(&mut machine, Bytes::from_static(command)))
        .collect();
    results.push(machine.query(&Bytes::from_static(b"LIST")).unwrap());
    let answer = |result| match result {
        CommandResult::Done(answer) => Some(answer.to_vec()),
        CommandResult::Refused(_) | CommandResult::Skipped => None,
    };
    results.into_iter().filter_map(answer).filter(|answer| answers(answer)).collect()
}
