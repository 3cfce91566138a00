//! What this process counts of itself, for operators. Plain atomics, a few of them per request or batch and none per
//! entry; whatever can be asked of the stages is not kept here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::consensus::BatchNo;
use crate::pipeline::Tickets;
use crate::rpc::client::{Answer, Outcome, QueryError, SubmitError, Submitted};
use crate::wal::SyncCost;

/// Upper bounds of latencies, in microseconds: 100 µs to 10 s.
const LATENCY_BOUNDS_US: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];
/// Upper bounds of the number of entries in a batch.
const BATCH_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 4_096];

/// Only ever grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// So many more.
    pub fn add_many(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// So many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often values fell into which range.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One per bound, and one for what is beyond.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0) }
    }

    fn observe(&self, value: u64) {
        let range = self.bounds.partition_point(|bound| *bound < value);
        self.counts[range].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Each range's upper bound and count; none is the bound of the last.
    pub fn ranges(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        bounds.zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

/// What became of commands.
#[derive(Debug, Default)]
pub struct Submits {
    /// Applied, now or before.
    pub applied: Counter,
    /// The state machine's rules refused them.
    pub refused_by_machine: Counter,
    /// Surely not applied.
    pub refused: Counter,
    /// Committed, but not applied in time.
    pub committed: Counter,
    /// Nobody knows.
    pub unknown: Counter,
}

/// What became of reads.
#[derive(Debug, Default)]
pub struct Queries {
    /// Answered.
    pub answered: Counter,
    /// Not answered.
    pub failed: Counter,
}

/// All of it.
#[derive(Debug)]
pub struct Metrics {
    begun: Instant,
    /// How often another leader became known.
    pub leader_changes: Counter,
    /// How often this node asked for votes.
    pub elections: Counter,
    /// Impossible messages from peers.
    pub dropped_messages: Counter,
    /// Commands of the clients of this node.
    pub submits: Submits,
    /// Their times, in microseconds.
    pub submit_us: Histogram,
    /// Reads of the clients of this node.
    pub queries: Queries,
    /// Their times, in microseconds.
    pub query_us: Histogram,
    /// Times of a write to the log with its sync, in microseconds.
    pub sync_us: Histogram,
    /// Entries in such a write.
    pub sync_entries: Histogram,
    /// Bytes of the log on disk.
    pub log_bytes: AtomicU64,
    /// Links to peers that are up.
    pub peers_connected: Tickets,
    /// Connections by HTTP.
    pub http_connections: Tickets,
    /// Commands and reads that wait at this node, passed on or not.
    pub requests_waiting: Tickets,
    /// HTTP connections that found no room.
    pub http_turned_away: Counter,
    /// Bytes of entries in the log, as records on disk, after the newest snapshot that this node has found, taken or been sent.
    pub log_grown_bytes: AtomicU64,
    /// Snapshots of the state machine that became durable.
    pub snapshots_taken: Counter,
    /// Snapshots that could not be taken.
    pub snapshots_failed: Counter,
    /// Snapshots of the leader that replaced the log.
    pub snapshots_installed: Counter,
    /// Bytes of snapshots sent to peers.
    pub snapshot_bytes_sent: Counter,
    /// Bytes of snapshots that came from leaders.
    pub snapshot_bytes_received: Counter,
    handed: AtomicU64,
    synced: AtomicU64,
    /// Last time that the log was given something while idle, or finished something, in milliseconds since `begun`.
    log_moved_ms: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            leader_changes: Counter::default(),
            elections: Counter::default(),
            dropped_messages: Counter::default(),
            submits: Submits::default(),
            submit_us: Histogram::new(LATENCY_BOUNDS_US),
            queries: Queries::default(),
            query_us: Histogram::new(LATENCY_BOUNDS_US),
            sync_us: Histogram::new(LATENCY_BOUNDS_US),
            sync_entries: Histogram::new(BATCH_BOUNDS),
            log_bytes: AtomicU64::new(0),
            peers_connected: Tickets::default(),
            http_connections: Tickets::default(),
            requests_waiting: Tickets::default(),
            http_turned_away: Counter::default(),
            log_grown_bytes: AtomicU64::new(0),
            snapshots_taken: Counter::default(),
            snapshots_failed: Counter::default(),
            snapshots_installed: Counter::default(),
            snapshot_bytes_sent: Counter::default(),
            snapshot_bytes_received: Counter::default(),
            handed: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            log_moved_ms: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// A client's command has ended so, after this time.
    pub fn note_submit(&self, took: Duration, end: &Result<Submitted, SubmitError>) {
        self.submit_us.observe_time(took);
        let counter = match end {
            Ok(Submitted { outcome: Outcome::Done(_) | Outcome::AlreadyApplied, .. }) => {
                &self.submits.applied
            }
            Ok(Submitted { outcome: Outcome::Refused(_), .. }) => &self.submits.refused_by_machine,
            Err(SubmitError::CommittedNotApplied { .. }) => &self.submits.committed,
            Err(SubmitError::Unknown { .. }) => &self.submits.unknown,
            Err(
                SubmitError::NotLeader { .. }
                | SubmitError::Busy
                | SubmitError::TooLarge { .. }
                | SubmitError::SessionExpired { .. }
                | SubmitError::OutsideWindow { .. }
                | SubmitError::AlreadyAcknowledged { .. },
            ) => &self.submits.refused,
        };
        counter.add();
    }

    /// A client's read has ended so, after this time.
    pub fn note_query(&self, took: Duration, end: &Result<Answer, QueryError>) {
        self.query_us.observe_time(took);
        if end.is_ok() { self.queries.answered.add() } else { self.queries.failed.add() }
    }

    /// The log is given a batch. By one thread only.
    pub fn note_handed(&self, batch: BatchNo) {
        if self.synced.load(Ordering::Relaxed) == self.handed.load(Ordering::Relaxed) {
            self.log_moved_ms.store(self.now_ms(), Ordering::Relaxed);
        }
        self.handed.store(batch.0, Ordering::Relaxed);
    }

    /// The log has made everything up to a batch durable. By one thread only.
    pub fn note_sync(&self, batch: BatchNo, cost: SyncCost) {
        self.sync_us.observe_time(cost.took);
        self.sync_entries.observe(cost.entries as u64);
        self.log_grown_bytes.fetch_add(cost.entry_bytes, Ordering::Relaxed);
        self.log_bytes.store(cost.disk_bytes, Ordering::Relaxed);
        self.log_moved_ms.store(self.now_ms(), Ordering::Relaxed);
        self.synced.store(batch.0, Ordering::Relaxed);
    }

    /// For how long the log has been at work without finishing anything; zero when it has nothing to do.
    pub fn log_stalled(&self) -> Duration {
        if self.synced.load(Ordering::Relaxed) >= self.handed.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let moved_ms = self.log_moved_ms.load(Ordering::Relaxed);
        Duration::from_millis(self.now_ms().saturating_sub(moved_ms))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_at_a_bound_is_within_it() {
        let histogram = Histogram::new(&[1, 10]);
        for value in [0, 1, 2, 10, 11, u64::MAX / 2] {
            histogram.observe(value);
        }
        let ranges: Vec<_> = histogram.ranges().collect();
        assert_eq!(ranges, [(Some(1), 2), (Some(10), 2), (None, 2)]);
    }

    #[test]
    fn an_idle_log_does_not_stall_and_one_that_finishes_does_not_either() {
        let long_ago = Instant::now().checked_sub(Duration::from_hours(1)).unwrap();
        let metrics = Metrics { begun: long_ago, ..Metrics::default() };
        assert_eq!(metrics.log_stalled(), Duration::ZERO);
        metrics.note_handed(BatchNo(1));
        assert!(metrics.log_stalled() < Duration::from_mins(1), "batch 1 was handed on just now");
        metrics.note_handed(BatchNo(2));
        metrics.note_sync(BatchNo(1), SyncCost::default());
        assert!(metrics.log_stalled() < Duration::from_mins(1), "batch 1 was finished just now");
        metrics.note_sync(BatchNo(2), SyncCost::default());
        assert_eq!(metrics.log_stalled(), Duration::ZERO);
    }
}
