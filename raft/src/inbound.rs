//! Who is connected to us: fences old copies of a node, and notices when a leader's process dies.
//!
//! When a process dies its connections are closed at once, long before a timer tells. When the last connection of a
//! node's present boot was closed by its own side, and no new one came within [`GRACE`], its process is most likely gone;
//! a follower of it may then campaign early. Only timers are shortened by this, never a rule of safety.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::consensus::NodeId;
use crate::rpc::wire::Refusal;

/// How long a node has for a new connection before its process is taken for dead.
pub const GRACE: Duration = Duration::from_millis(10);

/// The table, shared by all connections.
#[derive(Clone, Debug, Default)]
pub struct Inbound {
    nodes: Arc<Mutex<BTreeMap<NodeId, Seen>>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    boot: u64,
    open: usize,
}

/// An open connection from a peer.
#[derive(Debug)]
pub struct Admitted {
    inbound: Inbound,
    node: NodeId,
    boot: u64,
}

impl Inbound {
    /// Lets a peer in, unless a newer start of the same node was here before: then it runs on an old copy of its directory.
    ///
    /// # Errors
    /// [`Refusal::StaleBoot`].
    pub fn admit(&self, node: NodeId, boot: u64) -> Result<Admitted, Refusal> {
        self.with(|nodes| {
            let seen = nodes.entry(node).or_default();
            if boot < seen.boot {
                return Err(Refusal::StaleBoot);
            }
            if boot > seen.boot {
                *seen = Seen { boot, open: 0 };
            }
            seen.open += 1;
            Ok(Admitted { inbound: self.clone(), node, boot })
        })
    }

    /// Whether this start of the node is the newest known one, and has no connection to us.
    pub fn is_gone(&self, node: NodeId, boot: u64) -> bool {
        self.with(|nodes| nodes.get(&node).is_some_and(|seen| seen.boot == boot && seen.open == 0))
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<NodeId, Seen>) -> T) -> T {
        act(&mut self.nodes.lock().expect("no holder of this lock panics"))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.inbound.with(|nodes| {
            if let Some(seen) = nodes.get_mut(&self.node)
                && seen.boot == self.boot
            {
                seen.open -= 1;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(7);

    #[test]
    fn gone_when_the_last_connection_of_the_newest_boot_is() {
        let inbound = Inbound::default();
        let first = inbound.admit(NODE, 3).unwrap();
        let second = inbound.admit(NODE, 3).unwrap();
        drop(first);
        assert!(!inbound.is_gone(NODE, 3));
        drop(second);
        assert!(inbound.is_gone(NODE, 3));
    }

    #[test]
    fn end_of_an_older_boot_says_nothing_about_the_newer_one() {
        let inbound = Inbound::default();
        let old = inbound.admit(NODE, 3).unwrap();
        let _new = inbound.admit(NODE, 4).unwrap();
        drop(old);
        assert!(!inbound.is_gone(NODE, 3));
        assert!(!inbound.is_gone(NODE, 4));
        assert_eq!(inbound.admit(NODE, 3).unwrap_err(), Refusal::StaleBoot);
    }
}
