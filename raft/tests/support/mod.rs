//! A node without a network: the core, a disk that forgets what was not synced, and the messages that wait for it.
//! Shared by the scripts and by the simulation.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod disk;
pub mod node;
pub mod print;
pub mod victim;

use std::collections::BTreeMap;

use raft::consensus::{Config, Membership, NodeId, NodeInfo};

/// Settings with timeouts of a few ticks, so that a test sees many elections.
pub fn quick_config(id: NodeId, seed: u64) -> Config {
    Config {
        id,
        seed,
        heartbeat_ticks: 2,
        election_ticks_min: 6,
        election_ticks_max: 12,
        link_lost_ticks_max: 1,
        max_append_bytes: 1 << 16,
        window_messages: 8,
        window_bytes: 1 << 18,
        log_cache_bytes: 1 << 20,
        max_uncommitted_bytes: 1 << 20,
    }
}

/// A configuration of these voters and learners, with made-up addresses.
pub fn membership(voters: &[u64], learners: &[u64]) -> Membership {
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    let mut membership =
        Membership { voters: ids(voters), learners: ids(learners), ..Membership::default() };
    membership.nodes = addresses(&membership);
    membership
}

fn addresses(membership: &Membership) -> BTreeMap<NodeId, NodeInfo> {
    let info = |id: NodeId| NodeInfo {
        name: format!("n{}", id.0),
        raft_address: format!("n{}:6004", id.0),
        http_address: String::new(),
    };
    membership.members().into_iter().map(|id| (id, info(id))).collect()
}
