//! All 28 tests of MIT's course on distributed systems (6.5840, lab 3) by their names, each over twenty seeds, with the timing of
//! a real cluster, on a reliable network and on one that loses and delays. Nobody is told of a broken connection there.

mod agreement;
mod elections;
mod persistence;
mod snapshots;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use raft::consensus::{Config, Index, Input, LogId, NodeId, RoleName};
use rand::{Rng, RngExt};

use crate::network::Weather;
use crate::support::quick_config;
use crate::world::World;

/// In ticks.
const SECOND: u64 = 100;
const SEEDS: u64 = 20;
/// Entries between two snapshots of one server.
const SNAPSHOT_INTERVAL: u64 = 10;

fn over_seeds(run: impl Fn(u64)) {
    for seed in 0..SEEDS {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed)));
        assert!(outcome.is_ok(), "it fails with seed {seed}");
    }
}

/// The same test with so many servers, on a network without faults and on one with them.
fn on_both_networks(servers: usize, run: impl Fn(Lab)) {
    over_seeds(|seed| run(Lab::new(seed, servers)));
    println!("all seeds passed on a reliable network");
    over_seeds(|seed| run(Lab::new(seed, servers).unreliable()));
}

/// A cluster as the course's tests see it. Servers are counted from zero.
struct Lab {
    world: World,
    servers: usize,
    disconnected: BTreeSet<usize>,
    takes_snapshots: bool,
    /// Bytes of all commands that some server took.
    started_bytes: usize,
}

impl Lab {
    fn new(seed: u64, servers: usize) -> Self {
        let config = |id| Config {
            heartbeat_ticks: 5,
            election_ticks_min: 30,
            election_ticks_max: 60,
            ..quick_config(id, seed)
        };
        let mut world = World::calm_with(seed, config);
        let ids: Vec<u64> = (1..=servers as u64).collect();
        world.bootstrap(&ids);
        Self {
            world,
            servers,
            disconnected: BTreeSet::new(),
            takes_snapshots: false,
            started_bytes: 0,
        }
    }

    /// One in ten questions and answers gets lost, and they take up to 26 milliseconds.
    fn unreliable(mut self) -> Self {
        self.world.network.weather = Weather { loss: 0.1, delay_ticks: 2, ..Weather::CALM };
        self
    }

    fn reliable_again(&mut self) {
        self.world.network.weather = Weather::CALM;
    }

    /// Two thirds of the answers take between 0.2 and 2.2 seconds, rather less than more.
    fn long_reordering(&mut self) {
        self.world.network.weather.late_answers = 2.0 / 3.0;
    }

    /// Each server takes a snapshot of its state every ten entries, and its log drops them.
    fn with_snapshots(mut self) -> Self {
        self.takes_snapshots = true;
        self
    }

    fn all(&self) -> std::ops::Range<usize> {
        0..self.servers
    }

    fn random(&mut self, below: u64) -> u64 {
        self.world.rng.next_u64() % below
    }

    fn random_server(&mut self) -> usize {
        self.world.rng.random_range(0..self.servers)
    }

    fn after(&self, server: usize, steps: usize) -> usize {
        (server + steps) % self.servers
    }

    fn sleep(&mut self, ticks: u64) {
        (0..ticks).for_each(|_| self.tick());
    }

    fn tick(&mut self) {
        self.world.tick();
        if self.takes_snapshots {
            self.all().for_each(|server| self.snapshot(server));
        }
    }

    fn snapshot(&mut self, server: usize) {
        let node = &self.world.nodes[&id(server)];
        let Some(raft) = node.up() else { return };
        let at = Index((node.applied.0 + 1) / SNAPSHOT_INTERVAL * SNAPSHOT_INTERVAL).prev();
        let known = node.disk.snapshot().map_or(Index(0), |meta| meta.last.index);
        let Some(meta) = raft.describe(at).filter(|_| at > known) else { return };
        self.world.invariants.check_described(&meta);
        let node = self.world.nodes.get_mut(&id(server)).expect("a known node");
        node.disk.store_snapshot(meta.clone());
        self.world.step(id(server), Input::SnapshotTaken { meta, compact_to: at });
    }

    fn is_up(&self, server: usize) -> bool {
        self.world.nodes[&id(server)].is_up()
    }

    fn is_connected(&self, server: usize) -> bool {
        !self.disconnected.contains(&server)
    }

    fn disconnect(&mut self, server: usize) {
        self.disconnected.insert(server);
        self.rewire();
    }

    fn connect(&mut self, server: usize) {
        self.disconnected.remove(&server);
        self.rewire();
    }

    fn disconnect_all(&mut self, servers: &[usize]) {
        self.disconnected.extend(servers);
        self.rewire();
    }

    fn connect_all(&mut self, servers: &[usize]) {
        self.disconnected.retain(|server| !servers.contains(server));
        self.rewire();
    }

    fn rewire(&mut self) {
        self.world.network.heal();
        for &alone in &self.disconnected {
            for other in self.all() {
                self.world.network.cut(id(alone), id(other));
                self.world.network.cut(id(other), id(alone));
            }
        }
    }

    /// The process dies; of what was not synced, chance decides.
    fn shut_down(&mut self, server: usize) {
        let node = self.world.nodes.get_mut(&id(server)).expect("a known node");
        if node.is_up() {
            let writes = node.disk.pending_writes();
            node.crash(self.world.rng.random_range(0..=writes));
            self.world.clients.forget(id(server));
        }
    }

    fn restart(&mut self, server: usize) {
        let node = self.world.nodes.get_mut(&id(server)).expect("a known node");
        if !node.is_up() {
            node.start();
        }
    }

    fn restart_all(&mut self) {
        self.all().for_each(|server| self.shut_down(server));
        self.all().for_each(|server| self.restart(server));
    }

    /// Gives a server a new command; says where it stands in the log, if the server believes to lead.
    fn start(&mut self, server: usize) -> Option<LogId> {
        self.start_of(0, server)
    }

    /// The same with a command of at least so many bytes.
    fn start_of(&mut self, bytes: usize, server: usize) -> Option<LogId> {
        let before = self.world.nodes[&id(server)].up()?.last();
        let command = self.world.clients.command_of(bytes);
        self.world.step(id(server), command);
        let after = self.world.nodes[&id(server)].raft().last();
        let started = (after != before).then_some(after);
        self.started_bytes += if started.is_some() { bytes } else { 0 };
        started
    }

    /// Gives the leader so many new commands at once. Returns where the last one stands.
    fn start_many(&mut self, leader: usize, count: u64) -> LogId {
        let started = (0..count).map(|_| self.start(leader).expect("it leads"));
        started.last().expect("at least one")
    }

    /// How many servers have applied this very command.
    fn appliers(&self, command: LogId) -> usize {
        if self.world.invariants.committed.id(command.index) != Some(command) {
            return 0;
        }
        self.all().filter(|&server| self.world.nodes[&id(server)].applied >= command.index).count()
    }

    /// One new command is applied by at least so many servers, within ten seconds. Returns where it stands.
    fn one(&mut self, expected: usize) -> Index {
        self.one_of(0, expected)
    }

    /// The same with a command of at least so many bytes.
    fn one_of(&mut self, bytes: usize, expected: usize) -> Index {
        let limit = self.world.now + 10 * SECOND;
        while self.world.now < limit {
            let connected: Vec<usize> =
                self.all().filter(|&server| self.is_connected(server)).collect();
            let started = connected.into_iter().find_map(|server| self.start_of(bytes, server));
            if let Some(command) = started
                && self.await_appliers(command, expected, 2 * SECOND)
            {
                return command.index;
            }
            self.tick();
        }
        panic!("no agreement of {expected} servers within ten seconds");
    }

    fn one_after_another(&mut self, count: u64, expected: usize) {
        for _ in 0..count {
            self.one(expected);
        }
    }

    fn await_appliers(&mut self, command: LogId, expected: usize, ticks: u64) -> bool {
        (0..ticks).any(|_| {
            self.tick();
            self.appliers(command) >= expected
        })
    }

    /// The one server that leads the newest term, of those that are connected.
    fn check_one_leader(&mut self) -> usize {
        for _ in 0..10 {
            self.sleep(SECOND / 2);
            let leaders: Vec<(u64, usize)> = self
                .all()
                .filter(|&server| self.is_up(server) && self.is_connected(server))
                .map(|server| (server, self.world.nodes[&id(server)].raft().status()))
                .filter(|(_, status)| status.role == RoleName::Leader)
                .map(|(server, status)| (status.term.0, server))
                .collect();
            if let Some(&(newest, leader)) = leaders.iter().max() {
                let count = leaders.iter().filter(|(term, _)| *term == newest).count();
                assert_eq!(count, 1, "several leaders in term {newest}");
                return leader;
            }
        }
        panic!("nobody leads after five seconds");
    }

    /// Nobody of those who are connected leads.
    fn check_no_leader(&self) {
        for server in self.all().filter(|&server| self.is_connected(server)) {
            let role = self.world.nodes[&id(server)].raft().status().role;
            assert_ne!(role, RoleName::Leader, "server {server} leads without a majority");
        }
    }

    /// The one term of all who are connected. Half a second is enough for everybody to hear of it.
    fn check_terms(&mut self) -> u64 {
        for _ in 0..SECOND / 2 {
            let connected = self.all().filter(|&server| self.is_connected(server));
            let terms: BTreeSet<u64> = connected
                .map(|server| self.world.nodes[&id(server)].raft().hard_state().term.0)
                .collect();
            if let (Some(&term), 1) = (terms.first(), terms.len()) {
                return term;
            }
            self.tick();
        }
        panic!("the servers do not agree on the term");
    }

    /// Bytes of the largest log on a disk.
    fn log_bytes(&self) -> usize {
        let bytes = self.all().map(|server| self.world.nodes[&id(server)].disk.log_bytes());
        bytes.max().expect("there are servers")
    }
}

fn id(server: usize) -> NodeId {
    NodeId(server as u64 + 1)
}
