//! One run: nodes, network, clients, and what goes wrong.

use std::collections::BTreeMap;

use raft::consensus::{
    Config, Envelope, Fetch, Index, Input, Membership, MembershipChange, Message, NodeId, Output,
    RoleName, SnapshotMeta, Status,
};
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::clients::Clients;
use crate::invariants::{Before, Invariants, Nodes, Step};
use crate::network::{Network, Weather};
use crate::support::node::Node;
use crate::support::{membership, quick_config};

const NODES: u64 = 7;
const CHAOS_TICKS: u64 = 400;
/// Progress is demanded within this many ticks after everything has healed: 25 of the longest election timeouts…
const HEALING_TICKS: u64 = 300;
/// … and this many for each entry that somebody could be behind: windows may let through one at a time, read from disk.
const HEALING_TICKS_PER_ENTRY: u64 = 8;
/// A stream of a snapshot that was not answered counts as broken off after this many ticks.
const STREAM_TICKS: u64 = 40;

/// What a run has seen: too little of it proves nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    leaders: u64,
    committed: u64,
    reads: u64,
    changes: u64,
    installs: u64,
    fetches: u64,
    crashes: u64,
    truncations: u64,
    joint_leaders: u64,
}

impl Coverage {
    pub fn add(&mut self, other: &Self) {
        self.leaders += other.leaders;
        self.committed += other.committed;
        self.reads += other.reads;
        self.changes += other.changes;
        self.installs += other.installs;
        self.fetches += other.fetches;
        self.crashes += other.crashes;
        self.truncations += other.truncations;
        self.joint_leaders += other.joint_leaders;
    }

    /// A thin run is a failure of the harness.
    pub fn demand_per_hundred_seeds(&self, hundreds: u64) {
        let table = [
            ("leaders", self.leaders, 500),
            ("committed entries", self.committed, 5_000),
            ("answered reads", self.reads, 500),
            ("changes of the configuration", self.changes, 100),
            ("installed snapshots", self.installs, 20),
            ("fetches", self.fetches, 20),
            ("crashes", self.crashes, 300),
            ("truncations", self.truncations, 20),
            ("elections in a joint configuration", self.joint_leaders, 5),
        ];
        for (what, seen, least) in table {
            assert!(seen >= least * hundreds, "a thin run: only {seen} {what}");
        }
    }
}

/// What happens to a node later.
#[derive(Clone, Debug)]
enum Later {
    Restart,
    Step(Input),
    ReadLog(Fetch),
    SnapshotArrived(SnapshotMeta),
}

/// How often things happen in this run, per tick.
#[derive(Clone, Copy, Debug)]
struct Climate {
    crash: f64,
    cut: f64,
    heal: f64,
    change: f64,
    snapshot: f64,
    stall: f64,
    mischief: f64,
    sync: f64,
    tick: f64,
    propose: f64,
    read: f64,
}

pub struct World {
    rng: Xoshiro256PlusPlus,
    now: u64,
    nodes: Nodes,
    network: Network,
    climate: Climate,
    clients: Clients,
    invariants: Invariants,
    agenda: BTreeMap<(u64, u64), (NodeId, u64, Later)>,
    appointments: u64,
    /// Disks that hang until this tick.
    stalled: BTreeMap<NodeId, u64>,
    coverage: Coverage,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let weather = Weather {
            loss: *[0.0, 0.02, 0.1, 0.25].choose(&mut rng).unwrap(),
            duplication: *[0.0, 0.05, 0.2].choose(&mut rng).unwrap(),
            delay_ticks: *[0, 1, 3, 8].choose(&mut rng).unwrap(),
        };
        let rare = |rng: &mut Xoshiro256PlusPlus, most: f64| rng.random_range(0.0..most);
        let climate = Climate {
            crash: rare(&mut rng, 0.04),
            cut: rare(&mut rng, 0.04),
            heal: 0.05,
            change: rare(&mut rng, 0.06),
            snapshot: rare(&mut rng, 0.06),
            stall: rare(&mut rng, 0.01),
            mischief: rare(&mut rng, 0.02),
            sync: rng.random_range(0.3..1.0),
            tick: rng.random_range(0.7..1.0),
            propose: rng.random_range(0.05..0.6),
            read: rng.random_range(0.05..0.3),
        };
        let nodes = (1..=NODES)
            .map(|id| (NodeId(id), Node::new(random_config(NodeId(id), seed, &mut rng))))
            .collect();
        Self {
            rng,
            now: 0,
            nodes,
            network: Network::new(weather),
            climate,
            clients: Clients::default(),
            invariants: Invariants::default(),
            agenda: BTreeMap::new(),
            appointments: 0,
            stalled: BTreeMap::new(),
            coverage: Coverage::default(),
        }
    }

    /// Chaos, then healing.
    ///
    /// # Panics
    /// When an invariant does not hold, or when healing does not bring progress.
    pub fn run(mut self) -> Coverage {
        let voters: &[u64] = if self.rng.random_bool(0.5) { &[1, 2, 3] } else { &[1, 2, 3, 4, 5] };
        for &id in voters {
            self.step(NodeId(id), Input::Bootstrap(membership(voters, &[])));
        }
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

    fn tick(&mut self) {
        self.now += 1;
        for id in self.up() {
            if self.rng.random_bool(self.climate.tick) {
                self.step(id, Input::Tick);
            }
        }
        while let Some(envelope) = self.network.receive(self.now) {
            self.deliver(envelope);
        }
        self.keep_appointments();
        for id in self.up() {
            if !self.stalled.contains_key(&id) && self.rng.random_bool(self.climate.sync) {
                self.sync(id);
            }
        }
        let now = self.now;
        self.stalled.retain(|_, until| *until > now);
    }

    // What nodes do.

    fn step(&mut self, id: NodeId, input: Input) {
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
        if matches!(envelope.body, Message::InstallSnapshot(_)) {
            let broken_off = Input::PeerUnreachable(envelope.to);
            self.later(envelope.from, STREAM_TICKS, Later::Step(broken_off));
        }
        self.network.send(self.now, envelope, &mut self.rng);
    }

    fn deliver(&mut self, envelope: Envelope) {
        let id = envelope.to;
        let snapshot = match &envelope.body {
            Message::InstallSnapshot(meta) => Some(meta.clone()),
            _ => None,
        };
        self.step(id, Input::Message(envelope));
        if let Some(meta) = snapshot {
            let delay = self.rng.random_range(1..10);
            self.later(id, delay, Later::SnapshotArrived(meta));
        }
    }

    fn sync(&mut self, id: NodeId) {
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

    fn later(&mut self, id: NodeId, delay: u64, what: Later) {
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
            Later::Restart if !node.is_up() => node.start(),
            Later::Step(input) if same_process => self.step(id, input),
            Later::ReadLog(fetch) if same_process => {
                let mut entries = node.disk.read(fetch.from, fetch.to);
                entries.truncate(self.rng.random_range(1..5));
                self.step(id, Input::Fetched(entries));
            }
            Later::SnapshotArrived(meta) if same_process => {
                node.disk.store_snapshot(meta.clone());
                self.step(id, Input::SnapshotReceived(meta));
            }
            Later::Restart | Later::Step(_) | Later::ReadLog(_) | Later::SnapshotArrived(_) => {}
        }
    }

    fn observe(&mut self, id: NodeId, before: Before, output: &Output) {
        let status = self.nodes[&id].raft().status();
        self.coverage.installs += u64::from(output.install.is_some());
        let elected = status.role == RoleName::Leader && before.role != RoleName::Leader;
        self.coverage.joint_leaders += u64::from(elected && status.membership.is_joint());
        let persist = output.persist.as_ref();
        self.coverage.truncations +=
            u64::from(persist.is_some_and(|persist| persist.truncate_from.is_some()));
    }

    // What goes wrong.

    fn nemesis(&mut self) {
        let climate = self.climate;
        if self.rng.random_bool(climate.crash) {
            self.crash();
        }
        if self.rng.random_bool(climate.cut) {
            self.cut();
        }
        if self.rng.random_bool(climate.heal) {
            self.network.heal();
        }
        if self.rng.random_bool(climate.snapshot) {
            self.take_snapshot();
        }
        if self.rng.random_bool(climate.stall) {
            let id = self.any_node();
            self.stalled.insert(id, self.now + self.rng.random_range(5..40));
        }
        if self.rng.random_bool(climate.mischief) {
            self.mischief();
        }
    }

    fn crash(&mut self) {
        let id = self.any_node();
        let node = self.nodes.get_mut(&id).expect("a known node");
        if !node.is_up() {
            return;
        }
        self.coverage.crashes += 1;
        node.crash(self.rng.random_range(0..=node.disk.pending_batches()));
        self.clients.forget(id);
        let downtime = self.rng.random_range(1..60);
        self.later(id, downtime, Later::Restart);
        for peer in self.up() {
            if self.rng.random_bool(0.5) {
                let delay = self.rng.random_range(1..4);
                self.later(peer, delay, Later::Step(Input::LinkLost(id)));
                self.later(peer, delay, Later::Step(Input::PeerUnreachable(id)));
            }
        }
    }

    /// Cuts one direction of a link, a node off in one or both directions, or the cluster in two.
    fn cut(&mut self) {
        let (a, b) = (self.any_node(), self.any_node());
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|&id| id != a).collect();
        match self.rng.random_range(0..4) {
            0 => self.network.cut(a, b),
            1 => others.iter().for_each(|&other| self.network.cut(a, other)),
            2 => others.iter().for_each(|&other| self.network.cut(other, a)),
            _ => {
                let side: Vec<NodeId> =
                    self.nodes.keys().copied().filter(|_| self.rng.random_bool(0.5)).collect();
                for &from in self.nodes.keys() {
                    for &to in self.nodes.keys() {
                        if side.contains(&from) != side.contains(&to) {
                            self.network.cut(from, to);
                        }
                    }
                }
            }
        }
    }

    fn take_snapshot(&mut self) {
        let id = self.any_node();
        let node = self.nodes.get_mut(&id).expect("a known node");
        if !node.is_up() {
            return;
        }
        if let Some(meta) = node.take_snapshot() {
            self.step(id, Input::SnapshotTaken(meta));
        }
    }

    /// Things that are allowed at any time and must never hurt.
    fn mischief(&mut self) {
        let (id, other) = (self.any_node(), self.any_node());
        let input = match self.rng.random_range(0..5) {
            0 => Input::Campaign,
            1 => Input::Transfer(other),
            2 => Input::LinkLost(other),
            3 => Input::PeerUnreachable(other),
            _ => Input::Bootstrap(membership(&[id.0], &[])),
        };
        let is_empty = self.nodes[&id].up().is_some_and(|raft| raft.last().index == Index(0));
        if !(is_empty && matches!(input, Input::Bootstrap(_))) {
            self.step(id, input);
        }
    }

    // What clients and operators do.

    fn load(&mut self) {
        if self.rng.random_bool(self.climate.propose) {
            let id = self.likely_leader();
            let count = self.rng.random_range(1..4);
            let commands = self.clients.commands(count);
            self.step(id, commands);
        }
        if self.rng.random_bool(self.climate.read) {
            let id = self.likely_leader();
            if self.nodes[&id].is_up() {
                let read = self.clients.read(id, self.invariants.committed.last());
                self.step(id, read);
            }
        }
        if self.rng.random_bool(self.climate.change) {
            self.change_membership();
        }
    }

    fn change_membership(&mut self) {
        let id = self.likely_leader();
        let Some(status) = self.nodes[&id].up().map(raft::consensus::Raft::status) else { return };
        let mut voters: Vec<u64> = Vec::new();
        let mut learners: Vec<u64> = Vec::new();
        for id in 1..=NODES {
            match self.rng.random_range(0..5) {
                0..=2 if voters.len() < 5 => voters.push(id),
                3 => learners.push(id),
                _ => {}
            }
        }
        let change = MembershipChange {
            id: self.clients.proposal_id(),
            based_on: status.membership_index,
            target: membership(&voters, &learners),
        };
        let before = self.nodes[&id].raft().last();
        self.step(id, Input::ChangeMembership(change));
        self.coverage.changes += u64::from(self.nodes[&id].raft().last() != before);
    }

    // What has to be when nothing goes wrong any more.

    fn heal(&mut self) {
        self.network.heal();
        self.network.weather = Weather::CALM;
        self.stalled.clear();
        self.climate = Climate { sync: 1.0, tick: 1.0, ..self.climate };
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let node = self.nodes.get_mut(&id).expect("a known node");
            if !node.is_up() {
                node.start();
            }
        }
    }

    /// A leader, new entries on all members, no joint configuration left, reads answered.
    fn demand_progress(&mut self) {
        let mut wanted: Option<Index> = None;
        let longest =
            self.nodes.values().map(|node| node.raft().last().index.0).max().unwrap_or_default();
        let limit_ticks = HEALING_TICKS + HEALING_TICKS_PER_ENTRY * longest;
        for _ in 0..limit_ticks {
            self.tick();
            let Some(leader) = self.settled_leader() else { continue };
            match wanted {
                None => {
                    let commands = self.clients.commands(3);
                    self.step(leader.id, commands);
                    let read = self.clients.read(leader.id, self.invariants.committed.last());
                    self.step(leader.id, read);
                    wanted = Some(self.nodes[&leader.id].raft().last().index);
                }
                Some(index)
                    if self.all_have(&leader.membership, index)
                        && self.clients.waiting_reads() == 0 =>
                {
                    return;
                }
                Some(_) => {}
            }
        }
        let states: Vec<String> =
            self.nodes.values().map(|node| summary(&node.raft().status())).collect();
        panic!("no progress within {limit_ticks} ticks: {states:#?}");
    }

    /// Nobody disturbs a leader that everybody hears.
    fn demand_stability(&mut self) {
        let term = self.settled_leader().expect("a leader").term;
        for _ in 0..60 {
            self.tick();
        }
        let leader = self.settled_leader().expect("a leader stays");
        assert_eq!(leader.term, term, "somebody disturbed a healthy leader");
    }

    fn settled_leader(&self) -> Option<Status> {
        let statuses = self.nodes.values().map(|node| node.raft().status());
        let leader =
            statuses.filter(|status| status.leader_ready).max_by_key(|status| status.term)?;
        (leader.membership_committed && !leader.membership.is_joint()).then_some(leader)
    }

    fn all_have(&self, membership: &Membership, index: Index) -> bool {
        membership.members().iter().all(|id| self.nodes[id].raft().ready_index() >= index)
    }

    // Choices.

    fn up(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, node)| node.is_up()).map(|(id, _)| *id).collect()
    }

    fn any_node(&mut self) -> NodeId {
        NodeId(self.rng.random_range(1..=NODES))
    }

    /// Somebody who believes to lead, mostly.
    fn likely_leader(&mut self) -> NodeId {
        let leads =
            |node: &Node| node.up().is_some_and(|raft| raft.status().role == RoleName::Leader);
        let leaders: Vec<NodeId> =
            self.nodes.iter().filter(|(_, node)| leads(node)).map(|(id, _)| *id).collect();
        match leaders.choose(&mut self.rng) {
            Some(leader) if self.rng.random_bool(0.9) => *leader,
            Some(_) | None => self.any_node(),
        }
    }
}

/// Limits so small that every one of them is met.
fn random_config(id: NodeId, seed: u64, rng: &mut Xoshiro256PlusPlus) -> Config {
    Config {
        max_append_bytes: *[1, 100, 10_000].choose(rng).unwrap(),
        window_messages: rng.random_range(1..5),
        window_bytes: *[1, 200, 10_000].choose(rng).unwrap(),
        log_cache_bytes: *[0, 150, 10_000].choose(rng).unwrap(),
        max_uncommitted_bytes: *[200, 10_000].choose(rng).unwrap(),
        ..quick_config(id, seed)
    }
}

/// One line about a node, for the report of a failure.
fn summary(status: &Status) -> String {
    let ids =
        |ids: &std::collections::BTreeSet<NodeId>| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    let membership = &status.membership;
    format!(
        "{} {:?} term {} leader {:?} commit {} last {} voters {:?} outgoing {:?} learners {:?} at {} peers {:?}",
        status.id.0,
        status.role,
        status.term,
        status.leader.map(|id| id.0),
        status.commit_index,
        status.last,
        ids(&membership.voters),
        ids(&membership.outgoing),
        ids(&membership.learners),
        status.membership_index,
        status.peers.iter().map(|(id, peer)| (id.0, peer.match_index.0)).collect::<Vec<_>>(),
    )
}
