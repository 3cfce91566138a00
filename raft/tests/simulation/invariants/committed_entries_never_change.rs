//! An index that anybody ever reported as committed keeps its entry for ever, on every node.

use super::{Committed, Step};

pub fn check(step: &Step<'_>, committed: &mut Committed) {
    let term = step.node().raft().status().term;
    for entry in step.newly_committed() {
        let index = entry.id.index;
        let (known, _) = committed.entries.entry(index).or_insert_with(|| (entry.clone(), term));
        assert_eq!(*known, entry, "{} committed another entry at {index}", step.id);
    }
}
