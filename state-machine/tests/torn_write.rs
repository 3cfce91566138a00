//! The store's journal cut at every byte of its last batch, as a process or a machine leaves it that dies while writing: whatever is
//! there after the next start is the state of exactly the applied index.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fs;
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use state_machine::entries::{Entry, EntryHeader, EntryKind};
use state_machine::kv::command::encode_value;
use state_machine::kv::{DiskEngine, Kv};
use state_machine::machine::Machine;
use state_machine::rpc::CommandResult;
use tempfile::TempDir;

const JOURNAL: &str = "store-1/0.jnl";

/// Zeros after the cut: the store makes its journal longer than what is written in it, and the system may have kept that or not.
const ZEROS: &[u64] = &[0, 4096];

/// One batch, which goes to the journal: a count and a serial.
fn apply_batch(machine: &mut Kv<DiskEngine>) {
    let next = machine.applied().index + 1;
    let entry = |command: String| {
        let kind = EntryKind::Command;
        let header = EntryHeader { kind, term: 1, time_ms: 0, session: 0, sequence: 0 };
        Entry { header, command: command.into() }
    };
    let entries = [entry("INCR n".to_owned()), entry(format!("PUT serial {next}"))];
    machine.apply(&entries).unwrap();
    machine.sync().unwrap();
}

fn get(machine: &Kv<DiskEngine>, key: &str) -> CommandResult {
    machine.query(&Bytes::from(format!("GET {key}"))).unwrap()
}

/// The state must be that of `applied` entries, and so of whole batches.
fn check_state(machine: &Kv<DiskEngine>) -> u64 {
    let applied = machine.applied().index;
    assert_eq!(applied % 2, 0, "half a batch is applied");
    let value = |number: u64| {
        let text = (applied > 0).then(|| number.to_string());
        CommandResult::Done(encode_value(text.as_ref().map(String::as_bytes)))
    };
    assert_eq!(get(machine, "n"), value(applied / 2), "of {applied}");
    assert_eq!(get(machine, "serial"), value(applied.saturating_sub(1)), "of {applied}");
    applied
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy_directory(&item.path(), &target);
        } else if item.path().extension().is_none_or(|extension| extension != "jnl") {
            fs::copy(item.path(), target).unwrap();
        }
    }
}

/// Where the written part of a journal ends: what follows is zeros.
fn written_bytes(directory: &Path) -> usize {
    let journal = fs::read(directory.join(JOURNAL)).unwrap();
    journal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[test]
fn a_journal_cut_anywhere_opens_to_the_state_of_its_applied_index() {
    let directory = TempDir::new().unwrap();
    let mut machine = Kv::new(DiskEngine::open(directory.path()).unwrap());
    apply_batch(&mut machine);
    let before = written_bytes(directory.path());
    apply_batch(&mut machine);
    let end = written_bytes(directory.path());
    let journal = fs::read(directory.path().join(JOURNAL)).unwrap();

    let mut seen = Vec::new();
    for (cut, zeros) in (before..=end).flat_map(|cut| ZEROS.iter().map(move |zeros| (cut, zeros))) {
        let copy = TempDir::new().unwrap();
        copy_directory(directory.path(), copy.path());
        let mut file = fs::File::create(copy.path().join(JOURNAL)).unwrap();
        file.write_all(&journal[..cut]).unwrap();
        file.set_len(cut as u64 + zeros).unwrap();
        let mut machine = Kv::new(DiskEngine::open(copy.path()).unwrap());
        seen.push(check_state(&machine));
        // And it goes on from there.
        apply_batch(&mut machine);
        check_state(&machine);
    }
    seen.dedup();
    assert_eq!(seen, [2, 4], "the batch is there once its last byte is, and not before");
}
