//! A cluster of nodes on this machine.

use std::path::Path;
use std::time::Duration;

use raft::rpc::client::{self, NodeStatus};
use raft::rpc::wire::Endpoint;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use super::node::{Flags, Node, Origin};
use super::program::Program;
use super::wait::eventually;

/// Clusters take turns: several at once would measure each other.
static TURN: Mutex<()> = Mutex::const_new(());

/// Voters that the autopilot aims at.
const MOST_VOTERS: usize = 5;
/// Longest wait for a node's own status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// For tests: little disk, and no wait for what proves itself over seconds.
pub(crate) const QUICK: Flags = Flags {
    member: &["--probe-interval-ms=200", "--probe-timeout-ms=90", "--rejoin-interval-ms=1000"],
    raft: &["--segment-mib=16", "--promote-after-ms=300"],
};
/// The same, and SIGTERM means to leave.
pub(crate) const LEAVERS: Flags = Flags {
    member: QUICK.member,
    raft: &["--segment-mib=16", "--promote-after-ms=300", "--leave-on-terminate"],
};

/// The same, and a snapshot for each MiB of log, behind which nothing stays.
pub(crate) const SNAPPY: Flags = Flags {
    member: QUICK.member,
    raft: &[
        "--segment-mib=16",
        "--promote-after-ms=300",
        "--snapshot-floor-mib=1",
        "--snapshot-ratio-percent=50",
        "--keep-trailing-mib=0",
        "--log-cache-mib=8",
    ],
};
/// The same, but snapshots are taken only when they are ordered, and much log stays behind them.
pub(crate) const LONG_TAIL: Flags = Flags {
    member: QUICK.member,
    raft: &["--segment-mib=16", "--promote-after-ms=300", "--snapshot-floor-mib=65536"],
};
/// The same, and nothing stays behind them.
pub(crate) const ORDERED_SNAPSHOTS: Flags = Flags {
    member: QUICK.member,
    raft: &[
        "--segment-mib=16",
        "--promote-after-ms=300",
        "--snapshot-floor-mib=65536",
        "--keep-trailing-mib=0",
        "--log-cache-mib=8",
    ],
};
/// The same, and they are slow.
pub(crate) const SLOW_SNAPSHOTS: Flags = Flags {
    member: QUICK.member,
    raft: &[
        "--segment-mib=16",
        "--promote-after-ms=300",
        "--snapshot-floor-mib=65536",
        "--keep-trailing-mib=0",
        "--log-cache-mib=8",
        "--snapshot-rate-mib=4",
    ],
};

/// The same, so slowly that whatever happens then happens in the middle.
pub(crate) const CRAWLING: Flags = Flags {
    member: QUICK.member,
    raft: &[
        "--segment-mib=16",
        "--promote-after-ms=300",
        "--snapshot-floor-mib=65536",
        "--keep-trailing-mib=0",
        "--log-cache-mib=8",
        "--snapshot-rate-mib=1",
    ],
};

/// The same, and voters are given up soon.
pub(crate) const IMPATIENT: Flags = Flags {
    member: QUICK.member,
    raft: &["--segment-mib=16", "--promote-after-ms=300", "--dead-after-ms=1000"],
};

/// Nodes 0, 1, 2…; node 0 founded the cluster. All processes are killed when dropped, before the directories go.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    flags: Flags,
    root: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts so many nodes and waits until they all vote.
    pub(crate) async fn form(size: usize, flags: Flags) -> Self {
        let turn = TURN.lock().await;
        // Paths of sockets are limited to some hundred bytes, so they start short.
        let root = tempfile::Builder::new().prefix("og").tempdir().expect("a temporary directory");
        let mut cluster = Self { nodes: Vec::new(), flags, root, _turn: turn };
        for _ in 0..size {
            cluster.add_node().await;
        }
        cluster.all_vote().await;
        cluster
    }

    /// Starts one more node, with an empty directory; its number.
    pub(crate) async fn add_node(&mut self) -> usize {
        let number = self.nodes.len();
        let origin = match self.nodes.first() {
            None => Origin::Founder,
            Some(founder) => {
                Origin::Joiner { seed: founder.address(Program::Member, "introducer") }
            }
        };
        self.nodes.push(Node::new(self.root.path(), number, origin, self.flags));
        self.nodes[number].start_all().await;
        number
    }

    /// A node.
    pub(crate) fn node(&mut self, node: usize) -> &mut Node {
        &mut self.nodes[node]
    }

    /// Directory for whatever a test needs.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Numbers of all nodes.
    pub(crate) fn numbers(&self) -> std::ops::Range<usize> {
        0..self.nodes.len()
    }

    /// The raft ports of all nodes.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.nodes.iter().map(Node::raft).collect()
    }

    /// The raft port of one node.
    pub(crate) fn endpoint(&self, node: usize) -> Endpoint {
        self.nodes[node].raft()
    }

    /// `host:port` of one node's HTTP port.
    pub(crate) fn http(&self, node: usize) -> String {
        self.nodes[node].address(Program::Raft, "http")
    }

    /// What a node says of itself, if it answers.
    pub(crate) async fn status(&self, node: usize) -> Option<NodeStatus> {
        let (client, _) = client::connect(&self.endpoint(node), 0, STATUS_TIMEOUT).await.ok()?;
        timeout(STATUS_TIMEOUT, client.status(tarpc::context::current())).await.ok()?.ok()
    }

    /// What a node says of itself.
    pub(crate) async fn answer(&self, node: usize) -> NodeStatus {
        eventually(&format!("status of node {node}"), async || self.status(node).await).await
    }

    /// Waits until a node is as wished.
    pub(crate) async fn until(
        &self,
        node: usize,
        what: &str,
        wished: impl Fn(&NodeStatus) -> bool,
    ) -> NodeStatus {
        let what = format!("node {node}: {what}");
        eventually(&what, async || self.status(node).await.filter(&wished)).await
    }

    /// The node that leads in the highest term, once a node does.
    pub(crate) async fn leader(&self) -> usize {
        eventually("a leader", async || {
            let mut leaders = Vec::new();
            for node in self.numbers() {
                let status = self.status(node).await.filter(|status| status.role == "leader");
                leaders.extend(status.map(|status| (status.term, node)));
            }
            leaders.into_iter().max().map(|(_, node)| node)
        })
        .await
    }

    /// A node that does not lead.
    pub(crate) async fn follower(&self) -> usize {
        let leader = self.leader().await;
        self.numbers().find(|node| *node != leader).expect("more than one node")
    }

    /// Waits until every node knows as many of them as there can be as voters, by a committed configuration, and has its
    /// other two processes at hand.
    pub(crate) async fn all_vote(&self) {
        let nodes = self.nodes.len().min(MOST_VOTERS);
        let voters = nodes - (nodes + 1) % 2;
        for node in self.numbers() {
            self.until(node, "all vote", |status| {
                status.voters.len() == voters
                    && status.outgoing.is_empty()
                    && status.membership_committed
                    && status.leader.is_some()
                    && is_whole(status)
            })
            .await;
        }
    }

    /// Waits until every node has applied all that is committed now, and has its other two processes at hand.
    pub(crate) async fn all_catch_up(&self) {
        let leader = self.leader().await;
        let committed = self.answer(leader).await.commit_index;
        for node in self.numbers() {
            self.until(node, &format!("applied {committed}"), |status| {
                status.applied_index >= committed && is_whole(status)
            })
            .await;
        }
    }

    /// The terms that the nodes are in.
    pub(crate) async fn terms(&self) -> Vec<u64> {
        let mut terms = Vec::new();
        for node in self.numbers() {
            terms.push(self.answer(node).await.term);
        }
        terms
    }
}

fn is_whole(status: &NodeStatus) -> bool {
    status.state_machine == "attached" && status.member == "connected"
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.nodes.iter().for_each(Node::print_logs);
        }
        self.nodes.clear();
    }
}
