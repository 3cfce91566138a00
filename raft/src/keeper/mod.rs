//! Keeps the log small: decides when this node takes a snapshot of its state machine, and takes it.
//!
//! ```text
//!  due? (schedule, the machine's wish, an operator) ─▶ a turn of the leader's ─▶ begin_snapshot, on a connection of its own
//!    ─▶ the table of sessions, from digest_commits ─▶ read_snapshot … into a file ─▶ synced, renamed ─▶ the core compacts the log
//! ```
//!
//! The machine pins its state at some applied index A; entries go on meanwhile. The table of sessions is copied after that, so it is
//! of an index at or beyond A: whoever starts from the snapshot folds nothing twice, because the copy says how far it went.

mod schedule;
mod taking;
mod turn;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::backoff::Backoff;
use crate::consensus::NodeId;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::peers::Routes;
use crate::pipeline::digest_commits::{CommitsEvent, CommitsStatus};
use crate::pipeline::digest_entries::EntriesEvent;
use crate::rpc::peer::TurnRequest;
use crate::rpc::wire::Endpoint;
use crate::snapshot::{Description, Store};

pub use self::schedule::Schedule;
use self::taking::TakeError;

/// Between two looks at the schedule.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A turn that is not renewed ends after this long.
pub const TURN_LASTS: Duration = Duration::from_secs(3);
/// A turn is renewed this often.
const RENEW_EVERY: Duration = Duration::from_millis(700);
/// Operators that wait for a snapshot.
pub const MAX_ORDERS: usize = 16;
/// Pauses after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(2);

/// An operator's order, answered once a snapshot is durable. The error is for people.
pub type Order = oneshot::Sender<Result<Description, String>>;

/// What the task needs.
#[derive(Debug)]
pub struct Keeper {
    /// The files.
    pub store: Store,
    /// Who we are.
    pub node: Arc<Node>,
    /// The first stage.
    pub inbox: mpsc::Sender<EntriesEvent>,
    /// The second stage.
    pub commits: mpsc::Sender<CommitsEvent>,
    /// Its state.
    pub status: watch::Receiver<CommitsStatus>,
    /// The state machine.
    pub machine: Endpoint,
    /// Ways to the peers.
    pub routes: watch::Receiver<Routes>,
    /// Who leads.
    pub leader: watch::Receiver<Option<NodeId>>,
    /// Whether the state machine wants a snapshot to be taken.
    pub wish: watch::Receiver<bool>,
    /// Operators' orders.
    pub orders: mpsc::Receiver<Order>,
    /// When one is due.
    pub schedule: Schedule,
    /// Most bytes per second that are read from the machine; none = no limit.
    pub bytes_per_s: Option<u64>,
    /// What is counted; tells how the log has grown.
    pub metrics: Arc<Metrics>,
}

impl Keeper {
    /// Runs until the process ends.
    pub async fn run(mut self) {
        self.node.known_cluster().await;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut not_before = Instant::now();
        let mut orders = Vec::new();
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                received = self.orders.recv_many(&mut orders, MAX_ORDERS), if orders.is_empty() => {
                    if received == 0 {
                        return;
                    }
                }
            }
            orders.retain(|order: &Order| !order.is_closed());
            let wanted = !orders.is_empty() || (Instant::now() >= not_before && self.is_due());
            if !wanted || !self.ask_for_turn(TurnRequest::Wanted).await {
                continue;
            }
            let taken = self.take_in_turn().await;
            self.ask_for_turn(TurnRequest::Over).await;
            match &taken {
                Ok(_) => backoff.reset(),
                Err(error) => {
                    self.metrics.snapshots_failed.add();
                    tracing::warn!(%error, "cannot take a snapshot; trying again later");
                    not_before = Instant::now() + backoff.next();
                }
            }
            let answer = taken.map_err(|error| error.to_string());
            orders.drain(..).for_each(|order| drop(order.send(answer.clone())));
        }
    }

    fn is_due(&self) -> bool {
        let newest = self.store.newest();
        let status = self.status.borrow();
        let taken = newest.as_ref().map_or(0, |snapshot| snapshot.meta.last.index.0);
        if !status.is_attached() || status.applied.0 <= taken {
            return false;
        }
        let leads = *self.leader.borrow() == Some(self.node.id);
        let bytes = newest.map_or(0, |snapshot| snapshot.bytes);
        let grown = self.metrics.log_grown_bytes.load(Ordering::Relaxed);
        *self.wish.borrow() || self.schedule.is_due(grown, bytes, leads)
    }

    /// Takes a snapshot and renews the turn meanwhile. A turn that is lost does not stop it: two at a time are slow, not wrong.
    async fn take_in_turn(&self) -> Result<Description, TakeError> {
        let renewing = async {
            loop {
                sleep(RENEW_EVERY).await;
                self.ask_for_turn(TurnRequest::Held).await;
            }
        };
        tokio::select! {
            taken = self.take() => taken,
            () = renewing => unreachable!("it goes on for ever"),
        }
    }
}
