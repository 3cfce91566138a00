//! What must be true of everything that nodes ever say of themselves.

use std::collections::BTreeMap;

use raft_client::NodeStatus;

/// Remembers what was said, and compares.
#[derive(Default)]
pub struct Invariants {
    leaders: BTreeMap<(Option<String>, u64), String>,
    last: BTreeMap<String, NodeStatus>,
}

impl Invariants {
    /// Checks one more status.
    ///
    /// # Panics
    /// When it contradicts what was said before.
    pub fn check(&mut self, status: &NodeStatus) {
        if status.role == "leader" {
            let term = (status.cluster.clone(), status.term);
            let leader = self.leaders.entry(term).or_insert_with(|| status.id.clone());
            assert_eq!(*leader, status.id, "two leaders in term {}", status.term);
        }
        assert!(status.commit_index <= status.last_index, "committed but not there: {status:?}");
        if let Some(before) = self.last.insert(status.id.clone(), status.clone()) {
            assert!(before.term <= status.term, "the term fell: {before:?} {status:?}");
            assert!(before.boot <= status.boot, "the boot fell: {before:?} {status:?}");
            if let Some(cluster) = before.cluster {
                assert_eq!(Some(cluster), status.cluster, "the cluster changed");
            }
            if before.boot == status.boot {
                assert!(
                    before.commit_index <= status.commit_index,
                    "the commit index fell: {status:?}"
                );
            }
        }
    }

    /// Leaders seen, one for each term.
    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }
}
