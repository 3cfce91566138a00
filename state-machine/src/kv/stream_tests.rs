//! Streams that are not what they claim: refused with their reason, and the old state stays.

use super::tests::{apply, dump, open};
use super::*;
use crate::attachment::MemoryAttachment;
use crate::entries::{EntryBlobBuilder, EntryHeader, EntryKind};
use crate::host::Host;
use crate::rpc::{
    Apply, Attach, BeginRestore, CONTRACT_VERSION, FinishRestore, Info, RestoreError, Restoring,
    WriteRestore,
};
use crate::snapshot::SnapshotReader;

type TestHost = Host<Kv<DiskEngine>, ()>;

const PLACE: LogId = LogId { term: 2, index: 40 };
const PIECE_BYTES: usize = 100;

fn start(directory: &std::path::Path) -> TestHost {
    let mut host = Host::new(open(directory), Box::new(MemoryAttachment::default())).unwrap();
    let attach = Attach { contract: CONTRACT_VERSION, cluster: 1, node: 1, boot: 1 };
    host.attach(&attach).unwrap().0.unwrap();
    host
}

/// The pieces of a stream that holds that body.
fn pieces(name: &str, body: Vec<u8>) -> Vec<Vec<u8>> {
    let mut reader = SnapshotReader::new(name, PLACE, Box::new(std::io::Cursor::new(body)));
    let mut pieces = Vec::new();
    while !reader.is_at_end() {
        pieces.push(reader.next_piece(PIECE_BYTES).unwrap());
    }
    pieces
}

fn restore(host: &mut TestHost, pieces: &[Vec<u8>]) -> Result<Info, RestoreError> {
    let begin = BeginRestore { boot: 1, applied_term: PLACE.term, applied_index: PLACE.index };
    let Restoring { restore, mut offset } = host.begin_restore(&begin).unwrap()?;
    for piece in pieces {
        let (bytes, checksum) = (Bytes::from(piece.clone()), crc32c::crc32c(piece));
        let write = WriteRestore { boot: 1, restore, offset, bytes, checksum };
        offset = host.write_restore(&write).unwrap()?.offset;
    }
    host.finish_restore(&FinishRestore { boot: 1, restore, snapshot_bytes: offset }).unwrap()
}

fn state(host: &TestHost) -> (Vec<u8>, LogId) {
    (dump(host.machine()), host.machine().applied())
}

#[test]
fn a_stream_that_is_not_whole_and_in_order_is_refused_and_the_old_state_stays() {
    let mut source = Kv::new(MemoryEngine::new());
    for key in 0..60 {
        apply(&mut source, &[&format!("PUT key-{key} {}", "v".repeat(key))]);
    }
    let body = dump(&source);
    let whole = pieces("kv", body.clone());
    let last = whole.len() - 1;

    let mut flipped = whole.clone();
    flipped[last / 2][PIECE_BYTES / 2] ^= 1;
    let mut lost = whole.clone();
    lost.remove(last / 2);
    let mut repeated = whole.clone();
    repeated.insert(last / 2, whole[last / 2].clone());
    let mut reordered = whole.clone();
    reordered.swap(last / 2, last / 2 + 1);
    let mut longer = whole.clone();
    longer[last].push(0);
    let not_ours = pieces("register", body.clone());
    let not_a_dump = pieces("kv", b"no pairs at all, but a good checksum".to_vec());
    let half_a_pair = pieces("kv", body[..body.len() - 1].to_vec());
    let cases = [
        ("cut short", whole[..last].to_vec()),
        ("empty", Vec::new()),
        ("flipped", flipped),
        ("a piece lost", lost),
        ("a piece repeated", repeated),
        ("pieces in another order", reordered),
        ("longer", longer),
        ("of another machine", not_ours),
        ("not a dump", not_a_dump),
        ("half a pair at its end", half_a_pair),
    ];

    let directory = tempfile::tempdir().unwrap();
    let mut host = start(directory.path());
    let mut entries = EntryBlobBuilder::new();
    let kind = EntryKind::Command;
    let header = EntryHeader { kind, term: 1, time_ms: 0, session: 0, sequence: 0 };
    entries.push(&header, b"PUT key-1 old");
    entries.push(&header, b"PUT old old");
    let old = Apply { boot: 1, first_index: 1, entries: entries.finish() };
    host.apply(std::time::Instant::now(), &old, ()).unwrap();
    let before = state(&host);
    for (name, pieces) in cases {
        let error = restore(&mut host, &pieces).unwrap_err();
        assert!(matches!(error, RestoreError::BadSnapshot { .. }), "{name}: {error}");
        assert_eq!(state(&host), before, "{name}");
        assert!(!directory.path().join("store-2").exists(), "{name}: something is left behind");
    }
    assert_eq!(restore(&mut host, &whole).unwrap().applied_index, PLACE.index);
    assert_eq!(state(&host), (body, PLACE));
}
