//! What a run is like: its size, settings and length, drawn from the seed. Limits are small, so that all of them are met.

use raft::consensus::{Config, NodeId};
use raft::roster::Policy;
use rand::RngExt;

use super::agenda::{MS, SECOND, Time};
use super::random::{pick, stream};

/// A violation that is planted in the world, never in the product: to show that the run would see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Batches count as durable when they are handed to the log.
    AcknowledgeBeforeSync,
    /// A node forgets at each start whom it voted for.
    ForgetVotes,
    /// Reads are answered by whatever a node's machine holds.
    ReadWithoutAsking,
    /// A retry gets a new number.
    RetryUnderNewNumber,
}

/// Settings of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long things go wrong.
    pub chaos: Time,
    /// Machines.
    pub slots: usize,
    /// Clients.
    pub clients: usize,
    /// Longest pause of a client between two operations.
    pub think: Time,
    /// Length of a tick.
    pub tick: Time,
    /// How long callers wait at a node, in ticks.
    pub patience_ticks: u64,
    /// A turn to take a snapshot, in ticks.
    pub turn_ticks: u64,
    /// The core's.
    pub core: Config,
    /// The autopilot's.
    pub policy: Policy,
    /// Length of a segment of the log.
    pub segment_bytes: u64,
    /// Entries that stay in the log before a snapshot.
    pub keep_trailing_bytes: u64,
    /// Snapshots that are kept.
    pub keep_snapshots: usize,
    /// The log is read in pieces of at most so many bytes.
    pub fetch_bytes: usize,
    /// Growth of the log that calls for one.
    pub snapshot_floor_bytes: u64,
    /// A snapshot travels in pieces of so many bytes, or some times that.
    pub piece_bytes: usize,
    /// Mean time between two misfortunes.
    pub fault_every: Time,
    /// What is planted.
    pub plant: Option<Plant>,
}

impl Plan {
    /// The plan of a seed, for so many simulated seconds of misfortune.
    pub fn of(seed: u64, chaos_seconds: u64) -> Self {
        let mut rng = stream(seed, "plan");
        let rng = &mut rng;
        let tick = 50 * MS;
        let election_ticks_min = 10;
        Self {
            chaos: chaos_seconds * SECOND,
            slots: pick([3, 3, 4, 5, 5, 6], rng),
            clients: rng.random_range(8..=12),
            think: pick([150 * MS, 200 * MS], rng),
            tick,
            patience_ticks: 60,
            turn_ticks: 60,
            core: Config {
                id: NodeId(1),
                seed: 0,
                heartbeat_ticks: 2,
                election_ticks_min,
                election_ticks_max: 2 * election_ticks_min,
                link_lost_ticks_max: 2,
                max_append_bytes: pick([300, 4_000, 1 << 20], rng),
                window_messages: pick([1, 3, 16], rng),
                window_bytes: pick([600, 1 << 20], rng),
                log_cache_bytes: pick([0, 2_000, 1 << 20], rng),
                max_uncommitted_bytes: 1 << 20,
            },
            policy: Policy {
                target_voters: pick([3, 5], rng),
                max_learners: 2,
                min_voters: 3,
                promote_after_ticks: 20,
                dead_after_ticks: pick([120, 300], rng),
                wish_ticks: 40,
                settle_ticks: 6,
                silent_ticks: election_ticks_min,
            },
            segment_bytes: pick([8 << 10, 32 << 10, 128 << 10], rng),
            keep_trailing_bytes: pick([0, 2_000, 20_000], rng),
            keep_snapshots: rng.random_range(1..=2),
            snapshot_floor_bytes: pick([10_000, 40_000, 150_000], rng),
            fetch_bytes: pick([1_000, 10_000, 100_000], rng),
            piece_bytes: pick([200, 2_000, 20_000], rng),
            fault_every: pick([3 * SECOND, 5 * SECOND, 7 * SECOND], rng),
            plant: None,
        }
    }
}
