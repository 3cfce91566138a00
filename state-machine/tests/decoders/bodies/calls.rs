//! What raft asks of a machine, done by a host with the key-value machine in memory.

use std::time::Instant;

use bytes::Bytes;
use state_machine::attachment::MemoryAttachment;
use state_machine::entries::{EntryBlob, EntryBlobBuilder, EntryHeader, EntryKind};
use state_machine::host::Host;
use state_machine::kv::{Kv, MemoryEngine};
use state_machine::machine::{LogId, Machine};
use state_machine::rpc::{
    Apply, Attach, BeginRestore, BeginSnapshot, CONTRACT_VERSION, FinishRestore, Notice, Notify,
    Query, ReadSnapshot, StateMachineServiceRequest, Validate, WriteRestore,
};
use state_machine::snapshot::SnapshotReader;
use tarpc::ClientMessage;

use super::frames::{framed, frames, request, request_frame};

type KvHost = Host<Kv<MemoryEngine>, u64>;

const BOOT: u64 = 4;

fn host() -> KvHost {
    let mut host =
        KvHost::new(Kv::new(MemoryEngine::new()), Box::new(MemoryAttachment::default())).unwrap();
    host.attach(&attach()).unwrap().0.unwrap();
    host
}

fn attach() -> Attach {
    Attach { contract: CONTRACT_VERSION, cluster: 2, node: 3, boot: BOOT }
}

/// Frames of requests. A machine in memory never breaks, and counts every entry.
pub(crate) fn requests(bytes: &[u8]) -> bool {
    let (mut host, mut understood) = (host(), false);
    for frame in frames(bytes) {
        if let Some(ClientMessage::Request(request)) = request(frame) {
            let before = host.machine().applied();
            call(&mut host, request.id, request.message);
            assert!(host.machine().applied().index >= before.index, "the machine went back");
            understood = true;
        }
    }
    understood
}

fn call(host: &mut KvHost, id: u64, request: StateMachineServiceRequest) {
    let now = Instant::now();
    match request {
        StateMachineServiceRequest::Attach { request } => drop(host.attach(&request).unwrap()),
        StateMachineServiceRequest::Apply { request } => {
            drop(host.apply(now, &request, id).unwrap());
        }
        StateMachineServiceRequest::Query { request } => drop(host.query(&request).unwrap()),
        StateMachineServiceRequest::BeginSnapshot { request } => begin_snapshot(host, &request),
        StateMachineServiceRequest::ReadSnapshot { request } => {
            drop(host.pinned_snapshot(now, &request));
        }
        StateMachineServiceRequest::BeginRestore { request } => {
            drop(host.begin_restore(&request).unwrap());
        }
        StateMachineServiceRequest::WriteRestore { request } => {
            drop(host.write_restore(&request).unwrap());
        }
        StateMachineServiceRequest::FinishRestore { request } => {
            drop(host.finish_restore(&request).unwrap());
        }
        StateMachineServiceRequest::Notify { request } => drop(host.notify(&request)),
        StateMachineServiceRequest::Validate { request } => drop(host.validate(&request)),
    }
}

fn begin_snapshot(host: &mut KvHost, request: &BeginSnapshot) {
    if let Ok((info, snapshot)) = host.begin_snapshot(Instant::now(), request).unwrap() {
        let read = ReadSnapshot { boot: request.boot, snapshot: info.snapshot, offset: 0 };
        host.pinned_snapshot(Instant::now(), &read).unwrap();
        assert!(snapshot.read(0).unwrap().is_ok(), "what was pinned can be read");
    }
}

/// The checksum at a stream's end is put right, so that what it protects is looked at.
const RESEALED: u8 = 1;

/// A byte of flags, a byte that says how long the pieces are, then a stream. What is taken comes out again as it went in.
pub(crate) fn restore(bytes: &[u8]) -> bool {
    let [flags, piece_bytes, bytes @ ..] = bytes else { return false };
    let mut stream = bytes.to_vec();
    if flags & RESEALED != 0 {
        reseal(&mut stream);
    }
    let applied = LogId { term: 3, index: 9 };
    let mut host = host();
    if !restored(&mut host, &stream, applied, 1 + usize::from(*piece_bytes)) {
        assert_eq!(host.machine().applied(), LogId::default(), "the old state stays");
        return false;
    }
    assert_eq!(host.machine().applied(), applied);
    assert_eq!(stream_of(&host, applied), stream, "there is one way to write a state");
    true
}

fn stream_of(host: &KvHost, applied: LogId) -> Vec<u8> {
    let mut reader = SnapshotReader::new("kv", applied, host.machine().snapshot().unwrap());
    let mut stream = Vec::new();
    while !reader.is_at_end() {
        stream.extend(reader.next_piece(1 << 10).unwrap());
    }
    stream
}

fn restored(host: &mut KvHost, stream: &[u8], applied: LogId, piece_bytes: usize) -> bool {
    let LogId { term: applied_term, index: applied_index } = applied;
    let begin = BeginRestore { boot: BOOT, applied_term, applied_index };
    let restore = host.begin_restore(&begin).unwrap().unwrap().restore;
    let mut offset = 0;
    for piece in stream.chunks(piece_bytes) {
        let bytes = Bytes::copy_from_slice(piece);
        let checksum = crc32c::crc32c(&bytes);
        let write = WriteRestore { boot: BOOT, restore, offset, bytes, checksum };
        match host.write_restore(&write).unwrap() {
            Ok(state) => offset = state.offset,
            Err(_) => return false,
        }
    }
    let finish = FinishRestore { boot: BOOT, restore, snapshot_bytes: stream.len() as u64 };
    host.finish_restore(&finish).unwrap().is_ok()
}

fn reseal(stream: &mut [u8]) {
    const TAIL_BYTES: usize = 12;
    let Some(before) = stream.len().checked_sub(TAIL_BYTES) else { return };
    let (content, tail) = stream.split_at_mut(before);
    tail[..8].copy_from_slice(&(before as u64).to_le_bytes());
    tail[8..].copy_from_slice(&crc32c::crc32c(content).to_le_bytes());
}

/// Entries with these commands, from the first one on.
pub(crate) fn blob(commands: &[&[u8]]) -> EntryBlob {
    let mut builder = EntryBlobBuilder::new();
    for (number, command) in (1..).zip(commands) {
        let kind = if command.is_empty() { EntryKind::Skip } else { EntryKind::Command };
        let header = EntryHeader { kind, term: 3, time_ms: 1000, session: 7, sequence: number };
        builder.push(&header, command);
    }
    builder.finish()
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let boot = BOOT;
    let apply = |first_index, commands: &[&[u8]]| {
        let request = Apply { boot, first_index, entries: blob(commands) };
        StateMachineServiceRequest::Apply { request }
    };
    let stream = streams().pop().unwrap();
    let (bytes, snapshot_bytes) = (Bytes::from(stream.clone()), stream.len() as u64);
    let write =
        WriteRestore { boot, restore: 2, offset: 0, checksum: crc32c::crc32c(&bytes), bytes };
    let begin = BeginRestore { boot, applied_term: 3, applied_index: 9 };
    let query = Query { boot, min_applied_index: 2, query: Bytes::from_static(b"GET a") };
    let notice = Notice::Leader { term: 3, leader: Some(4), here: true };
    let command = Bytes::from_static(b"INCR a 1");
    let requests = [
        StateMachineServiceRequest::Attach { request: attach() },
        apply(1, &[b"PUT a 1", b"", b"INCR a 3", b"APPEND b xy"]),
        apply(7, &[b"CAS a 4 5", b"DEL b"]),
        apply(5, &[b"PUT a b", b"PUT c d"]),
        StateMachineServiceRequest::Query { request: query },
        StateMachineServiceRequest::BeginSnapshot { request: BeginSnapshot { boot } },
        StateMachineServiceRequest::ReadSnapshot {
            request: ReadSnapshot { boot, snapshot: 1, offset: 0 },
        },
        StateMachineServiceRequest::BeginRestore { request: begin },
        StateMachineServiceRequest::WriteRestore { request: write },
        StateMachineServiceRequest::FinishRestore {
            request: FinishRestore { boot, restore: 2, snapshot_bytes },
        },
        StateMachineServiceRequest::Notify { request: Notify { boot, notice } },
        StateMachineServiceRequest::Validate { request: Validate { boot, command } },
    ];
    let frames: Vec<_> = requests.iter().map(|message| request_frame(1, message)).collect();
    let alone = frames.iter().map(|frame| framed(std::slice::from_ref(frame)));
    alone.chain([framed(&frames)]).collect()
}

fn streams() -> Vec<Vec<u8>> {
    let states: [&[&[u8]]; 2] = [&[], &[b"PUT a 1", b"PUT bb 2", b"PUT ccc \x7fvalue"]];
    let stream = |commands: &&[&[u8]]| {
        let mut host = host();
        let request = Apply { boot: BOOT, first_index: 1, entries: blob(commands) };
        host.apply(Instant::now(), &request, 1).unwrap();
        stream_of(&host, LogId { term: 3, index: 9 })
    };
    states.iter().map(stream).collect()
}

pub(crate) fn restore_seeds() -> Vec<Vec<u8>> {
    let flagged =
        |stream: Vec<u8>| [[0, 255], [RESEALED, 6]].map(|flags| [&flags[..], &stream].concat());
    streams().into_iter().flat_map(flagged).collect()
}
