//! The consensus core stays pure: it imports nothing but itself, values and arithmetic.

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

#[test]
fn the_core_uses_no_io_no_clock_and_no_unordered_map() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/consensus");
    let mut files = 0;
    for file in fs::read_dir(&core).expect("the core's directory can be read") {
        let path = file.expect("its entries can be read").path();
        let text = fs::read_to_string(&path).expect("its files are text");
        for (number, line) in text.lines().enumerate() {
            for forbidden in FORBIDDEN {
                assert!(
                    !line.contains(forbidden),
                    "{}:{}: {forbidden}",
                    path.display(),
                    number + 1
                );
            }
        }
        files += 1;
    }
    assert!(files > 10, "only {files} files: is this the core?");
}
