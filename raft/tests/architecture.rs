//! The consensus core stays pure: it imports nothing but itself, values and arithmetic. And what is durable is written by files
//! that say at once whether they were.

use std::fs;
use std::path::Path;

/// What would bring I/O, a clock, chance without a seed, or an order that differs from run to run.
const FORBIDDEN: [&str; 16] = [
    "tokio",
    "tarpc",
    "tracing",
    "std::net",
    "std::fs",
    "std::io",
    "std::time",
    "std::thread",
    "std::env",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "rand::rng(",
    "println!",
    "crate::",
];

/// Their errors show with a later call, or never.
const FILES_OF_THE_RUNTIME: &str = "tokio::fs";

/// Looks at each line of each file below `directory`, and says how many files there were.
fn each_line(directory: &Path, look: &impl Fn(&str, &str)) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(directory).expect("the directory can be read") {
        let path = entry.expect("its entries can be read").path();
        if path.is_dir() {
            files += each_line(&path, look);
            continue;
        }
        let text = fs::read_to_string(&path).expect("its files are text");
        for (number, line) in text.lines().enumerate() {
            look(line, &format!("{}:{}", path.display(), number + 1));
        }
        files += 1;
    }
    files
}

fn source() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
}

#[test]
fn the_core_uses_no_io_no_clock_and_no_unordered_map() {
    let files = each_line(&source().join("consensus"), &|line, place| {
        for forbidden in FORBIDDEN {
            assert!(!line.contains(forbidden), "{place}: {forbidden}");
        }
    });
    assert!(files > 10, "only {files} files: is this the core?");
}

#[test]
fn what_is_durable_is_written_by_plain_files_only() {
    let files = each_line(source(), &|line, place| {
        assert!(!line.contains(FILES_OF_THE_RUNTIME), "{place}: {FILES_OF_THE_RUNTIME}");
    });
    assert!(files > 60, "only {files} files: is this all of raft?");
}
