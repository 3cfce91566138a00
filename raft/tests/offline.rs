//! The tools for files, as people run them: `raft log dump`, `raft log verify` and `raft snapshot inspect`.

#![expect(clippy::unwrap_used, reason = "here a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use raft::command::{self, Kind};
use raft::consensus::{
    Entry, HardState, Index, LogId, Membership, NodeId, NodeInfo, Payload, Persist, SnapshotMeta,
    Term,
};
use raft::session::Sessions;
use raft::snapshot::Store;
use raft::wal::{Options, RealDisk, Wal};
use serde_json::Value;

const CLUSTER: u128 = 0x00c0_ffee;
const BLOCK_BYTES: usize = 512;

/// Runs raft with nothing of the caller's environment; exit code and output.
fn raft(arguments: &[&str]) -> (i32, String) {
    raft_in(&[], arguments)
}

fn raft_in(environment: &[(&str, &str)], arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raft"));
    command.env_clear().envs(environment.iter().copied()).args(arguments);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

fn json_lines(arguments: &[&str]) -> (i32, Vec<Value>) {
    let (code, said) = raft(&[arguments, &["--output", "json"]].concat());
    (code, said.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A node's data directory with a log.
struct Node {
    root: tempfile::TempDir,
    wal: Wal,
    entries: u64,
}

fn membership() -> Membership {
    let info = NodeInfo { name: "n1".to_owned(), ..NodeInfo::default() };
    let nodes = [(NodeId(7), info), (NodeId(8), NodeInfo::default())].into();
    Membership {
        voters: [NodeId(7)].into(),
        learners: [NodeId(8)].into(),
        nodes,
        ..Membership::default()
    }
}

fn put(body: &str) -> Payload {
    let command = command::Command {
        kind: if body.is_empty() { Kind::OpenSession } else { Kind::Apply },
        time_ms: 1_700_000_000_123,
        session: 2,
        sequence: 9,
        acked_below: 4,
        body: body.to_owned().into(),
    };
    Payload::Command(command.encode())
}

impl Node {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let options = Options { segment_bytes: 16 << 10, background: false, ..Options::default() };
        let dir = root.path().join("raft/wal");
        let (wal, _) = Wal::open(Arc::new(RealDisk), &dir, options).unwrap();
        Self { root, wal, entries: 0 }
    }

    /// A log with something of every kind.
    fn with_everything() -> Self {
        let mut node = Self::new();
        let hard_state = Some(HardState { term: Term(1), vote: Some(NodeId(7)) });
        node.append(
            Persist { hard_state, ..Persist::default() },
            &[
                Payload::Membership(Box::new(membership())),
                Payload::Noop,
                put(""),
                put("PUT k first"),
                put("PUT k gone"),
            ],
        );
        node.entries = 4;
        let hard_state = Some(HardState { term: Term(2), vote: None });
        let truncate_from = Some(Index(5));
        let batch = Persist { hard_state, truncate_from, ..Persist::default() };
        node.append(batch, &[put("PUT k second\nline")]);
        node.append(Persist { commit_index: Index(5), ..Persist::default() }, &[]);
        node
    }

    fn append(&mut self, mut batch: Persist, payloads: &[Payload]) {
        let term = self.wal.hard_state().term.max(batch.hard_state.map_or(Term(1), |s| s.term));
        let entries = payloads.iter().map(|payload| {
            self.entries += 1;
            Entry { id: LogId::new(term, Index(self.entries)), payload: payload.clone() }
        });
        batch.append = entries.collect();
        self.wal.append(&[batch]).unwrap();
    }

    /// Entries of some size until there are so many segments.
    fn fill(&mut self, segments: usize) {
        while self.wal.segments() < segments {
            self.append(Persist::default(), &[put(&format!("PUT k {}", "v".repeat(1500)))]);
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.root.path().to_owned()
    }

    fn wal_dir(&self) -> PathBuf {
        self.root.path().join("raft/wal")
    }

    fn segments(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.wal_dir()).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|e| e == "wal")).collect();
        files.sort();
        files
    }
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_dump_shows_everything_in_the_order_of_writing() {
    let node = Node::with_everything();
    let (code, said) = raft(&["log", "dump", text(&node.data_dir())]);
    assert_eq!(code, 0, "{said}");
    let at = |part: &str| said.find(part).unwrap_or_else(|| panic!("{part:?} is missing:\n{said}"));
    let places: Vec<usize> = [
        "00000001.wal",
        "hard state  term 1, vote for 0000000000000007",
        "1@1  membership  voters 0000000000000007 (n1); learners 0000000000000008",
        "2@1  no-op",
        "3@1  command     open-session, session 2, sequence 9, acknowledged below 4, time 1700000000123 ms, 0 bytes:",
        "4@1  command     apply, session 2, sequence 9",
        "11 bytes: PUT k first",
        "5@1  command",
        "hard state  term 2, vote for nobody",
        "truncation  entries from 5 on are dropped",
        "5@2  command     apply",
        "17 bytes: PUT k second\\nline",
        "commit      up to 5",
    ]
    .map(at)
    .into();
    assert!(places.is_sorted(), "{said}");
}

#[test]
fn a_dump_for_programs_is_one_object_per_line() {
    let node = Node::with_everything();
    let (code, lines) = json_lines(&["log", "dump", text(&node.wal_dir())]);
    assert_eq!(code, 0);
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        [
            "note",
            "segment",
            "hard-state",
            "entry",
            "entry",
            "entry",
            "entry",
            "entry",
            "hard-state",
            "truncation",
            "entry",
            "commit-hint"
        ]
    );
    assert_eq!(lines[3]["membership"]["voters"][0]["name"], "n1");
    assert_eq!(lines[6]["session"], 2);
    assert_eq!(lines[6]["time_ms"], 1_700_000_000_123_u64);
    assert_eq!(lines[6]["body"], "PUT k first");
    assert_eq!((&lines[10]["index"], &lines[10]["term"]), (&5.into(), &2.into()));
}

#[test]
fn a_dump_of_a_range_shows_what_concerns_it() {
    let node = Node::with_everything();
    let shown = |range: &[&str]| {
        let (code, lines) = json_lines(&[&["log", "dump", text(&node.data_dir())], range].concat());
        assert_eq!(code, 0);
        let line = |line: &Value| match line["type"].as_str().unwrap() {
            "entry" => Some(line["index"].to_string()),
            "note" => None,
            other => Some(other.to_owned()),
        };
        lines.iter().filter_map(line).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(shown(&["--from", "4"]), "4 5 truncation 5");
    assert_eq!(shown(&["--from", "2", "--to", "3"]), "2 3");
    assert_eq!(shown(&["--to=1"]), "1");
    assert_eq!(shown(&["--from", "6"]), "truncation");
}

#[test]
fn a_log_that_is_whole_is_said_to_be_so_and_is_not_touched() {
    let mut node = Node::with_everything();
    node.fill(3);
    let Node { root, wal, entries } = node;
    drop(wal);
    let dir = root.path().join("raft/wal");
    let before = contents(&dir);
    for given in [root.path().to_owned(), root.path().join("raft"), dir.clone()] {
        let (code, said) = raft(&["log", "verify", text(&given)]);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains(&format!("whole: entries 1 to {entries}@2")), "{said}");
        assert!(!said.contains("in use"), "{said}");
        assert_eq!(raft(&["log", "dump", text(&given)]).0, 0);
    }
    assert_eq!(contents(&dir), before);
}

#[test]
fn whoever_has_the_log_in_use_is_named_and_not_hindered() {
    let mut node = Node::with_everything();
    let (code, said) = raft(&["log", "verify", text(&node.data_dir())]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains(&format!("process {} has this log in use", std::process::id())),
        "{said}"
    );
    node.append(Persist::default(), &[Payload::Noop]);
}

#[test]
fn a_log_that_is_being_written_is_never_called_damaged() {
    let mut node = Node::with_everything();
    let dir = node.data_dir();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::Relaxed) {
                let batch = Persist { commit_index: Index(node.entries), ..Persist::default() };
                node.append(batch, &vec![put(&"x".repeat(900)); 20]);
                if node.wal.segments() > 4 {
                    let last = LogId::new(node.wal.last().term, Index(node.entries - 60));
                    let meta =
                        SnapshotMeta { last, membership: membership(), membership_index: Index(1) };
                    node.wal.compact(&meta).unwrap();
                }
            }
        }
    });
    for _ in 0..30 {
        let (code, said) = raft(&["log", "verify", text(&dir)]);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("whole: entries"), "{said}");
        let (code, said) = raft(&["log", "dump", text(&dir)]);
        assert_eq!(code, 0, "{}", said.lines().last().unwrap_or_default());
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

#[test]
fn damage_is_named_with_its_place_and_the_rest_is_shown() {
    let mut node = Node::with_everything();
    node.fill(4);
    let (segments, last, dir) = (node.segments(), node.entries, node.data_dir());
    let Node { root: _root, wal, .. } = node;
    drop(wal);
    let mut bytes = fs::read(&segments[1]).unwrap();
    let place = bytes.len() / BLOCK_BYTES / 2 * BLOCK_BYTES;
    bytes[place + 100] ^= 1;
    fs::write(&segments[1], bytes).unwrap();
    let named = format!("{} at byte ", segments[1].display());

    let (code, said) = raft(&["log", "verify", text(&dir)]);
    assert_eq!(code, 11, "{said}");
    assert!(said.contains("not whole") && said.contains(&named), "{said}");
    assert!(
        said.contains("affected: entries above") && said.contains("empty data directory"),
        "{said}"
    );

    let (code, lines) = json_lines(&["log", "dump", text(&dir)]);
    assert_eq!(code, 11);
    let damage = lines.last().unwrap();
    assert_eq!((&damage["type"], &damage["file"]), (&"damage".into(), &text(&segments[1]).into()));
    assert_eq!(damage["offset"], place);
    let indexes: Vec<u64> = lines.iter().filter_map(|line| line["index"].as_u64()).collect();
    assert_eq!((indexes.first(), indexes.last()), (Some(&1), Some(&last)));
    assert!(indexes.windows(2).any(|pair| pair[1] > pair[0] + 1), "what is damaged is not shown");
}

#[test]
fn what_cannot_be_read_is_told_from_what_is_damaged() {
    let root = tempfile::tempdir().unwrap();
    let missing = root.path().join("missing");
    for path in [root.path(), &missing] {
        for tool in ["dump", "verify"] {
            let (code, said) = raft(&["log", tool, text(path)]);
            assert_eq!(code, 4, "{said}");
            assert!(said.contains(text(path)), "{said}");
        }
    }
    let (code, said) = raft(&["snapshot", "inspect", text(&missing)]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains(text(&missing)), "{said}");
}

#[test]
fn the_tools_are_listed_and_do_not_mix_with_settings() {
    let (code, help) = raft(&["--help"]);
    assert_eq!(code, 0);
    for shown in ["log ", "snapshot ", "--data-dir", "Exit codes"] {
        assert!(help.contains(shown), "{shown}: {help}");
    }
    for wrong in [
        &["log"][..],
        &["log", "dump"],
        &["log", "burn", "x"],
        &["log", "dump", "x", "--from", "one"],
        &["log", "verify", "x", "--data-dir", "y"],
        &["--data-dir", "x", "log", "verify", "x"],
        &["snapshot", "inspect"],
        &["lgo"],
    ] {
        let (code, said) = raft(wrong);
        assert_eq!(code, 2, "{wrong:?}: {said}");
    }
    for help in [&["log", "--help"][..], &["log", "dump", "--help"], &["help", "snapshot"]] {
        assert_eq!(raft(help).0, 0, "{help:?}");
    }
    // Settings that raft itself would refuse are nothing to the tools.
    let node = Node::with_everything();
    let environment = [("OUTRIGGER_CONFIG", "/nowhere"), ("OUTRIGGER_PORT_BASE", "many")];
    let (code, said) = raft_in(&environment, &["log", "verify", text(&node.data_dir())]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = raft_in(&[("OUTRIGGER_PORT_BASE", "many")], &["--print-config"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("port_base"), "{said}");
}

/// A snapshot's file, without a session table that could be read.
fn snapshot(root: &Path, machine: &[u8]) -> PathBuf {
    snapshot_with(root, b"session table", machine)
}

fn snapshot_with(root: &Path, sessions: &[u8], machine: &[u8]) -> PathBuf {
    let (store, _) = Store::open(Arc::new(RealDisk), root, Some(CLUSTER), 2).unwrap();
    let last = LogId::new(Term(3), Index(0x2a));
    let meta = SnapshotMeta { last, membership: membership(), membership_index: Index(5) };
    let mut taking = store.take(&meta, CLUSTER, sessions).unwrap();
    taking.push(machine).unwrap();
    taking.finish().unwrap();
    root.join("000000000000002a-0000000000000003.snapshot")
}

/// How a machine's stream begins.
fn machine_stream() -> Vec<u8> {
    let mut stream = b"OUTRSNAP\x01\x00".to_vec();
    stream.extend(3_u64.to_le_bytes());
    stream.extend(42_u64.to_le_bytes());
    stream.extend(b"\x02kv and what it holds");
    stream
}

#[test]
fn a_snapshot_is_described_and_checked() {
    let root = tempfile::tempdir().unwrap();
    let file = snapshot(root.path(), &machine_stream());
    let before = contents(root.path());
    let (code, said) = raft(&["snapshot", "inspect", text(&file)]);
    assert_eq!(code, 0, "{said}");
    for shown in [
        "cluster     00000000000000000000000000c0ffee",
        "index 42, term 3",
        "of index 5: voters 0000000000000007 (n1); learners 0000000000000008",
        "sessions    13 bytes",
        "machine     \"kv\" up to 42@3, 47 bytes",
        "4 whole frames",
        "whole",
    ] {
        assert!(said.contains(shown), "{shown:?} is missing:\n{said}");
    }
    let (code, lines) = json_lines(&["snapshot", "inspect", text(&file)]);
    assert_eq!((code, lines.len()), (0, 2));
    assert_eq!(lines[0]["machine"]["name"], "kv");
    assert_eq!(lines[0]["sessions_bytes"], 13);
    assert_eq!(lines[1]["whole"], true);
    assert_eq!(contents(root.path()), before);
}

#[test]
fn sessions_are_counted() {
    let root = tempfile::tempdir().unwrap();
    let mut sessions = Sessions::default();
    for index in [7, 40] {
        let (kind, body) = (Kind::OpenSession, command::Command::ttl_body(60_000));
        let opening = command::Command {
            kind,
            time_ms: 5_000,
            session: 0,
            sequence: 0,
            acked_below: 0,
            body,
        };
        sessions.fold(Index(index), &opening);
    }
    let image = sessions.image(Index(45), BTreeSet::new()).encode();
    let file = snapshot_with(root.path(), &image, &machine_stream());
    let (code, said) = raft(&["snapshot", "inspect", text(&file)]);
    assert_eq!(code, 0, "{said}");
    let shown = format!(
        "sessions    2, of entries up to 45, log time 5000 ms since 1970, {} bytes",
        image.len()
    );
    assert!(said.contains(&shown), "{said}");
    let (_, lines) = json_lines(&["snapshot", "inspect", text(&file)]);
    let told = ["sessions", "sessions_up_to", "log_time_ms"].map(|name| lines[0][name].as_u64());
    assert_eq!(told, [Some(2), Some(45), Some(5_000)]);
}

#[test]
fn a_snapshot_of_a_machine_that_frames_in_its_own_way_is_whole_too() {
    let root = tempfile::tempdir().unwrap();
    let file = snapshot(root.path(), b"anything");
    let (code, said) = raft(&["snapshot", "inspect", text(&file)]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("machine     8 bytes"), "{said}");
}

#[test]
fn a_damaged_snapshot_is_named_with_its_place() {
    let root = tempfile::tempdir().unwrap();
    let file = snapshot(root.path(), &machine_stream());
    let whole = fs::read(&file).unwrap();
    let head_bytes = 9 + u32::from_le_bytes(whole[..4].try_into().unwrap()) as usize;
    let wrong = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(&file, bytes).unwrap();
        let (code, said) = raft(&["snapshot", "inspect", text(&file)]);
        assert_eq!(code, 11, "{said}");
        said
    };
    let said = wrong(&|bytes| bytes[head_bytes + 12] ^= 1);
    assert!(
        said.contains(&format!("{} is damaged at byte {head_bytes}:", file.display())),
        "{said}"
    );
    assert!(said.contains("cluster     "), "what is whole is shown: {said}");
    let said = wrong(&|bytes| bytes.truncate(whole.len() - 1));
    assert!(said.contains(&format!("at byte {}", whole.len() - 29)), "{said}");
    let said = wrong(&|bytes| bytes[10] ^= 1);
    assert!(said.contains("at byte 0"), "{said}");

    fs::write(&file, &whole).unwrap();
    let renamed = root.path().join("000000000000002b-0000000000000003.snapshot");
    fs::rename(&file, &renamed).unwrap();
    let (code, said) = raft(&["snapshot", "inspect", text(&renamed)]);
    assert_eq!(code, 11, "raft would not use it: {said}");
}
