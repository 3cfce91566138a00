//! Term, commit index and ready index of a running process never fall, and no snapshot takes the machine back.

use super::Step;

pub fn check(step: &Step<'_>) {
    let (raft, before) = (step.node().raft(), step.before);
    assert!(raft.hard_state().term >= before.term, "the term of {} fell", step.id);
    assert!(raft.commit_index() >= before.commit_index, "the commit index of {} fell", step.id);
    assert!(raft.ready_index() >= before.ready_index, "the ready index of {} fell", step.id);
    if let Some(ready) = step.output.ready_index {
        assert_eq!(ready, raft.ready_index(), "{} reports another ready index", step.id);
        assert!(ready > before.ready_index, "{} reports old news", step.id);
    }
    if let Some(meta) = &step.output.install {
        let last = meta.last.index;
        assert!(last > before.commit_index, "{} installs an old snapshot up to {last}", step.id);
    }
}
