//! Which ends of processes that nobody ended belong to a fault.

use super::fault::{Fault, Kind};
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
}
