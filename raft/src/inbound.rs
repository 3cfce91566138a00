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

/// Nodes whose boots are remembered. Beyond it the one is forgotten that was away for longest: a peer of ours is hardly ever, and whoever
/// says hello as ever new nodes must not fill the memory.
const MAX_NODES: usize = 4096;

/// The table, shared by all connections.
#[derive(Clone, Debug, Default)]
pub struct Inbound {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    nodes: BTreeMap<NodeId, Seen>,
    /// Counts comings and goings.
    moment: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    boot: u64,
    open: usize,
    /// When it came or went last.
    last: u64,
}

impl Table {
    fn now(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    fn make_room(&mut self) {
        let away = self.nodes.iter().filter(|(_, seen)| seen.open == 0);
        let longest = away.min_by_key(|(_, seen)| seen.last).map(|(node, _)| *node);
        if let Some(node) = longest {
            self.nodes.remove(&node);
        }
    }
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
        self.with(|table| {
            if table.nodes.len() >= MAX_NODES && !table.nodes.contains_key(&node) {
                table.make_room();
            }
            let last = table.now();
            let seen = table.nodes.entry(node).or_default();
            if boot < seen.boot {
                return Err(Refusal::StaleBoot);
            }
            if boot > seen.boot {
                *seen = Seen { boot, ..Seen::default() };
            }
            seen.open += 1;
            seen.last = last;
            Ok(Admitted { inbound: self.clone(), node, boot })
        })
    }

    /// Whether this start of the node is the newest known one, and has no connection to us.
    pub fn is_gone(&self, node: NodeId, boot: u64) -> bool {
        let is_gone = |seen: &Seen| seen.boot == boot && seen.open == 0;
        self.with(|table| table.nodes.get(&node).is_some_and(is_gone))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Table) -> T) -> T {
        act(&mut self.table.lock().expect("no holder of this lock panics"))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.inbound.with(|table| {
            let last = table.now();
            if let Some(seen) = table.nodes.get_mut(&self.node)
                && seen.boot == self.boot
            {
                // The node may have been forgotten since, and come again.
                seen.open = seen.open.saturating_sub(1);
                seen.last = last;
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
    fn ever_new_nodes_take_bounded_memory_and_those_that_are_here_are_remembered() {
        let inbound = Inbound::default();
        let _here = inbound.admit(NODE, 3).unwrap();
        let went = inbound.admit(NodeId(8), 3).unwrap();
        for stranger in 1_000..1_000 + 2 * MAX_NODES as u64 {
            drop(inbound.admit(NodeId(stranger), 1).unwrap());
        }
        assert_eq!(inbound.with(|table| table.nodes.len()), MAX_NODES);
        drop(went);
        for node in [NODE, NodeId(8)] {
            assert_eq!(inbound.admit(node, 2).unwrap_err(), Refusal::StaleBoot, "{node}");
        }
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
