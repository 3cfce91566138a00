//! Files for decoders that read files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A directory of this process; in memory where there is such a file system, as the fuzzer writes a file for each input.
static SCRATCH: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let within = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let scratch =
        within.join(format!("decoders-{}-{}", env!("CARGO_PKG_NAME"), std::process::id()));
    fs::create_dir_all(&scratch).unwrap();
    scratch
});

/// A directory of that name.
pub(crate) fn directory(name: &str) -> PathBuf {
    let directory = SCRATCH.join(name);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Removes all of it.
#[allow(dead_code, reason = "the fuzzer is killed, and its script cleans up")]
pub(crate) fn clean_up() {
    drop(fs::remove_dir_all(&*SCRATCH));
}
