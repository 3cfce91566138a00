//! Which ends of processes that nobody ended belong to a fault.

use raft::tasks::LogFailure;

use super::fault::{Fault, Kind, Need};
use super::node::Program;

/// Unexpected failure.
const FAILED: i32 = 1;
/// The data directory cannot be written to.
const UNWRITABLE: i32 = 4;
/// A write or sync failed.
pub(super) const WRITE_FAILED: i32 = 13;
/// As a shell says it of a process that SIGKILL ended.
pub(super) const KILLED: i32 = 128 + 9;

/// The end of a process that nobody ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) node: usize,
    pub(super) program: Program,
    /// None: by a signal.
    pub(super) code: Option<i32>,
    /// Whether its node has the disk that can be full.
    pub(super) on_small_disk: bool,
}

/// Whether the fault that is being done, or was the last one to be healed, explains it.
#[allow(clippy::wildcard_enum_match_arm, reason = "a question about few of many kinds")]
pub(super) fn is_explained(end: End, fault: Option<&Fault>) -> bool {
    let (Some(fault), Some(code)) = (fault, end.code) else { return false };
    match fault.kind {
        Kind::FailingSync => {
            end.node == fault.node && end.program == Program::Raft && code == WRITE_FAILED
        }
        // What was written by halves, and what cannot be begun again while there is no room.
        Kind::FullDisk => end.on_small_disk && [FAILED, UNWRITABLE, WRITE_FAILED].contains(&code),
        _ => false,
    }
}

/// Whether a raft that was told to stop says, in what it has written since, that its last sync took too long. On a disk that others keep
/// busy that may be, and nothing is lost.
pub(super) fn was_cut_short(program: Program, code: Option<i32>, said: &str) -> bool {
    let is_failed_raft = program == Program::Raft && code == Some(WRITE_FAILED);
    is_failed_raft && said.contains(&LogFailure::TooSlow.to_string())
}

/// Whether a supervisor may give up on a process after that fault: a disk refused a write. No other fault leaves a process down. Who was
/// wiped begins anew, who was given up by the others comes back by itself, and who leaves because it was told to stop ends with its
/// container, and is a member again when that is started.
pub(super) fn is_for_an_operator(fault: Option<&Fault>) -> bool {
    let needs = [Some(Need::SmallDisk), Some(Need::Trace)];
    fault.is_some_and(|fault| needs.contains(&fault.kind.need()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explains(kind: Kind, program: Program, node: usize, code: i32) -> bool {
        let end = End { node, program, code: Some(code), on_small_disk: node == 4 };
        is_explained(end, Some(&Fault { kind, node: 1, other: 2 }))
    }

    #[test]
    fn an_end_belongs_to_the_fault_that_makes_it_and_to_no_other() {
        assert!(explains(Kind::FailingSync, Program::Raft, 1, 13));
        assert!(!explains(Kind::FailingSync, Program::Raft, 2, 13), "another node");
        assert!(!explains(Kind::FailingSync, Program::StateMachine, 1, 13), "not traced");
        assert!(!explains(Kind::FailingSync, Program::Raft, 1, 11), "damaged");
        assert!(explains(Kind::FullDisk, Program::Member, 4, 4));
        assert!(!explains(Kind::FullDisk, Program::Raft, 4, 11), "damaged");
        assert!(!explains(Kind::FullDisk, Program::Raft, 1, 13), "another disk");
        assert!(!explains(Kind::Isolate, Program::Raft, 1, 0), "nobody told it to stop");
    }

    #[test]
    fn without_a_fault_and_by_a_signal_none_is_explained() {
        let end = End { node: 1, program: Program::Raft, code: Some(13), on_small_disk: true };
        assert!(!is_explained(end, None));
        let fault = Fault { kind: Kind::FullDisk, node: 1, other: 2 };
        assert!(!is_explained(End { code: None, ..end }, Some(&fault)));
    }

    #[test]
    fn a_raft_that_is_told_to_stop_may_fail_if_it_was_too_slow_and_says_so() {
        let said = "ERROR raft: the log has failed: not synced in time after a signal";
        assert!(was_cut_short(Program::Raft, Some(13), said));
        assert!(!was_cut_short(Program::Raft, Some(13), "ERROR raft: no space left on device"));
        assert!(!was_cut_short(Program::Raft, Some(1), said));
        assert!(!was_cut_short(Program::StateMachine, Some(13), said));
    }

    #[test]
    fn only_a_disk_that_fails_keeps_a_process_down() {
        let calls = |kind| is_for_an_operator(Some(&Fault { kind, node: 1, other: 2 }));
        let kinds: Vec<_> = Kind::ALL.into_iter().filter(|kind| calls(*kind)).collect();
        assert_eq!(kinds, [Kind::FullDisk, Kind::FailingSync]);
        assert!(!is_for_an_operator(None));
    }
}
