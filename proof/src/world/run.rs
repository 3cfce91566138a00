//! One run of a seed, from the founding of a cluster to the verdict.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use raft::consensus::LogId;
use rand::RngExt;

use super::World;
use super::agenda::{Agenda, MS, SECOND, Time};
use super::atlas::Atlas;
use super::clients::Clients;
use super::coverage::Coverage;
use super::disk::SimulatedDisk;
use super::invariants::Invariants;
use super::machine::MachineDisk;
use super::nemesis::Nemesis;
use super::network::Network;
use super::plan::Plan;
use super::random::stream;
use super::replacing::node_id;
use super::shadow::Shadow;
use super::slot::Slot;
use super::trace::Fnv;

/// What came of a run that held.
#[derive(Clone, Debug)]
pub struct Report {
    /// Digest of all that happened.
    pub trace: u64,
    /// Simulated time, and how much of it things went wrong.
    pub simulated: Time,
    /// Operations that were answered.
    pub answered: u64,
    /// Operations of which nobody knows what came of them.
    pub unknown: usize,
    /// Entries that were committed.
    pub committed: u64,
    /// Terms that had a leader.
    pub terms: usize,
    /// What happened.
    pub coverage: Coverage,
}

impl Report {
    /// Whether it may be counted: at least twenty operations a second, and a misfortune each ten seconds.
    pub fn counts(&self) -> bool {
        let seconds = self.simulated / SECOND;
        self.answered >= 20 * seconds && self.coverage.faults_total() >= seconds / 10
    }
}

/// Why a run did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was found.
    pub what: String,
}

/// Runs a seed. With `prints`, everything that happens is printed.
///
/// # Errors
/// An invariant did not hold, or the product stopped itself.
pub fn run(seed: u64, plan: &Plan, prints: bool) -> Result<Report, Failure> {
    catch_unwind(AssertUnwindSafe(|| World::new(seed, plan.clone(), prints).run())).map_err(
        |panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Failure { what: text.unwrap_or_else(|| "a panic without words".to_owned()) }
        },
    )
}

impl World {
    fn new(seed: u64, plan: Plan, prints: bool) -> Self {
        let mut rng = stream(seed, "schedule");
        let slots: Vec<Slot> =
            (0..plan.slots).map(|slot| new_slot(seed, slot, &plan, &mut rng)).collect();
        let places: BTreeMap<_, _> = slots.iter().map(|slot| slot.node).zip(0..).collect();
        Self {
            seed,
            now: 0,
            agenda: Agenda::default(),
            slots,
            places,
            lost: BTreeMap::new(),
            network: Network::new(stream(seed, "network")),
            clients: Clients::new(plan.clients, seed),
            nemesis: Nemesis::new(seed),
            atlas: Atlas::default(),
            invariants: Invariants::default(),
            coverage: Coverage::default(),
            rng,
            trace: Fnv::default(),
            epoch: Instant::now(),
            prints,
            plan,
        }
    }

    fn run(mut self) -> Report {
        self.begin();
        self.run_for(self.plan.chaos);
        self.heal();
        self.demand_recovery();
        Report {
            trace: self.trace.finish(),
            simulated: self.now,
            answered: self.clients.answered,
            unknown: self.clients.history.tally().unknown,
            committed: self.invariants.committed.last().0,
            terms: self.invariants.terms_led(),
            coverage: self.coverage,
        }
    }
}

fn new_slot(seed: u64, slot: usize, plan: &Plan, rng: &mut super::Rng) -> Slot {
    // Clocks drift by up to three in a hundred.
    let drift = rng.random_range(970..=1_030);
    Slot {
        node: node_id(seed, slot, 0),
        generation: 0,
        boot: 0,
        cluster: None,
        disk: SimulatedDisk::new(stream(seed, &format!("disk {slot} 0"))),
        machine_disk: MachineDisk::new(
            rng.random_bool(0.6),
            stream(seed, &format!("machine {slot} 0")),
        ),
        shadow: Shadow::default(),
        perhaps: Vec::new(),
        snapshot: LogId::default(),
        raft: None,
        machine: None,
        member: None,
        incarnation: 0,
        starts: [0; 3],
        paused_until: [0; 3],
        tick: plan.tick * drift / 1_000,
        wall_offset_ms: 0,
        sync: 2 * MS,
        hangs_until: 0,
        restore_ends: 0,
        start_ends: 0,
        is_over: false,
    }
}
