//! Whether one node works: what a container's health check wants to know.
//!
//! The node's peers are none of its business. A node that is cut off, or has no leader, is healthy: to start it again would
//! mend nothing, and cost the cluster a vote.

use std::time::Duration;

use raft_client::{Client, Endpoint, NodeStatus, Options};

/// Whoever probes waits no longer than this, so that it hears why.
const LIMIT: Duration = Duration::from_secs(2);

/// How to ask a node, and no other.
pub(crate) fn options(endpoint: Endpoint, patience: Duration) -> Options {
    let timeout = patience.min(LIMIT);
    Options { timeout, discover: false, forward: false, ..Options::new(vec![endpoint]) }
}

/// Asks the node.
///
/// # Errors
/// What is wrong with it.
pub(crate) async fn probe(client: &Client) -> Result<(), String> {
    let status = client.status().await.map_err(|error| error.to_string())?;
    lack(&status).map_or(Ok(()), Err)
}

/// What is missing, of the three processes of the node that says this of itself.
fn lack(status: &NodeStatus) -> Option<String> {
    // Raft attaches the machine once it knows which cluster it is in.
    if status.cluster.is_some() && status.state_machine != "attached" {
        Some(format!("state-machine: {}", status.state_machine))
    } else if status.member != "connected" {
        Some(format!("member: {}", status.member))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(cluster: bool, state_machine: &str, member: &str) -> NodeStatus {
        NodeStatus {
            name: "node1".to_owned(),
            id: "1".to_owned(),
            cluster: cluster.then(|| "c1".to_owned()),
            role: "candidate".to_owned(),
            pid: 1,
            boot: 1,
            term: 1,
            leader: None,
            commit_index: 0,
            applied_index: 0,
            last_index: 0,
            voters: Vec::new(),
            outgoing: Vec::new(),
            learners: Vec::new(),
            membership_committed: false,
            state_machine: state_machine.to_owned(),
            member: member.to_owned(),
            fsync: true,
            version: "0".to_owned(),
            http_address: String::new(),
            first_index: 1,
            snapshot_index: 0,
            snapshot_bytes: 0,
            log_bytes: 0,
        }
    }

    #[test]
    fn only_the_nodes_own_processes_count() {
        for (cluster, machine, member, expected) in [
            (true, "attached", "connected", None),
            (false, "detached", "connected", None),
            (true, "detached", "connected", Some("state-machine: detached")),
            (true, "attached", "refused", Some("member: refused")),
            (false, "detached", "refused", Some("member: refused")),
        ] {
            assert_eq!(lack(&status(cluster, machine, member)).as_deref(), expected);
        }
    }
}
