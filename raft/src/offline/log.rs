//! `raft log dump` and `raft log verify`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::item::print;
use super::read_only::ReadOnlyDisk;
use super::report::{Report, id_json};
use super::{Verdict, holder};
use crate::consensus::Index;
use crate::wal::{self, Inspection, Item, OpenError};

/// What was found is looked at again after this time: a write that was under way is over then.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// For so long, if it is something else each time.
const LOOK_FOR: Duration = Duration::from_secs(5);

const TOO_FAST: &str = "the log is written to faster than it can be looked at; no damage was found twice: try again, or \
                        stop raft first";

/// Which entries are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    from: Index,
    to: Index,
    is_all: bool,
}

impl Range {
    pub(super) fn new(from: Option<u64>, to: Option<u64>) -> Self {
        let is_all = from.is_none() && to.is_none();
        Self { from: Index(from.unwrap_or(0)), to: Index(to.unwrap_or(u64::MAX)), is_all }
    }

    /// Whether this has to do with the entries that are wanted.
    fn wants(&self, item: &Item) -> bool {
        match item {
            Item::Segment { .. } | Item::HardState(_) | Item::CommitHint(_) => self.is_all,
            Item::Truncation(from) => *from <= self.to,
            Item::Base { meta, .. } => meta.last.index >= self.from,
            Item::Entry(entry) => (self.from..=self.to).contains(&entry.id.index),
        }
    }
}

/// Prints the log.
pub(super) fn dump<W: Write>(
    dir: &Path,
    range: Range,
    report: &mut Report<W>,
) -> io::Result<Verdict> {
    let dir = log_dir(dir);
    note_holder(&dir, report)?;
    let mut written = Ok(());
    let found = look(&dir, &mut |item| {
        if written.is_ok() && range.wants(&item) {
            written = print(&item, report);
        }
    });
    written?;
    conclude(&dir, found, report, |_, _| Ok(()))
}

/// Says whether the log is whole.
pub(super) fn verify<W: Write>(dir: &Path, report: &mut Report<W>) -> io::Result<Verdict> {
    let dir = log_dir(dir);
    note_holder(&dir, report)?;
    let found = look(&dir, &mut |_| {});
    conclude(&dir, found, report, summarize)
}

/// The log of a node's data directory, or of raft's part of it; or else what was given.
fn log_dir(given: &Path) -> PathBuf {
    let inside = ["raft/wal", "wal"].map(|below| given.join(below));
    inside.into_iter().find(|dir| dir.is_dir()).unwrap_or_else(|| given.to_owned())
}

fn note_holder<W: Write>(dir: &Path, report: &mut Report<W>) -> io::Result<()> {
    let Some(process) = holder::of(&dir.join(wal::LOCK_FILE)) else { return Ok(()) };
    let text = format!("process {process} has this log in use; its end may move while it is read");
    report.note(&text)
}

/// What an inspection comes to; or why there is nothing to inspect.
type Found = Result<Inspection, String>;

/// What is wrong, for comparing.
fn faults_of(found: &Found) -> Vec<String> {
    match found {
        Ok(found) => found.faults.iter().map(OpenError::to_string).collect(),
        Err(why) => vec![why.clone()],
    }
}

fn look(dir: &Path, on_item: &mut dyn FnMut(Item)) -> Found {
    let found = wal::inspect(&ReadOnlyDisk, dir, on_item).map_err(|error| error.to_string())?;
    if found.segments.is_empty() && found.faults.is_empty() {
        return Err(format!(
            "there is no log in {}: give a node's data directory, or the one with its .wal files",
            dir.display()
        ));
    }
    Ok(found)
}

/// Looks until what is found is the same twice, or whole: whoever writes the log may have been at it. Also says whether
/// that was so.
fn settle(mut found: Found, limit: Duration, mut look: impl FnMut() -> Found) -> (Found, bool) {
    let begun = Instant::now();
    let mut faults = faults_of(&found);
    let mut has_moved = false;
    while !faults.is_empty() {
        if begun.elapsed() > limit {
            return (Err(TOO_FAST.to_owned()), has_moved);
        }
        std::thread::park_timeout(LOOK_AGAIN);
        found = look();
        let before = std::mem::replace(&mut faults, faults_of(&found));
        if before == faults {
            break;
        }
        has_moved = true;
    }
    (found, has_moved)
}

fn conclude<W: Write>(
    dir: &Path,
    found: Found,
    report: &mut Report<W>,
    say: impl FnOnce(&Inspection, &mut Report<W>) -> io::Result<()>,
) -> io::Result<Verdict> {
    let (found, has_moved) = settle(found, LOOK_FOR, || look(dir, &mut |_| {}));
    if has_moved {
        report
            .note("the log was written to while it was read; what came later may not be shown")?;
    }
    let found = match found {
        Ok(found) => found,
        Err(why) => {
            report.error(&why)?;
            return Ok(Verdict::Unreadable);
        }
    };
    say(&found, report)?;
    for stale in &found.stale {
        report.note(&format!("{} counts no more; the next start removes it", stale.display()))?;
    }
    for fault in &found.faults {
        print_fault(fault, report)?;
    }
    Ok(verdict(&found.faults))
}

fn summarize<W: Write>(found: &Inspection, report: &mut Report<W>) -> io::Result<()> {
    for segment in &found.segments {
        let wal::SegmentSummary { file, bytes, frames } = segment;
        report.line(
            || format!("{}  {bytes} bytes, {frames} whole frames", file.display()),
            || json!({"type": "segment", "file": file.display().to_string(), "bytes": bytes, "frames": frames}),
        )?;
    }
    let (held, first) = (&found.held, found.first);
    let base = held.base.as_ref().map(|base| base.last);
    let is_whole = found.faults.is_empty();
    report.line(
        || {
            let vote = held.hard_state.vote.map_or("nobody".to_owned(), |vote| vote.to_string());
            let entries = if first > held.last.index {
                "no entries".to_owned()
            } else {
                format!("entries {first} to {}", held.last)
            };
            let base = base.map_or(String::new(), |base| format!(" behind a snapshot up to {base}"));
            let (term, commit) = (held.hard_state.term, held.commit_index);
            let verdict = if is_whole { "whole" } else { "not whole" };
            format!("{verdict}: {entries}{base}; committed up to {commit} at least; term {term}, vote for {vote}")
        },
        || {
            json!({
                "type": "verdict",
                "whole": is_whole,
                "first": first.0,
                "last": id_json(held.last),
                "base": base.map(id_json),
                "commit_index": held.commit_index.0,
                "term": held.hard_state.term.0,
                "vote": held.hard_state.vote.map(|vote| vote.to_string()),
            })
        },
    )
}

fn print_fault<W: Write>(fault: &OpenError, report: &mut Report<W>) -> io::Result<()> {
    let OpenError::Damaged(damage) = fault else { return report.error(&fault.to_string()) };
    report.line(
        || format!("damaged: {damage}"),
        || {
            json!({
                "type": "damage", "file": damage.file.display().to_string(), "offset": damage.offset, "what": damage.what,
                "affected": damage.affected, "text": damage.to_string(),
            })
        },
    )
}

fn verdict(faults: &[OpenError]) -> Verdict {
    let is_damage = |fault: &OpenError| {
        matches!(fault, OpenError::Damaged(_) | OpenError::UnknownVersion { .. })
    };
    let is_foreign = |fault: &OpenError| matches!(fault, OpenError::Foreign { .. });
    if faults.iter().any(is_damage) {
        Verdict::Damaged
    } else if faults.iter().any(is_foreign) {
        Verdict::Foreign
    } else if faults.is_empty() {
        Verdict::Whole
    } else {
        Verdict::Unreadable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settles on what is looked at in this order; a number is a fault of that name, and zero is none.
    fn settled(looks: &[u32], limit: Duration) -> (Vec<String>, bool, usize) {
        let found = |fault: u32| match fault {
            0 => Ok(Inspection::default()),
            fault => Err(fault.to_string()),
        };
        let mut later = looks[1..].iter();
        let (found, has_moved) = settle(found(looks[0]), limit, || found(*later.next().unwrap()));
        (faults_of(&found), has_moved, later.len())
    }

    #[test]
    fn only_what_is_found_twice_is_so() {
        let long = Duration::from_mins(1);
        assert_eq!(settled(&[0, 1], long), (vec![], false, 1));
        assert_eq!(settled(&[1, 1, 2], long), (vec!["1".to_owned()], false, 1));
        assert_eq!(settled(&[1, 0, 2], long), (vec![], true, 1));
        assert_eq!(settled(&[1, 2, 2, 3], long), (vec!["2".to_owned()], true, 1));
    }

    #[test]
    fn what_is_something_else_each_time_is_not_called_damage() {
        let (faults, has_moved, left) = settled(&[1, 2, 3], Duration::from_nanos(1));
        assert_eq!((faults, has_moved, left), (vec![TOO_FAST.to_owned()], false, 2));
    }
}
