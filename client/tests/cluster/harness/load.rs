//! Load that keeps account: clients add to one shared counter and write serial numbers behind each other, each to a list of its
//! own, in turn.
//!
//! A command that was lost or applied twice shows: afterwards the counter equals the acknowledged additions, no two of which had
//! the same result, and every list holds each number once, in order.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::caller::Caller;
use super::cluster::Cluster;
use super::http::HttpCaller;
use super::wait::eventually;

/// Clients at once, each with one command under way.
pub(crate) const CLIENTS: usize = 16;

/// A client with one command under way at a time, which is repeated until it is applied.
pub(crate) trait Adds: Send + 'static {
    /// Opens a session, so that retries are safe.
    fn open_session(&mut self) -> impl Future<Output = ()> + Send;
    /// Adds one; the new number, unless it is no longer kept.
    fn increment(&mut self, key: &str) -> impl Future<Output = Option<i64>> + Send;
    /// Writes behind a value.
    fn append(&mut self, key: &str, text: &str) -> impl Future<Output = ()> + Send;
    /// Why attempts failed that were repeated, oldest first.
    fn failures(self) -> Vec<String>;
}

impl Adds for Caller {
    async fn open_session(&mut self) {
        Caller::open_session(self).await;
    }

    async fn increment(&mut self, key: &str) -> Option<i64> {
        Caller::increment(self, key).await
    }

    async fn append(&mut self, key: &str, text: &str) {
        Caller::append(self, key, text).await;
    }

    fn failures(self) -> Vec<String> {
        self.failures
    }
}

/// Load under way.
pub(crate) struct Load {
    name: &'static str,
    stop: watch::Sender<bool>,
    clients: JoinSet<Account>,
    acks: Arc<Acks>,
}

/// What one client saw.
struct Account {
    client: usize,
    /// Results of its additions to the shared counter; none where the result was no longer kept.
    counted: Vec<Option<i64>>,
    /// Numbers on its list are below this.
    serials: usize,
    failures: Vec<String>,
}

#[derive(Default)]
struct Acks(Mutex<AckState>);

#[derive(Default)]
struct AckState {
    acknowledged: u64,
    awaited: Option<(Instant, oneshot::Sender<Instant>)>,
}

impl Load {
    /// Starts the clients, spread over all nodes.
    pub(crate) fn start(cluster: &Cluster, name: &'static str) -> Self {
        Self::start_with(name, |client| Caller::new(cluster.endpoints(), client))
    }

    /// The same by HTTP.
    pub(crate) fn start_http(cluster: &Cluster, name: &'static str) -> Self {
        let addresses: Vec<_> = cluster.numbers().map(|node| cluster.http(node)).collect();
        Self::start_with(name, |client| HttpCaller::new(addresses.clone(), client))
    }

    fn start_with<C: Adds>(name: &'static str, make: impl Fn(usize) -> C) -> Self {
        let (stop, stopping) = watch::channel(false);
        let acks = Arc::<Acks>::default();
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(run(name, client, make(client), Arc::clone(&acks), stopping.clone()));
        }
        Self { name, stop, clients, acks }
    }

    /// One more client, of another kind.
    pub(crate) fn add(&mut self, client: usize, adds: impl Adds) {
        let stopping = self.stop.subscribe();
        self.clients.spawn(run(self.name, client, adds, Arc::clone(&self.acks), stopping));
    }

    /// Waits for so many more acknowledged commands.
    pub(crate) async fn proceeds(&self, commands: u64) {
        let wanted = self.acks.total() + commands;
        let enough = async || (self.acks.total() >= wanted).then_some(());
        eventually("progress of the load", enough).await;
    }

    /// When the first command that is begun from now on is acknowledged.
    pub(crate) fn next_acknowledgement(&self) -> oneshot::Receiver<Instant> {
        let (reply, acknowledged) = oneshot::channel();
        self.acks.0.lock().expect("no panic inside").awaited = Some((Instant::now(), reply));
        acknowledged
    }

    /// Lets every client finish its command.
    pub(crate) async fn stop(self) -> Ledger {
        self.stop.send_replace(true);
        Ledger { name: self.name, accounts: self.clients.join_all().await }
    }
}

impl Acks {
    fn total(&self) -> u64 {
        self.0.lock().expect("no panic inside").acknowledged
    }

    fn add(&self, begun: Instant) {
        let mut state = self.0.lock().expect("no panic inside");
        state.acknowledged += 1;
        if let Some((_, reply)) = state.awaited.take_if(|(after, _)| begun >= *after) {
            // Whoever asked may have gone.
            let _unheard = reply.send(Instant::now());
        }
    }
}

async fn run(
    name: &'static str,
    client: usize,
    mut caller: impl Adds,
    acks: Arc<Acks>,
    stopping: watch::Receiver<bool>,
) -> Account {
    caller.open_session().await;
    let mut account = Account { client, counted: Vec::new(), serials: 0, failures: Vec::new() };
    while !*stopping.borrow() {
        let begun = Instant::now();
        account.counted.push(caller.increment(&counter(name)).await);
        acks.add(begun);
        let begun = Instant::now();
        caller.append(&list(name, client), &item(account.serials)).await;
        account.serials += 1;
        acks.add(begun);
    }
    account.failures = caller.failures();
    account
}

/// All that was acknowledged.
pub(crate) struct Ledger {
    name: &'static str,
    accounts: Vec<Account>,
}

impl Ledger {
    /// Why attempts failed that were then repeated.
    pub(crate) fn failures(&self) -> Vec<&str> {
        self.accounts.iter().flat_map(|account| &account.failures).map(String::as_str).collect()
    }

    /// Acknowledged commands.
    pub(crate) fn acknowledged(&self) -> usize {
        let of = |account: &Account| account.counted.len() + account.serials;
        self.accounts.iter().map(of).sum()
    }

    /// Compares with what the cluster holds.
    pub(crate) async fn check(&self, cluster: &Cluster) {
        assert!(self.acknowledged() > 0, "there was no load");
        let counted: Vec<Option<i64>> =
            self.accounts.iter().flat_map(|account| account.counted.iter().copied()).collect();
        let results: Vec<i64> = counted.iter().flatten().copied().collect();
        let distinct: BTreeSet<i64> = results.iter().copied().collect();
        assert_eq!(distinct.len(), results.len(), "two additions had the same result");
        for account in &self.accounts {
            assert!(account.counted.iter().flatten().is_sorted(), "a result went back");
        }
        let total = Caller::new(cluster.endpoints(), 0).get(&counter(self.name)).await;
        assert_eq!(total, Some(counted.len().to_string()), "counter against acknowledgements");
        self.check_serials(cluster).await;
    }

    async fn check_serials(&self, cluster: &Cluster) {
        for account in &self.accounts {
            let key = list(self.name, account.client);
            let wanted: String = (0..account.serials).map(item).collect();
            let found = Caller::new(cluster.endpoints(), account.client).get(&key).await;
            assert_eq!(found.unwrap_or_default(), wanted, "{key}");
        }
    }
}

/// The shared counter.
pub(crate) fn counter(load: &str) -> String {
    format!("{load}/counter")
}

fn list(load: &str, client: usize) -> String {
    format!("{load}/{client}")
}

fn item(number: usize) -> String {
    format!("{number};")
}
