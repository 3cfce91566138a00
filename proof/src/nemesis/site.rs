//! What faults are done to.

use raft::rpc::wire::Endpoint;

use super::Counts;
use super::fault::{Fault, Kind};

/// A cluster and its faults. Who has made the cluster ends it; a fault that is being done when the site is dropped may last until then.
pub trait Site: Send {
    /// How many nodes there are.
    fn nodes(&self) -> usize;
    /// Where clients may try. Of some of them nobody may be there.
    fn endpoints(&self) -> Vec<Endpoint>;
    /// Which node answers there, if one does.
    fn node_at(&self, endpoint: &Endpoint) -> Option<usize>;
    /// Why a kind of fault is not possible here.
    fn obstacle(&self, kind: Kind) -> Option<String>;
    /// The fault as it can be done here, and so is told of: some nodes are spared some kinds.
    fn aim(&self, fault: Fault) -> Fault;
    /// Does it. No process may have ended before that nobody ended.
    fn begin(&mut self, fault: &Fault) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// Undoes whatever was done, and starts what does not run.
    fn heal(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// Starts what has ended since.
    fn mend(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// When all is whole again: whether the fault was more than an order that was given, by what it left to be seen.
    fn review(&mut self) -> impl Future<Output = anyhow::Result<bool>> + Send;
    /// What was done and what processes ended with so far, counted; and what of it must not be.
    fn autopsy(&mut self) -> impl Future<Output = (Counts, Vec<String>)> + Send;
}
