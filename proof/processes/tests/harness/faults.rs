//! What goes wrong, drawn from a seed.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::ChaCha12Rng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{RngExt, SeedableRng};

use turmoil::Sim;

use super::cluster::{Cluster, LATENCY_MAX};
use super::process::{Program, host};

/// Pause between the beginnings of two faults, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 1_000..5_000;
/// How long one lasts, in milliseconds.
const LENGTH_MS: std::ops::Range<u64> = 500..9_000;
/// Latency of a network that is slow.
const SLOW: Duration = Duration::from_millis(150);
/// Share of messages with which a link of a bad network breaks, until its next message. What was under way on it is lost, and
/// with it each connection that had something there.
const BREAKS: f64 = 0.002;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A process is killed, and started again when the fault ends.
    Crash(Program),
    /// All three of a node.
    CrashNode,
    /// All of all nodes.
    CrashAll,
    /// Nobody reaches this node.
    Isolate,
    /// The node is heard by nobody, and hears all.
    Mute,
    /// The node hears nobody, and is heard by all.
    Deaf,
    /// Two nodes do not reach each other; all others do.
    CutPair,
    /// What the node and the others send arrives all at once, at the end.
    Hold,
    /// What raft and its machine say arrives at the end.
    HoldMachine,
    /// Raft and its member daemon do not reach each other.
    CutMember,
    /// Clients and this raft do not reach each other.
    CutClients,
    /// What clients and this raft say arrives at the end, when nobody waits for it any more.
    HoldClients,
    /// Everything takes longer.
    Slow,
    /// Links between nodes break.
    Loss,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Crash(Program::Raft),
        Self::Crash(Program::Machine),
        Self::Crash(Program::Member),
        Self::CrashNode,
        Self::CrashAll,
        Self::Isolate,
        Self::Mute,
        Self::Deaf,
        Self::CutPair,
        Self::Hold,
        Self::HoldMachine,
        Self::CutMember,
        Self::CutClients,
        Self::HoldClients,
        Self::Slow,
        Self::Loss,
    ];
}

/// A fault that has begun.
#[derive(Clone, Copy, Debug)]
struct Fault {
    kind: Kind,
    node: usize,
    other: usize,
    until: Duration,
}

/// Begins faults and ends them.
pub struct Faults {
    random: ChaCha12Rng,
    next: Duration,
    begun: Vec<Fault>,
    /// How many of each kind there were.
    pub counts: BTreeMap<Kind, usize>,
}

impl Faults {
    /// Those of a seed.
    pub fn new(seed: u64) -> Self {
        let random = ChaCha12Rng::seed_from_u64(seed);
        Self { random, next: Duration::ZERO, begun: Vec::new(), counts: BTreeMap::new() }
    }

    /// To be called each step. Two faults at a time at most, on different nodes.
    pub fn step(&mut self, cluster: &mut Cluster) {
        let now = cluster.sim.elapsed();
        let (over, on): (Vec<Fault>, Vec<Fault>) =
            self.begun.iter().partition(|fault| fault.until <= now);
        self.begun = on;
        for fault in over {
            end(cluster, fault);
        }
        if now >= self.next {
            self.next = now + Duration::from_millis(self.random.random_range(PAUSE_MS));
            self.begin(cluster);
        }
    }

    /// Ends all that goes on, and begins none.
    pub fn end_all(&mut self, cluster: &mut Cluster) {
        for fault in std::mem::take(&mut self.begun) {
            end(cluster, fault);
        }
    }

    fn begin(&mut self, cluster: &mut Cluster) {
        let touched = |node: &usize| {
            self.begun.iter().any(|fault| fault.node == *node || fault.other == *node)
        };
        let free: Vec<usize> = (1..=cluster.nodes.len()).filter(|node| !touched(node)).collect();
        if self.begun.len() >= 2 || free.len() < 2 {
            return;
        }
        let kind = *Kind::ALL.choose(&mut self.random).expect("there are kinds");
        let is_of_all = matches!(kind, Kind::CrashAll | Kind::Slow | Kind::Loss);
        if is_of_all && !self.begun.is_empty() {
            return;
        }
        let two = free.iter().copied().sample(&mut self.random, 2);
        let length = Duration::from_millis(self.random.random_range(LENGTH_MS));
        let fault =
            Fault { kind, node: two[0], other: two[1], until: cluster.sim.elapsed() + length };
        *self.counts.entry(kind).or_default() += 1;
        begin(cluster, fault);
        self.begun.push(fault);
    }
}

fn begin(cluster: &mut Cluster, fault: Fault) {
    let Fault { kind, node, other, .. } = fault;
    match kind {
        Kind::Crash(program) => cluster.crash(node, program),
        Kind::CrashNode => cluster.crash_node(node),
        Kind::CrashAll => (1..=cluster.nodes.len()).for_each(|node| cluster.crash_node(node)),
        Kind::Isolate => cluster.between(node, |sim, ours, theirs| sim.partition(ours, theirs)),
        Kind::Mute => cluster.between(node, |sim, ours, theirs| sim.partition_oneway(ours, theirs)),
        Kind::Deaf => cluster.between(node, |sim, ours, theirs| sim.partition_oneway(theirs, ours)),
        Kind::CutPair => pairs(node, other).for_each(|(a, b)| cluster.sim.partition(a, b)),
        Kind::Hold => cluster.between(node, |sim, ours, theirs| sim.hold(ours, theirs)),
        Kind::HoldMachine => cluster.sim.hold(raft(node), host(node, Program::Machine)),
        Kind::CutMember => cluster.sim.partition(raft(node), host(node, Program::Member)),
        Kind::CutClients => clients(cluster, |sim, client| sim.partition(raft(node), client)),
        Kind::HoldClients => clients(cluster, |sim, client| sim.hold(raft(node), client)),
        Kind::Slow => cluster.sim.set_max_message_latency(SLOW),
        Kind::Loss => {
            links(cluster, |sim, ours, theirs| set_loss(sim, ours, theirs, BREAKS));
        }
    }
}

fn end(cluster: &mut Cluster, fault: Fault) {
    let Fault { kind, node, other, .. } = fault;
    match kind {
        Kind::Crash(program) => cluster.start(node, program),
        Kind::CrashNode => cluster.start_node(node),
        Kind::CrashAll => (1..=cluster.nodes.len()).for_each(|node| cluster.start_node(node)),
        Kind::Isolate | Kind::Mute | Kind::Deaf => {
            cluster.between(node, |sim, ours, theirs| sim.repair(ours, theirs));
        }
        Kind::CutPair => pairs(node, other).for_each(|(a, b)| cluster.sim.repair(a, b)),
        Kind::Hold => cluster.between(node, |sim, ours, theirs| sim.release(ours, theirs)),
        Kind::HoldMachine => cluster.sim.release(raft(node), host(node, Program::Machine)),
        Kind::CutMember => cluster.sim.repair(raft(node), host(node, Program::Member)),
        Kind::CutClients => clients(cluster, |sim, client| sim.repair(raft(node), client)),
        Kind::HoldClients => clients(cluster, |sim, client| sim.release(raft(node), client)),
        Kind::Slow => cluster.sim.set_max_message_latency(LATENCY_MAX),
        Kind::Loss => links(cluster, |sim, ours, theirs| set_loss(sim, ours, theirs, 0.0)),
    }
}

fn raft(node: usize) -> String {
    host(node, Program::Raft)
}

/// Does something with every link between nodes. What one node's processes say to each other comes through the kernel, which loses
/// nothing.
fn links(cluster: &mut Cluster, act: impl Fn(&mut Sim<'static>, String, String)) {
    for node in 1..=cluster.nodes.len() {
        cluster.between(node, &act);
    }
}

fn set_loss(sim: &mut Sim<'static>, ours: String, theirs: String, rate: f64) {
    sim.set_link_fail_rate(ours, theirs, rate);
}

/// Does something for every client.
fn clients(cluster: &Cluster, act: impl Fn(&Sim<'static>, &str)) {
    cluster.clients.iter().for_each(|client| act(&cluster.sim, client));
}

/// All pairs of hosts of two nodes.
fn pairs(a: usize, b: usize) -> impl Iterator<Item = (String, String)> {
    let hosts = |node| Program::ALL.map(|program| host(node, program));
    hosts(a).into_iter().flat_map(move |ours| hosts(b).map(move |theirs| (ours.clone(), theirs)))
}
