//! What goes to the state machine is committed, and durable on this very disk: the machine outlives the process, and must
//! never be ahead of the log.

use super::{Committed, Step};

pub fn check(step: &Step<'_>, committed: &Committed) {
    let node = step.node();
    let ready = node.raft().ready_index();
    assert!(ready <= node.raft().commit_index(), "{} hands on what is not committed", step.id);
    if ready == step.before.ready_index {
        return;
    }
    let id = committed.id(ready).expect("what is ready was committed by somebody");
    assert!(node.disk.holds(id), "{} hands on {id}, which is not on its disk", step.id);
}
