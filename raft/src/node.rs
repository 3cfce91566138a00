//! Who this process is, as its tasks need to know it. The cluster is learnt at most once while the process runs.

use std::sync::Mutex;

use tokio::sync::watch;

use crate::consensus::NodeId;
use crate::identity::{DataDir, IdentityError};
use crate::rpc::wire::{Hello, Service};

/// Shared by all tasks; the only one that writes the identity is whoever holds the lock inside.
#[derive(Debug)]
pub struct Node {
    /// This node.
    pub id: NodeId,
    /// This start of its raft.
    pub boot: u64,
    /// For people.
    pub name: String,
    /// Where others reach this process.
    pub raft_address: String,
    /// Where anybody reaches it by HTTP.
    pub http_address: String,
    data_dir: Mutex<DataDir>,
    cluster: watch::Sender<Option<u128>>,
}

impl Node {
    /// The node of an opened data directory.
    pub fn new(
        data_dir: DataDir,
        name: String,
        raft_address: String,
        http_address: String,
    ) -> Self {
        let identity = data_dir.identity();
        let cluster = watch::Sender::new(identity.cluster);
        Self {
            id: identity.node,
            boot: identity.boot,
            name,
            raft_address,
            http_address,
            data_dir: Mutex::new(data_dir),
            cluster,
        }
    }

    /// The cluster, if known by now.
    pub fn cluster(&self) -> Option<u128> {
        *self.cluster.borrow()
    }

    /// Waits until the cluster is known.
    pub async fn known_cluster(&self) -> u128 {
        let mut cluster = self.cluster.subscribe();
        let known = cluster.wait_for(Option::is_some).await;
        known.expect("the sender lives in self").expect("waited for")
    }

    /// What this process says of itself at the start of a connection.
    pub fn hello(&self, service: Service) -> Hello {
        Hello::new(service, self.cluster().unwrap_or(0), self.id.0, self.boot)
    }

    /// A leader has taken this node into its cluster. Durable when it returns; blocks for a sync of the disk, once in
    /// the life of a data directory.
    ///
    /// # Errors
    /// The node belongs to another cluster, or its directory cannot be written.
    pub fn adopt_cluster(&self, cluster: u128) -> Result<(), IdentityError> {
        if self.cluster() == Some(cluster) {
            return Ok(());
        }
        self.with_data_dir(|data_dir| data_dir.adopt_cluster(cluster))?;
        tracing::info!(cluster = format_args!("{cluster:032x}"), "taken into a cluster");
        self.cluster.send_replace(Some(cluster));
        Ok(())
    }

    /// Makes a new cluster; see [`DataDir::found_cluster`].
    ///
    /// # Errors
    /// The node belongs to one already, or its directory cannot be written.
    pub fn found_cluster(&self) -> Result<u128, IdentityError> {
        let cluster = self.with_data_dir(DataDir::found_cluster)?;
        tracing::info!(cluster = format_args!("{cluster:032x}"), "founded a cluster");
        self.cluster.send_replace(Some(cluster));
        Ok(cluster)
    }

    /// The first configuration is in the log; see [`DataDir::finish_founding`].
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn finish_founding(&self) -> Result<(), IdentityError> {
        self.with_data_dir(DataDir::finish_founding)
    }

    /// The node is out of its cluster; see [`DataDir::note_left`].
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn note_left(&self) -> Result<(), IdentityError> {
        self.with_data_dir(|data_dir| data_dir.note_left())
    }

    fn with_data_dir<T>(&self, act: impl FnOnce(&mut DataDir) -> T) -> T {
        act(&mut self.data_dir.lock().expect("no holder of this lock panics"))
    }
}
