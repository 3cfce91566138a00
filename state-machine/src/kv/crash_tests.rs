//! A process that dies at any step of a restore leaves exactly the old state or exactly the new one.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::Command as Process;

use super::tests::{apply, dump, open};
use super::*;
use crate::crash_point::CRASH_POINT;

/// In the child: the directory to work in.
const DIRECTORY: &str = "STATE_MACHINE_CRASH_DIRECTORY";
const THIS_TEST: &str =
    "kv::crash_tests::a_process_that_dies_while_restoring_leaves_the_old_state_or_the_new_one";

/// Every step in its order, and whether the state is the new one after it.
const STEPS: [(&str, bool); 10] = [
    ("about to begin", false),
    ("begun", false),
    ("wrote some", false),
    ("wrote all", false),
    ("wrote the applied index", false),
    ("synced", false),
    ("wrote the new file", false),
    ("renamed the new file", true),
    ("switched", true),
    ("closed a store that is to be removed", true),
];

const INDEX: u64 = 100;

/// A snapshot of several tables, with keys below, between and above the old ones.
fn snapshot() -> Vec<u8> {
    let mut source = Kv::new(MemoryEngine::new());
    let value = "v".repeat(MAX_VALUE);
    for key in 0..20 {
        apply(&mut source, &[&format!("PUT {key} {value}"), &format!("PUT z{key} new")]);
    }
    dump(&source)
}

const MAX_VALUE: usize = 1_000_000;

fn restore(machine: &mut dyn Machine, body: &[u8]) {
    machine.begin_restore().unwrap();
    for piece in body.chunks(256 << 10) {
        machine.write_restore(piece).unwrap();
    }
    machine.finish_restore(LogId { term: 2, index: INDEX }).unwrap();
}

/// Restores in a process of its own, which dies at that step.
fn restore_and_die(directory: &std::path::Path, step: &str) {
    let mut child = Process::new(env::current_exe().unwrap());
    child.args(["--exact", THIS_TEST, "--nocapture"]);
    let output = child.env(CRASH_POINT, step).env(DIRECTORY, directory).output().unwrap();
    assert_eq!(output.status.signal(), Some(6), "{step}: {output:?}");
}

#[test]
fn a_process_that_dies_while_restoring_leaves_the_old_state_or_the_new_one() {
    let body = snapshot();
    if let Some(directory) = env::var_os(DIRECTORY) {
        restore(&mut open(directory.as_ref()), &body);
        return;
    }
    for (step, is_new) in STEPS {
        let directory = tempfile::tempdir().unwrap();
        let mut machine = open(directory.path());
        apply(&mut machine, &["PUT 1 old", "PUT gone old", "PUT z1 old"]);
        let old = dump(&machine);
        machine.sync().unwrap();
        drop(machine);

        restore_and_die(directory.path(), step);
        let mut machine = open(directory.path());
        let (state, index) = if is_new { (&body, INDEX) } else { (&old, 3) };
        assert!(dump(&machine) == *state, "{step}: another state");
        assert_eq!((machine.applied().index, machine.durable_index()), (index, index), "{step}");

        // And it goes on from there, with the same restore to begin with.
        apply(&mut machine, &["PUT gone again"]);
        restore(&mut machine, &body);
        apply(&mut machine, &["PUT 1 newer", "DEL z1"]);
        machine.sync().unwrap();
        drop(machine);
        let machine = open(directory.path());
        assert_eq!(machine.applied().index, INDEX + 2, "{step}");
        let mut expected = Kv::new(MemoryEngine::new());
        restore(&mut expected, &body);
        apply(&mut expected, &["PUT 1 newer", "DEL z1"]);
        assert!(dump(&machine) == dump(&expected), "{step}: another state later");
    }
}
