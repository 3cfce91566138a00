//! One suite for the machine on both engines, and what only the one on disk can do.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::command::MAX_VALUE_BYTES;
use super::*;
use crate::entries::{EntryHeader, EntryKind};

/// Runs a test on an engine in memory and on one on disk.
fn on_both_engines(test: impl Fn(&mut dyn Machine)) {
    test(&mut Kv::new(MemoryEngine::new()));
    let directory = tempfile::tempdir().unwrap();
    test(&mut open(directory.path()));
}

pub(super) fn open(directory: &Path) -> Kv<DiskEngine> {
    Kv::new(DiskEngine::open(directory).unwrap())
}

/// Entries of term 2; `-` stands for one without a command.
pub(super) fn entries(commands: &[&[u8]]) -> Vec<Entry> {
    let entry = |command: &&[u8]| {
        let kind = if *command == b"-" { EntryKind::Skip } else { EntryKind::Command };
        let header = EntryHeader { kind, term: 2, time_ms: 0, session: 0, sequence: 0 };
        Entry { header, command: Bytes::copy_from_slice(command) }
    };
    commands.iter().map(entry).collect()
}

/// Applies one batch and writes its results as text.
pub(super) fn apply(machine: &mut dyn Machine, commands: &[&str]) -> Vec<String> {
    let commands: Vec<&[u8]> = commands.iter().map(|command| command.as_bytes()).collect();
    machine.apply(&entries(&commands)).unwrap().into_iter().map(text).collect()
}

fn text(result: CommandResult) -> String {
    match result {
        CommandResult::Done(bytes) => format!("done {}", bytes.escape_ascii()),
        CommandResult::Refused(bytes) => format!("refused {}", bytes.escape_ascii()),
        CommandResult::Skipped => "skipped".to_owned(),
    }
}

fn get(machine: &dyn Machine, key: &str) -> Option<String> {
    let query = Command::Get { key: Bytes::copy_from_slice(key.as_bytes()) }.encode().unwrap();
    match machine.query(&query).unwrap() {
        CommandResult::Done(answer) => {
            let value = command::decode_value(&answer).unwrap();
            value.map(|value| String::from_utf8(value.to_vec()).unwrap())
        }
        other @ (CommandResult::Refused(_) | CommandResult::Skipped) => panic!("{}", text(other)),
    }
}

pub(super) fn dump(machine: &dyn Machine) -> Vec<u8> {
    let mut body = Vec::new();
    machine.snapshot().unwrap().read_to_end(&mut body).unwrap();
    body
}

fn restore(machine: &mut dyn Machine, body: &[u8], index: u64) -> Result<(), RestoreFailure> {
    machine.begin_restore()?;
    for piece in body.chunks(5) {
        machine.write_restore(piece)?;
    }
    machine.finish_restore(LogId { term: 2, index })
}

#[test]
fn commands_do_what_their_table_says() {
    on_both_engines(|machine| {
        let cases = [
            ("PUT k a value", "done "),
            ("GET k", "done \\x01a value"),
            ("PUT k ", "done "),
            ("GET k", "done \\x01"),
            ("DEL k", "done 1"),
            ("DEL k", "done 0"),
            ("GET k", "done \\x00"),
            ("INCR n", "done 1"),
            ("INCR n 41", "done 42"),
            ("INCR n -50", "done -8"),
            ("PUT n 9223372036854775807", "done "),
            ("INCR n", "refused INCR: the sum is beyond 64 bits"),
            ("PUT n ten", "done "),
            ("INCR n", "refused INCR: the value is not a whole number of 64 bits"),
            ("GET n", "done \\x01ten"),
            (
                "FROB k",
                "refused unknown verb; known are PUT, DEL, INCR, GET, CAS, APPEND and LIST, in upper case",
            ),
            ("CAS c a b", "done \\x00"),
            ("CAS c --absent a", "done \\x02"),
            ("CAS c --absent b", "done \\x01a"),
            ("CAS c b c", "done \\x01a"),
            ("CAS c a ", "done \\x02"),
            ("CAS c  two words", "done \\x02"),
            ("GET c", "done \\x01two words"),
            ("APPEND a x", "done 1"),
            ("APPEND a  yz", "done 4"),
            ("APPEND a ", "done 4"),
            ("GET a", "done \\x01x yz"),
            ("LIST", "refused LIST only reads: query it, do not submit it"),
            ("PUT k", "refused PUT key value: the value is missing"),
            ("-", "skipped"),
        ];
        for (number, (command, result)) in (1..).zip(cases) {
            assert_eq!(apply(machine, &[command]), [result], "{command}");
            assert_eq!(machine.applied(), LogId { term: 2, index: number });
        }
    });
}

#[test]
fn entries_of_a_batch_see_each_other() {
    on_both_engines(|machine| {
        let batch = ["PUT n 5", "INCR n", "INCR n 2", "DEL n", "DEL n", "INCR n", "GET n"];
        let results = ["done ", "done 6", "done 8", "done 1", "done 0", "done 1", "done \\x011"];
        assert_eq!(apply(machine, &batch), results);
        let batch = ["CAS n 1 2", "APPEND n 3", "CAS n 23 7", "DEL n", "CAS n --absent 1"];
        let results = ["done \\x02", "done 2", "done \\x02", "done 1", "done \\x02"];
        assert_eq!(apply(machine, &batch), results);
        assert_eq!(get(machine, "n").as_deref(), Some("1"));
        assert_eq!(machine.applied().index, 12);
    });
}

#[test]
fn a_refused_command_still_counts() {
    on_both_engines(|machine| {
        apply(machine, &["FROB", "-", "INCR"]);
        assert_eq!(machine.applied().index, 3);
    });
}

#[test]
fn keys_and_values_may_hold_any_bytes() {
    on_both_engines(|machine| {
        let every_byte: Vec<u8> = (0..=255).collect();
        let large = every_byte.repeat(1 << 10);
        for value in
            [b"".as_slice(), b"\n\x00\x80", b"a\r\nb", every_byte.as_slice(), large.as_slice()]
        {
            let (key, value) = (Bytes::from_static(b"\x00 \xff"), Bytes::copy_from_slice(value));
            let put = Command::Put { key: key.clone(), value: value.clone() }.encode().unwrap();
            machine.apply(&entries(&[&put])).unwrap();
            let answer = machine.query(&Command::Get { key }.encode().unwrap()).unwrap();
            assert_eq!(answer, CommandResult::Done(encode_value(Some(&value))));
        }
    });
}

#[test]
fn a_query_never_writes() {
    on_both_engines(|machine| {
        for query in
            ["PUT k v", "DEL k", "INCR k", "CAS k --absent v", "APPEND k v", "nonsense", ""]
        {
            let answer = text(machine.query(&Bytes::from(query)).unwrap());
            assert!(answer.starts_with("refused"), "{query}: {answer}");
        }
        assert_eq!((get(machine, "k"), machine.applied()), (None, LogId::default()));
    });
}

#[test]
fn what_would_be_refused_can_be_known_before() {
    on_both_engines(|machine| {
        assert_eq!(machine.validate(&Bytes::from("PUT k v")), Verdict::Accepted);
        let verdict = machine.validate(&Bytes::from("PUT k"));
        assert_eq!(verdict, Verdict::Refused("PUT key value: the value is missing".to_owned()));
    });
}

#[test]
fn a_list_is_sorted_and_goes_on_where_it_ended() {
    on_both_engines(|machine| {
        apply(machine, &["PUT b 2", "PUT a 1", "PUT ab 3", "PUT ac ", "PUT ÿ 4", "DEL b"]);
        let list = |prefix: &str, after: &str, limit| {
            let (prefix, after) = (prefix.to_owned().into(), after.to_owned().into());
            let range = list::Range { prefix, after, limit, keys_only: false };
            let query = Command::List(range).encode().unwrap();
            let CommandResult::Done(answer) = machine.query(&query).unwrap() else { panic!() };
            let list = list::decode_list(&answer).unwrap();
            let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            let pair = |(key, value): &(Bytes, Option<Bytes>)| {
                format!("{}={}", text(key), text(value.as_ref().unwrap()))
            };
            (list.pairs.iter().map(pair).collect::<Vec<_>>().join(" "), list.more)
        };
        for (prefix, after, limit, pairs, more) in [
            ("", "", 9, "a=1 ab=3 ac= ÿ=4", false),
            ("a", "", 9, "a=1 ab=3 ac=", false),
            ("a", "", 2, "a=1 ab=3", true),
            ("a", "ab", 2, "ac=", false),
            ("ab", "a", 9, "ab=3", false),
            ("ab", "b", 9, "", false),
            ("a", "", 3, "a=1 ab=3 ac=", false),
            ("x", "", 3, "", false),
        ] {
            let expected = (pairs.to_owned(), more);
            assert_eq!(list(prefix, after, limit), expected, "{prefix} {after} {limit}");
        }
    });
}

#[test]
fn a_value_cannot_grow_over_its_limit() {
    on_both_engines(|machine| {
        let put = format!("PUT k {}", "v".repeat(MAX_VALUE_BYTES));
        assert_eq!(apply(machine, &[put.as_str(), "APPEND k "]), ["done ", "done 1040384"]);
        let refused =
            "refused APPEND: the value would have 1040385 bytes; up to 1040384 are possible";
        assert_eq!(apply(machine, &["APPEND k v"]), [refused]);
        let batch = ["APPEND k ", "APPEND k v", "DEL k", "APPEND k v", "APPEND k w", "GET k"];
        let results = ["done 1040384", refused, "done 1", "done 1", "done 2", "done \\x01vw"];
        assert_eq!(apply(machine, &batch), results);
        assert_eq!(apply(machine, &[put.as_str()]), ["done "]);
        assert_eq!(get(machine, "k").map(|value| value.len()), Some(MAX_VALUE_BYTES));
    });
}

#[test]
fn a_snapshot_is_the_state_at_its_place() {
    on_both_engines(|machine| {
        apply(machine, &["PUT a 1", "PUT b 2", "PUT c 3"]);
        let mut pinned = machine.snapshot().unwrap();
        apply(machine, &["PUT a 9", "DEL b", "PUT d 9"]);
        let mut body = Vec::new();
        pinned.read_to_end(&mut body).unwrap();
        let mut copy = Kv::new(MemoryEngine::new());
        restore(&mut copy, &body, 3).unwrap();
        let values = ["a", "b", "c", "d"].map(|key| get(&copy, key));
        assert_eq!(values, [Some("1".into()), Some("2".into()), Some("3".into()), None]);
        assert_eq!(copy.applied(), LogId { term: 2, index: 3 });
    });
}

#[test]
fn a_restore_replaces_everything() {
    on_both_engines(|machine| {
        let mut source = Kv::new(MemoryEngine::new());
        apply(&mut source, &["PUT new 1", "PUT shared 2"]);
        apply(machine, &["PUT old 1", "PUT shared 1"]);
        restore(machine, &dump(&source), 2).unwrap();
        assert_eq!(dump(machine), dump(&source), "keys that the snapshot lacks are gone");
        assert_eq!(apply(machine, &["INCR new"]), ["done 2"]);
        assert_eq!(machine.applied().index, 3);
    });
}

#[test]
fn a_restore_that_does_not_end_well_leaves_the_old_state() {
    on_both_engines(|machine| {
        apply(machine, &["PUT old 1"]);
        let before = dump(machine);
        for body in [[0; 6].as_slice(), &[1, 0, 1, 0]] {
            assert!(restore(machine, body, 9).is_err());
            machine.abandon_restore();
            assert_eq!((dump(machine), machine.applied().index), (before.clone(), 1));
        }
        machine.begin_restore().unwrap();
        machine.abandon_restore();
        assert_eq!(apply(machine, &["INCR old"]), ["done 2"]);
    });
}

#[test]
fn everything_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut machine = open(directory.path());
    assert_eq!(apply(&mut machine, &["PUT k v", "INCR n 7"]), ["done ", "done 7"]);
    machine.sync().unwrap();
    drop(machine);
    let mut machine = open(directory.path());
    assert_eq!(machine.applied(), LogId { term: 2, index: 2 });
    assert_eq!(get(&machine, "k").as_deref(), Some("v"));
    assert_eq!(apply(&mut machine, &["INCR n"]), ["done 8"]);
}

#[test]
fn much_that_is_not_synced_goes_to_the_store_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut machine = open(directory.path());
    let value = "v".repeat(1 << 19);
    let puts: Vec<String> = (1..=20).map(|number| format!("PUT key-{number} {value}")).collect();
    for put in &puts {
        apply(&mut machine, &[put, "INCR n"]);
    }
    drop(machine);
    let machine = open(directory.path());
    let applied = machine.applied().index;
    assert!((2..40).contains(&applied) && applied.is_multiple_of(2), "{applied}");
    let mut expected = Kv::new(MemoryEngine::new());
    for put in &puts[..usize::try_from(applied / 2).unwrap()] {
        apply(&mut expected, &[put, "INCR n"]);
    }
    assert!(dump(&machine) == dump(&expected), "not the state of {applied}");
}

#[test]
fn the_durable_index_moves_with_a_sync_only() {
    let directory = tempfile::tempdir().unwrap();
    let mut machine = open(directory.path());
    apply(&mut machine, &["PUT k v"]);
    assert_eq!(machine.durable_index(), 0);
    machine.sync().unwrap();
    assert_eq!(machine.durable_index(), 1);
    apply(&mut machine, &["PUT k v"]);
    assert_eq!(machine.durable_index(), 1);
    drop(machine);
    let machine = open(directory.path());
    assert_eq!(machine.durable_index(), machine.applied().index, "what is opened is synced");
}

#[test]
fn a_restored_state_is_there_after_a_restart_and_the_old_one_is_removed() {
    let mut source = Kv::new(MemoryEngine::new());
    apply(&mut source, &["PUT new 1"]);
    let directory = tempfile::tempdir().unwrap();
    let mut machine = open(directory.path());
    apply(&mut machine, &["PUT old 1"]);
    restore(&mut machine, &dump(&source), 50).unwrap();
    assert_eq!(machine.durable_index(), 50);
    drop(machine);
    assert!(!directory.path().join("store-1").exists());
    let machine = open(directory.path());
    assert_eq!((dump(&machine), machine.applied().index), (dump(&source), 50));
}

#[test]
fn a_process_that_dies_while_restoring_keeps_the_old_state() {
    let mut source = Kv::new(MemoryEngine::new());
    apply(&mut source, &["PUT new 1"]);
    let directory = tempfile::tempdir().unwrap();
    let mut machine = open(directory.path());
    apply(&mut machine, &["PUT old 1"]);
    machine.sync().unwrap();
    machine.begin_restore().unwrap();
    machine.write_restore(&dump(&source)).unwrap();
    drop(machine);
    assert!(directory.path().join("store-2").exists());
    let machine = open(directory.path());
    assert!(!directory.path().join("store-2").exists());
    assert_eq!((get(&machine, "old").as_deref(), machine.applied().index), (Some("1"), 1));
}

#[test]
fn what_is_left_of_a_restore_does_not_shine_through_the_next_one() {
    let mut source = Kv::new(MemoryEngine::new());
    apply(&mut source, &["PUT new 1"]);
    let directory = tempfile::tempdir().unwrap();
    let mut machine = open(directory.path());
    let leftover = fjall_store(&directory.path().join("store-2"));
    leftover.1.insert(b"\x01left", b"over").unwrap();
    leftover.0.persist(fjall::PersistMode::SyncAll).unwrap();
    drop(leftover);
    restore(&mut machine, &dump(&source), 9).unwrap();
    assert_eq!(dump(&machine), dump(&source));
}

fn fjall_store(path: &Path) -> (fjall::Database, fjall::Keyspace) {
    let database = fjall::Database::builder(path).open().unwrap();
    let keyspace = database.keyspace("kv", fjall::KeyspaceCreateOptions::default).unwrap();
    (database, keyspace)
}

type Damage = fn(&Path);

#[test]
fn damaged_directories_are_refused_with_their_place() {
    let cases: [(Damage, &str); 3] = [
        (|path| fs::remove_file(path.join("current")).unwrap(), "current is missing"),
        (|path| fs::write(path.join("current"), "x").unwrap(), "current holds no number"),
        (forget_applied, "there is data, and no applied index"),
    ];
    for (damage, message) in cases {
        let directory = tempfile::tempdir().unwrap();
        let mut machine = open(directory.path());
        apply(&mut machine, &["PUT k v"]);
        machine.sync().unwrap();
        drop(machine);
        damage(directory.path());
        let error = DiskEngine::open(directory.path()).unwrap_err();
        assert!(matches!(error, MachineError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

fn forget_applied(directory: &Path) {
    let (_database, keyspace) = fjall_store(&directory.join("store-1"));
    keyspace.remove([0]).unwrap();
}

/// Remembers the most that was written at once.
struct Weighed {
    inner: MemoryEngine,
    most_bytes: Arc<AtomicUsize>,
}

impl Engine for Weighed {
    fn applied(&self) -> LogId {
        self.inner.applied()
    }

    fn durable_index(&self) -> u64 {
        self.inner.durable_index()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MachineError> {
        self.inner.get(key)
    }

    fn write(&mut self, changes: Changes, applied: LogId) -> Result<(), MachineError> {
        let bytes = changes.values().flatten().map(Bytes::len).sum();
        self.most_bytes.fetch_max(bytes, Ordering::Relaxed);
        self.inner.write(changes, applied)
    }

    fn sync(&mut self) -> Result<(), MachineError> {
        self.inner.sync()
    }

    fn pairs_from(&self, from: Bound<&[u8]>) -> Pairs {
        self.inner.pairs_from(from)
    }

    fn begin_restore(&mut self) -> Result<(), RestoreFailure> {
        self.inner.begin_restore()
    }

    fn write_restore(&mut self, pairs: Vec<Pair>) -> Result<(), RestoreFailure> {
        self.inner.write_restore(pairs)
    }

    fn finish_restore(&mut self, applied: LogId) -> Result<(), RestoreFailure> {
        self.inner.finish_restore(applied)
    }

    fn abandon_restore(&mut self) {
        self.inner.abandon_restore();
    }
}

#[test]
fn a_batch_of_small_appends_to_many_large_values_does_not_take_the_memory_of_all_of_them() {
    const KEYS: usize = 40;
    const LARGE: usize = 1_000_000;
    let most_bytes = Arc::<AtomicUsize>::default();
    let engine = Weighed { inner: MemoryEngine::new(), most_bytes: Arc::clone(&most_bytes) };
    let mut machine = Kv::new(engine);
    let large = "x".repeat(LARGE);
    for key in 0..KEYS {
        apply(&mut machine, &[&format!("PUT k{key} {large}")]);
    }
    let appends: Vec<String> = (0..2 * KEYS).map(|at| format!("APPEND k{} y", at % KEYS)).collect();
    let appends: Vec<&str> = appends.iter().map(String::as_str).collect();
    let results = apply(&mut machine, &appends);
    let lengths = (0..2 * KEYS).map(|at| format!("done {}", LARGE + 1 + at / KEYS));
    assert_eq!(results, lengths.collect::<Vec<_>>());
    assert_eq!(machine.applied(), LogId { term: 2, index: 3 * KEYS as u64 });
    for key in 0..KEYS {
        assert_eq!(get(&machine, &format!("k{key}")).as_ref(), Some(&format!("{large}yy")));
    }
    let most = most_bytes.load(Ordering::Relaxed);
    assert!(most <= 10 << 20, "{most} bytes at once");
}
