//! Names of the files in the directory.

use crate::consensus::{Index, LogId, Term};

/// A snapshot that is being taken. It holds nothing once the process has ended.
pub(super) const TAKING: &str = "taking.tmp";
/// What has arrived of a snapshot from a leader.
pub(super) const PART: &str = "incoming.part";
const SUFFIX: &str = ".snapshot";
const SET_ASIDE: &str = ".damaged";

/// The file of the snapshot up to this entry.
pub(super) fn of(last: LogId) -> String {
    format!("{:016x}-{:016x}{SUFFIX}", last.index.0, last.term.0)
}

/// The last entry of the snapshot that has this name.
pub(super) fn last_of(name: &str) -> Option<LogId> {
    let (index, term) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let number = |hex: &str| u64::from_str_radix(hex, 16).ok();
    let last = LogId::new(Term(number(term)?), Index(number(index)?));
    (of(last) == name).then_some(last)
}

/// What a snapshot's file is called once it was found to be damaged.
pub(super) fn set_aside(name: &str) -> String {
    format!("{name}{SET_ASIDE}")
}

/// Of a damaged file that was set aside: the index at which its snapshot ends.
pub(super) fn set_aside_at(name: &str) -> Option<Index> {
    last_of(name.strip_suffix(SET_ASIDE)?).map(|last| last.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_where_the_snapshot_ends_and_sort_as_they_should() {
        let last = LogId::new(Term(3), Index(0x1_0000));
        assert_eq!(of(last), "0000000000010000-0000000000000003.snapshot");
        assert_eq!(last_of(&of(last)), Some(last));
        assert_eq!(set_aside_at(&set_aside(&of(last))), Some(Index(0x1_0000)));
        assert!(of(last) < of(LogId::new(Term(2), Index(0x1_0001))));
    }

    #[test]
    fn other_names_are_left_alone() {
        for name in [
            TAKING,
            PART,
            "0000000000010000-3.snapshot",
            "000000000001000A-0000000000000003.snapshot",
            "0000000000010000-0000000000000003.snapshot.damaged",
            "+000000000001000-0000000000000003.snapshot",
        ] {
            assert_eq!(last_of(name), None, "{name}");
        }
        assert_eq!(set_aside_at("0000000000010000-0000000000000003.snapshot"), None);
    }
}
