//! Learning the cluster from a node: the leader's address, and other ways in for when this node is gone. Only
//! suggestions; an address that does not serve is left behind like any other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use raft::rpc::client::{ClientServiceClient, MemberStatus, NodeStatus};
use raft::rpc::wire::Endpoint;

use crate::pursuit::Pursuer;

/// Nobody waits for what is learned here.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks a node to which a connection was just opened.
pub(crate) async fn discover(pursuer: Arc<Pursuer>, client: ClientServiceClient) {
    let mut context = tarpc::context::current();
    context.deadline = Instant::now() + LIMIT;
    let (status, members) = tokio::join!(client.status(context), client.members(context));
    let mut route = pursuer.route();
    for member in members.iter().flatten().filter(|member| takes_part(member)) {
        if let Ok(endpoint) = member.raft_address.parse() {
            route.learn(&endpoint);
        }
    }
    if let Some(leader) = status.ok().and_then(leader_of) {
        route.hinted(&leader);
    }
}

fn takes_part(member: &MemberStatus) -> bool {
    member.configured != "none"
}

fn leader_of(status: NodeStatus) -> Option<Endpoint> {
    status.leader?.address.parse().ok()
}
