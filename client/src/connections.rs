//! Connections, one for each endpoint, shared by all requests of a client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use raft::rpc::client::{ClientServiceClient, connect};
use raft::rpc::wire::Endpoint;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use crate::verdict::Failure;

/// A connection in the making, its outcome shared by all who wait for it.
type Slot = Arc<OnceCell<Result<ClientServiceClient, Failure>>>;

/// All connections of a client.
#[derive(Debug)]
pub(crate) struct Connections {
    slots: Mutex<BTreeMap<Endpoint, Slot>>,
    /// The cluster that this client belongs to; zero until the first node has named it.
    cluster: Mutex<u128>,
    /// Longest time to connect and to exchange hellos.
    limit: Duration,
}

/// A connection that a request runs over.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) client: ClientServiceClient,
    /// Whether this request is the one that opened it.
    pub(crate) fresh: bool,
    slot: Slot,
}

impl Connections {
    /// No connection yet. `cluster` pins the cluster's id; zero takes that of the first node.
    pub(crate) fn new(cluster: u128, limit: Duration) -> Self {
        Self { slots: Mutex::default(), cluster: Mutex::new(cluster), limit }
    }

    /// The pinned cluster; zero = none yet.
    pub(crate) fn cluster(&self) -> u128 {
        *lock(&self.cluster)
    }

    /// The connection to an endpoint, opened if there is none.
    ///
    /// # Errors
    /// Nothing was sent. The next call tries again.
    pub(crate) async fn get(
        &self,
        endpoint: &Endpoint,
        deadline: Instant,
    ) -> Result<Connection, Failure> {
        let slot = Arc::clone(lock(&self.slots).entry(endpoint.clone()).or_default());
        let mut fresh = false;
        let opening = slot.get_or_init(|| {
            fresh = true;
            self.open(endpoint)
        });
        let outcome = match timeout_at(deadline, opening).await {
            Ok(outcome) => outcome.clone(),
            Err(_elapsed) => Err(Failure::not_connected_in_time()),
        };
        match outcome {
            Ok(client) => Ok(Connection { client, fresh, slot }),
            Err(failure) => {
                self.forget(endpoint, &slot);
                Err(failure)
            }
        }
    }

    /// A request has found its connection broken: the next one opens another.
    pub(crate) fn broken(&self, endpoint: &Endpoint, connection: &Connection) {
        self.forget(endpoint, &connection.slot);
    }

    fn forget(&self, endpoint: &Endpoint, slot: &Slot) {
        let mut slots = lock(&self.slots);
        if slots.get(endpoint).is_some_and(|present| Arc::ptr_eq(present, slot)) {
            slots.remove(endpoint);
        }
    }

    async fn open(&self, endpoint: &Endpoint) -> Result<ClientServiceClient, Failure> {
        let ours = self.cluster();
        let opening = connect(endpoint, ours, self.limit);
        let Ok(outcome) = tokio::time::timeout(self.limit, opening).await else {
            return Err(Failure::not_connected_in_time());
        };
        let (client, theirs) = outcome.map_err(|error| Failure::not_connected(&error, ours))?;
        match self.pin(theirs.cluster) {
            pinned if theirs.cluster == 0 || theirs.cluster == pinned => Ok(client),
            pinned => Err(Failure::foreign(endpoint, pinned, theirs.cluster)),
        }
    }

    /// Keeps to the first cluster that is met, also when two nodes answer at the same time; returns which one it is.
    fn pin(&self, met: u128) -> u128 {
        let mut cluster = lock(&self.cluster);
        if *cluster == 0 {
            *cluster = met;
        }
        *cluster
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
