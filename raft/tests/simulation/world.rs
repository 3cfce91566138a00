//! One run: nodes, network, clients, and what goes wrong.

use std::collections::BTreeMap;

use raft::consensus::{
    Config, Envelope, Fetch, Index, Input, Message, NodeId, Output, PeerStatus, RoleName,
    SnapshotMeta,
};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::clients::Clients;
use crate::coverage::Coverage;
use crate::invariants::{Before, Invariants, Nodes, Step};
use crate::leaving::Departures;
use crate::nemesis::Climate;
use crate::network::{Network, STRAGGLER_TICKS, Weather};
use crate::support::node::Node;
use crate::support::{membership, print, quick_config};

/// Five to begin with, and joiners.
pub const NODES: u64 = 7;
const CHAOS_TICKS: u64 = 400;
/// A stream of a snapshot that was not answered has broken off after this many ticks.
const STREAM_TICKS: u64 = 40;

/// What happens to a node later.
#[derive(Clone, Debug)]
pub enum Later {
    Restart,
    Step(Input),
    ReadLog(Fetch),
    /// The stream of this offer has broken off, unless it was answered or another one begun.
    StreamEnds(NodeId, usize),
    /// All of a snapshot from the leader is durable.
    SnapshotArrived(SnapshotMeta),
    /// A snapshot of its own is durable; then the log may drop what stands up to there.
    SnapshotWritten(SnapshotMeta, Index),
}

/// One in so many runs has a node that leads again and again.
const SEEDS_PER_FAVOURITE: u64 = 4;

/// Everything there is in a run.
pub struct World {
    pub rng: Xoshiro256PlusPlus,
    pub now: u64,
    pub nodes: Nodes,
    pub network: Network,
    pub climate: Climate,
    pub clients: Clients,
    pub invariants: Invariants,
    pub agenda: BTreeMap<(u64, u64), (NodeId, u64, Later)>,
    pub appointments: u64,
    /// Disks that hang until this tick.
    pub stalled: BTreeMap<NodeId, u64>,
    /// Clocks that stand still until this tick, while everything else goes on.
    pub stopped: BTreeMap<NodeId, u64>,
    pub departures: Departures,
    /// Every snapshot that was offered: to whom, and what.
    pub offers: Vec<(NodeId, SnapshotMeta)>,
    /// The last offer of a leader to a peer, by its place among all.
    last_offers: BTreeMap<(NodeId, NodeId), usize>,
    /// Whether nothing of a snapshot arrives or breaks off by itself.
    pub holds_streams: bool,
    pub coverage: Coverage,
    /// Whether everything that happens is printed.
    trace: bool,
}

impl World {
    /// A run whose misfortunes are a function of the seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let weather = Weather {
            loss: pick([0.0, 0.02, 0.1, 0.25], &mut rng),
            duplication: pick([0.0, 0.05, 0.2], &mut rng),
            delay_ticks: pick([0, 1, 3, 8, 30], &mut rng),
            late_answers: pick([0.0, 0.0, 0.0, 0.1], &mut rng),
            stragglers: pick([0.0, 0.02, 0.1], &mut rng),
            straggler_ticks: STRAGGLER_TICKS,
        };
        let climate = Climate::random(&mut rng);
        let (weather, climate) = if seed % SEEDS_PER_FAVOURITE == 3 {
            let stragglers = pick([0.05, 0.1, 0.3, 0.5], &mut rng);
            let straggler_ticks = pick([60, STRAGGLER_TICKS], &mut rng);
            let weather = Weather { stragglers, straggler_ticks, ..weather };
            (weather, climate.with_favourite(&mut rng))
        } else {
            (weather, climate)
        };
        let configs: Vec<Config> =
            (1..=NODES).map(|id| random_config(NodeId(id), seed, &mut rng)).collect();
        Self::with(rng, weather, climate, configs)
    }

    /// A run without misfortunes, but for those that a test brings about.
    pub fn calm(seed: u64) -> Self {
        Self::calm_with(seed, |id| quick_config(id, seed))
    }

    /// The same with settings of one's own.
    pub fn calm_with(seed: u64, config: impl Fn(NodeId) -> Config) -> Self {
        let configs = (1..=NODES).map(|id| config(NodeId(id))).collect();
        Self::with(Xoshiro256PlusPlus::seed_from_u64(seed), Weather::CALM, Climate::calm(), configs)
    }

    fn with(
        rng: Xoshiro256PlusPlus,
        weather: Weather,
        climate: Climate,
        configs: Vec<Config>,
    ) -> Self {
        Self {
            rng,
            now: 0,
            nodes: configs.into_iter().map(|config| (config.id, Node::new(config))).collect(),
            network: Network::new(weather),
            climate,
            clients: Clients::default(),
            invariants: Invariants::default(),
            agenda: BTreeMap::new(),
            appointments: 0,
            stalled: BTreeMap::new(),
            stopped: BTreeMap::new(),
            departures: Departures::default(),
            offers: Vec::new(),
            last_offers: BTreeMap::new(),
            holds_streams: false,
            coverage: Coverage::default(),
            trace: std::env::var_os("TRACE").is_some(),
        }
    }

    /// All of them begin with a configuration in which they vote.
    pub fn bootstrap(&mut self, voters: &[u64]) {
        for &id in voters {
            self.step(NodeId(id), Input::Bootstrap(membership(voters, &[])));
        }
    }

    /// Chaos, then healing.
    ///
    /// # Panics
    /// When an invariant does not hold, or when healing does not bring progress.
    pub fn run(mut self) -> Coverage {
        let voters: &[u64] = if self.rng.random_bool(0.5) { &[1, 2, 3] } else { &[1, 2, 3, 4, 5] };
        self.bootstrap(voters);
        for _ in 0..CHAOS_TICKS {
            self.nemesis();
            self.tick();
            self.load();
        }
        self.heal();
        self.demand_progress();
        self.demand_stability();
        self.coverage.leaders = self.invariants.leaders_seen();
        self.coverage.committed = self.invariants.committed.last().0;
        self.coverage.reads = self.clients.answered_reads;
        self.coverage
    }

    pub fn tick(&mut self) {
        self.now += 1;
        for id in self.up() {
            if !self.stopped.contains_key(&id) && self.rng.random_bool(self.climate.tick) {
                self.step(id, Input::Tick);
            }
        }
        while let Some(envelope) = self.network.receive(self.now) {
            self.deliver(envelope);
        }
        self.keep_appointments();
        for id in self.up() {
            self.apply(id);
            if !self.stalled.contains_key(&id) && self.rng.random_bool(self.climate.sync) {
                self.sync(id);
            }
        }
        let now = self.now;
        self.stalled.retain(|_, until| *until > now);
        self.stopped.retain(|_, until| *until > now);
    }

    /// The state machine gets on with what is ready.
    fn apply(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a known node");
        let ready = node.raft().ready_index();
        if self.climate.apply >= 1.0 {
            node.apply(ready);
        } else if node.applied < ready && self.rng.random_bool(self.climate.apply) {
            node.apply(Index(self.rng.random_range(node.applied.0..=ready.0)));
        }
    }

    pub fn step(&mut self, id: NodeId, input: Input) {
        let node = self.nodes.get_mut(&id).expect("a known node");
        if !node.is_up() {
            return;
        }
        let before = Before::of(node);
        let output = node.step(input);
        self.invariants.check(Step { id, nodes: &self.nodes, output: &output, before });
        self.clients.observe(id, &output);
        self.observe(id, before, &output);
        self.carry_out(id, output);
    }

    fn carry_out(&mut self, id: NodeId, output: Output) {
        if self.trace {
            for line in print::output(id, &output) {
                println!("{} {line}", self.now);
            }
        }
        for fetch in output.fetch {
            self.coverage.fetches += 1;
            let delay = self.rng.random_range(1..4);
            self.later(id, delay, Later::ReadLog(fetch));
        }
        for envelope in output.messages {
            self.send(envelope);
        }
    }

    fn send(&mut self, envelope: Envelope) {
        self.invariants.check_sent(&self.nodes, &envelope);
        if self.trace {
            println!("{} {}", self.now, print::envelope(&envelope));
        }
        if let Message::InstallSnapshot(meta) = &envelope.body {
            self.offers.push((envelope.to, meta.clone()));
            self.last_offers.insert((envelope.from, envelope.to), self.offers.len());
            let ends = Later::StreamEnds(envelope.to, self.offers.len());
            let ticks = if self.holds_streams { u64::MAX / 2 } else { STREAM_TICKS };
            self.later(envelope.from, ticks, ends);
        }
        self.network.send(self.now, envelope, &mut self.rng);
    }

    fn deliver(&mut self, envelope: Envelope) {
        let (leader, id) = (envelope.from, envelope.to);
        let offered = |body: &Message| {
            if let Message::InstallSnapshot(meta) = body { Some(meta.clone()) } else { None }
        };
        let snapshot = offered(&envelope.body);
        self.step(id, Input::Message(envelope));
        if let Some(meta) = snapshot {
            self.stream(leader, id, meta);
        }
    }

    /// A snapshot is on its way, unless a newer one has come already: then that is answered with. The stream may break, of which
    /// the leader hears.
    fn stream(&mut self, leader: NodeId, id: NodeId, meta: SnapshotMeta) {
        if self.holds_streams {
            return;
        }
        let known = self.nodes[&id].disk.snapshot().cloned();
        if let Some(known) = known.filter(|known| known.last.index >= meta.last.index) {
            self.later(id, 1, Later::Step(Input::SnapshotReceived(known)));
        } else if self.rng.random_bool(self.climate.break_stream) {
            self.coverage.broken_streams += 1;
            let delay = self.rng.random_range(1..20);
            if let Some(offer) = self.last_offers.get(&(leader, id)).copied() {
                self.later(leader, delay, Later::StreamEnds(id, offer));
            }
        } else {
            let delay = self.rng.random_range(1..30);
            self.later(id, delay, Later::SnapshotArrived(meta));
        }
    }

    pub fn sync(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a known node");
        let pending = node.disk.pending_batches();
        let batches =
            if self.climate.sync < 1.0 { self.rng.random_range(0..=pending) } else { pending };
        let Some((input, released)) = node.sync(batches) else { return };
        let answer_first = self.rng.random_bool(0.5);
        if answer_first {
            self.step(id, input.clone());
        }
        for envelope in released {
            self.send(envelope);
        }
        if !answer_first {
            self.step(id, input);
        }
    }

    pub fn later(&mut self, id: NodeId, delay: u64, what: Later) {
        self.appointments += 1;
        let incarnation = self.nodes[&id].incarnation;
        self.agenda.insert((self.now + delay, self.appointments), (id, incarnation, what));
    }

    fn keep_appointments(&mut self) {
        while let Some(first) = self.agenda.first_entry() {
            if first.key().0 > self.now {
                break;
            }
            let (id, incarnation, what) = first.remove();
            self.keep_appointment(id, incarnation, what);
        }
    }

    fn keep_appointment(&mut self, id: NodeId, incarnation: u64, what: Later) {
        let node = self.nodes.get_mut(&id).expect("a known node");
        let same_process = node.is_up() && node.incarnation == incarnation;
        match what {
            Later::Restart if !node.is_up() => {
                let base = node.disk.log_base();
                node.start();
                self.coverage.replaced_logs += u64::from(node.disk.log_base() != base);
            }
            Later::Step(input) if same_process => self.step(id, input),
            Later::ReadLog(fetch) if same_process => {
                let mut entries = node.disk.read(fetch.from, fetch.to);
                entries.truncate(self.rng.random_range(1..5));
                self.step(id, Input::Fetched(entries));
            }
            Later::StreamEnds(peer, offer) if same_process => {
                let peers = node.raft().status().peers;
                let waits =
                    |(of, status): &(NodeId, PeerStatus)| *of == peer && status.snapshot.is_some();
                let is_last = self.last_offers.get(&(id, peer)) == Some(&offer);
                if is_last && peers.iter().any(waits) {
                    self.step(id, Input::SnapshotFailed(peer));
                }
            }
            Later::SnapshotArrived(meta) if same_process => {
                node.disk.store_snapshot(meta.clone());
                let delay = self.rng.random_range(0..4);
                self.later(id, delay, Later::Step(Input::SnapshotReceived(meta)));
                if self.rng.random_bool(8.0 * self.climate.crash) {
                    self.crash(id);
                }
            }
            Later::SnapshotWritten(meta, compact_to) if same_process => {
                self.invariants.check_described(&meta);
                node.disk.store_snapshot(meta.clone());
                let delay = self.rng.random_range(0..4);
                self.later(id, delay, Later::Step(Input::SnapshotTaken { meta, compact_to }));
            }
            Later::Restart
            | Later::Step(_)
            | Later::ReadLog(_)
            | Later::StreamEnds(..)
            | Later::SnapshotArrived(_)
            | Later::SnapshotWritten(..) => {}
        }
    }

    fn observe(&mut self, id: NodeId, before: Before, output: &Output) {
        let status = self.nodes[&id].raft().status();
        self.coverage.installs += u64::from(output.install.is_some());
        let trails = |base: &SnapshotMeta| base.last.index < status.snapshot_index;
        self.coverage.trailing += u64::from(output.compact.as_ref().is_some_and(trails));
        let elected = status.role == RoleName::Leader && before.role != RoleName::Leader;
        self.coverage.joint_leaders += u64::from(elected && status.membership.is_joint());
        let persist = output.persist.as_ref();
        self.coverage.truncations +=
            u64::from(persist.is_some_and(|persist| persist.truncate_from.is_some()));
    }

    pub fn up(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, node)| node.is_up()).map(|(id, _)| *id).collect()
    }
}

/// Limits so small that every one of them is met.
fn random_config(id: NodeId, seed: u64, rng: &mut Xoshiro256PlusPlus) -> Config {
    Config {
        max_append_bytes: pick([1, 300, 30_000], rng),
        window_messages: rng.random_range(1..5),
        window_bytes: pick([1, 600, 30_000], rng),
        log_cache_bytes: pick([0, 450, 30_000], rng),
        max_uncommitted_bytes: pick([600, 30_000], rng),
        ..quick_config(id, seed)
    }
}

fn pick<T: Copy, const N: usize>(choices: [T; N], rng: &mut Xoshiro256PlusPlus) -> T {
    choices[rng.random_range(0..N)]
}
