//! A clock of a node's own: a library that is loaded into its processes, and a file that says by how much its clock is wrong.
//!
//! Only the time of day jumps. What measures durations goes on: no system lets that jump.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Pid;

use super::tools::run_words;

const NAME: &str = "libfaketimeMT.so.1";
/// Below one of these, or one directory deeper.
const PLACES: [&str; 4] = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib"];
/// Further than any session lives.
const JUMP_SECONDS: i64 = 5400;
/// More than a log is behind the time, less than a jump.
const MUCH_SECONDS: u64 = 3600;
const DAY_SECONDS: u64 = 24 * 3600;

/// Longest wait for a line that shows a jump. SIGHUP has a process write one: it says that it has read its log filter again.
pub(super) const EVIDENCE: Duration = Duration::from_secs(5);
/// Between two looks for it.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// The library, if it is installed.
pub(super) fn library() -> Option<PathBuf> {
    let places = PLACES.iter().flat_map(|place| {
        let deeper = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
        std::iter::once(PathBuf::from(place)).chain(deeper)
    });
    places.map(|place| place.join("faketime").join(NAME)).find(|path| path.is_file())
}

/// What a process has to be started with to go by the clock in `file`.
pub(super) fn environment(library: &Path, file: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ]
}

/// The clock is right.
pub(super) fn set_right(file: &Path) -> anyhow::Result<()> {
    replace(file, "+0\n")
}

/// The clock is far ahead, or far behind.
pub(super) fn jump(file: &Path, ahead: bool) -> anyhow::Result<()> {
    let seconds = if ahead { JUMP_SECONDS } else { -JUMP_SECONDS };
    replace(file, &format!("{seconds:+}\n"))
}

/// In one step: the library ends a process that finds the file empty.
fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    let next = file.with_extension("next");
    fs::write(&next, text)?;
    Ok(fs::rename(next, file)?)
}

/// Why it cannot be done here; `file` is written to. A library for another system does nothing, or worse.
pub(super) async fn obstacle(file: &Path) -> Option<String> {
    let Some(library) = library() else {
        return Some(format!("needs {NAME} (Debian: libfaketime)"));
    };
    try_out(&library, file).await.err().map(|why| format!("{why:#}"))
}

async fn try_out(library: &Path, file: &Path) -> anyhow::Result<()> {
    let environment = environment(library, file);
    let settings: Vec<_> =
        environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut words = vec!["env"];
    words.extend(settings.iter().map(String::as_str));
    words.extend(["date", "+%s"]);
    let mut said = [0; 2];
    for (ahead, time) in [false, true].into_iter().zip(&mut said) {
        jump(file, ahead)?;
        *time = run_words(&words).await?.trim().parse()?;
    }
    let [behind, ahead]: [i64; 2] = said;
    anyhow::ensure!(ahead - behind >= 2 * JUMP_SECONDS, "{} moves no clock", library.display());
    set_right(file)
}

/// Whether a process has the library.
pub(super) fn is_in(pid: Pid) -> bool {
    let maps = fs::read_to_string(format!("/proc/{}/maps", pid.as_raw_nonzero()));
    maps.is_ok_and(|maps| maps.contains(NAME))
}

/// Whether whoever wrote this line of a log took it for another time of day than it is.
pub(super) fn is_off(line: &str, now: SystemTime) -> bool {
    let now_seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() % DAY_SECONDS;
    written_at_seconds(line).is_some_and(|written_seconds| {
        let apart_seconds = written_seconds.abs_diff(now_seconds);
        apart_seconds.min(DAY_SECONDS - apart_seconds) > MUCH_SECONDS
    })
}

/// Since midnight, of a line as our processes write it: "2026-03-01T10:00:00.123456Z  INFO …".
fn written_at_seconds(line: &str) -> Option<u64> {
    let (_date, time) = line.split_whitespace().next()?.strip_suffix('Z')?.split_once('T')?;
    let (time, _fraction) = time.split_once('.')?;
    let numbers: Option<Vec<u64>> = time.split(':').map(|number| number.parse().ok()).collect();
    match numbers?.as_slice() {
        &[hours @ ..24, minutes @ ..60, seconds] => Some(hours * 3600 + minutes * 60 + seconds),
        _ => None,
    }
}

/// The library leaves two small files for every process.
pub(super) fn sweep(pid: Pid) {
    for name in ["faketime_shm", "sem.faketime_sem"] {
        let _none = fs::remove_file(format!("/dev/shm/{name}_{}", pid.as_raw_nonzero()));
    }
}

/// The same in a container, whose first process is `pid` on this machine, for what has ended there.
pub(super) fn sweep_container(pid: &str) {
    let root = Path::new("/proc").join(pid).join("root");
    for file in fs::read_dir(root.join("dev/shm")).into_iter().flatten().flatten() {
        let name = file.file_name();
        let name = name.to_string_lossy();
        let owner = name.rsplit_once('_').map(|(_, owner)| owner).unwrap_or_default();
        let is_of_a_clock = name.contains("faketime_") && owner.parse::<u32>().is_ok();
        if is_of_a_clock && !root.join("proc").join(owner).exists() {
            let _gone = fs::remove_file(file.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_off_at(line: &str, hours: u64, minutes: u64) -> bool {
        // Of some day.
        let now_seconds = 20_000 * DAY_SECONDS + hours * 3600 + minutes * 60;
        is_off(line, UNIX_EPOCH + Duration::from_secs(now_seconds))
    }

    #[test]
    fn a_jump_is_seen_in_the_time_that_a_line_begins_with() {
        let line = "2026-03-01T11:30:00.123456Z  INFO raft: SIGHUP: log filter set";
        assert!(is_off_at(line, 10, 0), "ahead");
        assert!(is_off_at(line, 13, 0), "behind");
        assert!(!is_off_at(line, 11, 31));
        assert!(!is_off_at(line, 10, 40));
    }

    #[test]
    fn midnight_is_no_jump() {
        let line = "2026-03-01T23:59:59.999999Z  INFO raft: role changed";
        assert!(!is_off_at(line, 0, 1));
        assert!(is_off_at(line, 1, 30), "behind");
    }

    #[test]
    fn what_our_processes_do_not_write_shows_nothing() {
        for line in [
            "",
            "no time",
            "2026-03-01T11:30:00+0000 raft: started, pid 12",
            "2026-03-01T11:30Z",
            "2026-03-01T99:30:00.5Z  INFO raft: role changed",
        ] {
            assert!(!is_off_at(line, 10, 0), "{line}");
        }
    }
}
