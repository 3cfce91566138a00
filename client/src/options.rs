//! Where the cluster is and how patient to be with it.

use std::time::Duration;

use raft::rpc::wire::Endpoint;

/// Where a node of this machine listens if nobody said otherwise.
pub const DEFAULT_ENDPOINT: &str = "127.0.0.1:6004";
/// How long a request is followed.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a silent node is waited for before another one is asked, too.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(1);
/// How long a connection may take to open, its hellos included.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How a [`Client`](crate::Client) finds and treats its cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes to begin with, in the order in which they are tried; at least one. The rest is learned from them.
    pub endpoints: Vec<Endpoint>,
    /// Every request ends by then, from its first attempt.
    pub timeout: Duration,
    /// A node that is silent for this long is not waited for alone.
    pub patience: Duration,
    /// A connection that is not open by then is given up.
    pub connect_timeout: Duration,
    /// The cluster's id; zero takes the first cluster that answers, and keeps to it.
    pub cluster: u128,
    /// Whether a node that does not lead may pass requests on. Otherwise the client goes to the leader itself, which it
    /// must be able to reach then.
    pub forward: bool,
    /// Whether to ask nodes for the addresses of the others. Not worth it for a single request.
    pub discover: bool,
    /// How long the client's session lives unused when the client is gone, a day at most; zero leaves it to the cluster, an
    /// hour. While there is a client, it renews its session.
    pub session_ttl: Duration,
}

impl Options {
    /// The defaults, for a cluster at these endpoints.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            timeout: DEFAULT_TIMEOUT,
            patience: DEFAULT_PATIENCE,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            cluster: 0,
            forward: true,
            discover: true,
            session_ttl: Duration::ZERO,
        }
    }
}
