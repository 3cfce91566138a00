//! Simulated time goes on only when the real threads rest.
//!
//! The log and the machine have threads of their own, which need real time. The simulation waits for them after each step, so that a
//! disk's answer takes one step however slow this computer is, and a busy computer looks like a fast one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Threads that do a process's work beside its event loop, by name.
const NAMES: [&str; 3] = ["wal", "wal-prepare", "machine"];
/// A thread that is at work for so long hangs.
const LONGEST: Duration = Duration::from_mins(2);

/// The threads of this program that are to be waited for.
#[derive(Default)]
pub struct Threads {
    found: Vec<File>,
    steps: u32,
}

impl Threads {
    /// Waits until none of them is at work.
    pub fn wait_until_idle(&mut self) {
        if self.steps.is_multiple_of(16) {
            self.found = find().unwrap_or_default();
        }
        self.steps += 1;
        self.wait();
    }

    /// Likewise, and looks for those that were started since.
    pub fn find_and_wait(&mut self) {
        self.found = find().unwrap_or_default();
        self.wait();
    }

    fn wait(&self) {
        let begun = Instant::now();
        while self.found.iter().any(is_at_work) {
            assert!(begun.elapsed() < LONGEST, "a thread does not come to rest");
            std::thread::yield_now();
        }
    }
}

fn find() -> io::Result<Vec<File>> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        // It may end meanwhile.
        let Ok(name) = fs::read_to_string(task.join("comm")) else { continue };
        if NAMES.contains(&name.trim())
            && let Ok(file) = File::open(task.join("stat"))
        {
            found.push(file);
        }
    }
    Ok(found)
}

/// Whether it does anything but sleep, which is what waiting for work is.
fn is_at_work(stat: &File) -> bool {
    let mut text = [0; 64];
    // A thread that has ended cannot be read.
    let Ok(read) = stat.read_at(&mut text, 0) else { return false };
    let state = text[..read].split(|byte| *byte == b')').nth(1).and_then(|rest| rest.get(1));
    !matches!(state, None | Some(b'S' | b'Z' | b'X'))
}
