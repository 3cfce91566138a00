//! The cluster and its simulated world.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use raft_client::{Client, Endpoint, NodeStatus, Options};
use tempfile::TempDir;
use turmoil::{Builder, Sim};

use super::idle::Threads;
use super::invariants::Invariants;
use super::process::{Node, Program, host};
use super::{number, panics};

/// Longest way of a message, while nothing is wrong.
pub const LATENCY_MAX: Duration = Duration::from_millis(10);
/// Longest simulated time of a test.
const LONGEST: Duration = Duration::from_hours(2);
/// How often the observer asks each node.
const OBSERVED_EVERY: Duration = Duration::from_millis(100);
/// How long it waits for an answer.
const OBSERVER_PATIENCE: Duration = Duration::from_millis(500);
/// Segments and ring buffers of a connection.
const BUFFERED: usize = 4096;

/// What the nodes said of themselves.
#[derive(Default)]
struct Seen {
    /// The newest from each address, and when it was asked for.
    newest: BTreeMap<usize, (Duration, NodeStatus)>,
    invariants: Invariants,
}

/// Nodes in a simulated network. They end with it.
pub struct Cluster {
    /// The network.
    pub sim: Sim<'static>,
    /// The nodes, by number less one.
    pub nodes: Vec<Node>,
    /// The hosts of clients.
    pub clients: Vec<String>,
    /// What is started at an address, by its number.
    started: BTreeMap<usize, Rc<RefCell<Node>>>,
    seen: Rc<RefCell<Seen>>,
    threads: Threads,
    directory: TempDir,
}

impl Cluster {
    /// An empty network whose behaviour the seed decides.
    pub fn new(seed: u64) -> Self {
        panics::watch();
        let sim = Builder::new()
            .rng_seed(seed + (number("VARIATION", 0) << 32))
            .simulation_duration(LONGEST)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(LATENCY_MAX)
            .tcp_capacity(BUFFERED)
            .udp_capacity(BUFFERED)
            .enable_tokio_io()
            .enable_random_order()
            .build();
        let directory = tempfile::Builder::new().prefix("processes-").tempdir_in(in_memory());
        Self {
            sim,
            nodes: Vec::new(),
            clients: Vec::new(),
            started: BTreeMap::new(),
            seen: Rc::default(),
            threads: Threads::default(),
            directory: directory.unwrap(),
        }
    }

    /// So many nodes that have found each other: all vote, all machines and member daemons are connected.
    pub fn formed(seed: u64, nodes: usize) -> Self {
        let mut cluster = Self::new(seed);
        (0..nodes).for_each(|_| cluster.add_node());
        cluster.until("all vote", Duration::from_mins(1), Self::is_whole);
        cluster
    }

    /// Starts one more node. The first is the introducer.
    pub fn add_node(&mut self) {
        let number = self.nodes.len() + 1;
        let node = Node {
            number,
            address: number,
            directory: self.directory.path().join(format!("node-{number}")),
            introducer: number == 1,
            seeds: self.nodes.first().map(Node::seed).into_iter().collect(),
            machine: number,
        };
        self.add(node);
    }

    /// Starts one that joins nobody: the introducer of a cluster of its own.
    pub fn add_stranger(&mut self) {
        let number = self.nodes.len() + 1;
        let directory = self.directory.path().join(format!("node-{number}"));
        let node = Node {
            number,
            address: number,
            directory,
            introducer: true,
            seeds: Vec::new(),
            machine: number,
        };
        self.add(node);
    }

    fn add(&mut self, node: Node) {
        std::fs::create_dir_all(&node.directory).unwrap();
        self.hosts(&node);
        self.nodes.push(node);
    }

    /// Starts a node's processes on new hosts.
    fn hosts(&mut self, node: &Node) {
        let started = Rc::new(RefCell::new(node.clone()));
        for program in Program::ALL {
            let node = Rc::clone(&started);
            self.sim.host(host(started.borrow().address, program), move || {
                node.borrow().clone().run(program)
            });
        }
        let (address, endpoint, seen) = (node.address, node.endpoint(), Rc::clone(&self.seen));
        self.sim.client(format!("observer-{address}"), observe(address, endpoint, seen));
        self.started.insert(address, started);
    }

    /// Kills a node, and starts it as this makes it: at the same address, with other settings.
    pub fn restart_as(&mut self, number: usize, change: impl FnOnce(&mut Node)) {
        self.crash_node(number);
        change(&mut self.nodes[number - 1]);
        let node = &self.nodes[number - 1];
        self.started[&node.address].replace(node.clone());
        self.start_node(number);
    }

    /// Kills a node, and starts it at another address.
    pub fn move_node(&mut self, number: usize) {
        self.crash_node(number);
        let node = &mut self.nodes[number - 1];
        node.address += 100;
        node.machine = node.address;
        let node = node.clone();
        self.hosts(&node);
    }

    /// Changes the places of two nodes in the network: each comes back at the other's address.
    pub fn swap_addresses(&mut self, one: usize, other: usize) {
        self.crash_node(one);
        self.crash_node(other);
        let (a, b) = (self.nodes[one - 1].address, self.nodes[other - 1].address);
        for (number, address) in [(one, b), (other, a)] {
            let node = &mut self.nodes[number - 1];
            (node.address, node.machine) = (address, address);
            self.started[&address].replace(node.clone());
            self.start_node(number);
        }
    }

    /// Lets a millisecond go by.
    ///
    /// # Panics
    /// When a process has ended with an error.
    pub fn step(&mut self) {
        if let Err(error) = self.sim.step() {
            panic!("after {:?}: {error}", self.sim.elapsed());
        }
        self.threads.wait_until_idle();
    }

    /// Lets this time go by.
    pub fn pass(&mut self, time: Duration) {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.step();
        }
    }

    /// Lets time go by until something holds.
    ///
    /// # Panics
    /// When it does not within this simulated time.
    pub fn until(&mut self, what: &str, limit: Duration, mut holds: impl FnMut(&Self) -> bool) {
        let end = self.sim.elapsed() + limit;
        while !holds(self) {
            let now = self.sim.elapsed();
            assert!(now < end, "{what}: not within {limit:?}, at {now:?}; {}", self.summary());
            self.step();
        }
    }

    /// Kills a process.
    pub fn crash(&mut self, number: usize, program: Program) {
        self.sim.crash(self.nodes[number - 1].host(program));
        // What it had given to its threads is still written, as a kernel would: the next process must not find them at it.
        self.threads.find_and_wait();
    }

    /// Kills all of a node.
    pub fn crash_node(&mut self, number: usize) {
        for program in Program::ALL {
            self.crash(number, program);
        }
    }

    /// Starts a process that was killed.
    pub fn start(&mut self, number: usize, program: Program) {
        let host = self.nodes[number - 1].host(program);
        if !self.sim.is_host_running(host.as_str()) {
            self.sim.bounce(host);
        }
    }

    /// Starts all of a node.
    pub fn start_node(&mut self, number: usize) {
        for program in Program::ALL {
            self.start(number, program);
        }
    }

    /// Does something with every link between this node and the others.
    pub fn between(&mut self, number: usize, act: impl Fn(&mut Sim<'static>, String, String)) {
        for other in self.nodes.iter().filter(|other| other.number != number) {
            for ours in Program::ALL.map(|program| self.nodes[number - 1].host(program)) {
                for theirs in Program::ALL.map(|program| other.host(program)) {
                    act(&mut self.sim, ours.clone(), theirs);
                }
            }
        }
    }

    /// What a node said of itself when it was asked after this time.
    pub fn status_since(&self, number: usize, since: Duration) -> Option<NodeStatus> {
        let seen = self.seen.borrow();
        let address = self.nodes[number - 1].address;
        seen.newest.get(&address).filter(|(at, _)| *at > since).map(|(_, status)| status.clone())
    }

    /// What all nodes said of themselves within the last second; none when one is silent.
    pub fn statuses(&self) -> Option<Vec<NodeStatus>> {
        let since = self.sim.elapsed().saturating_sub(Duration::from_secs(1));
        self.nodes.iter().map(|node| self.status_since(node.number, since)).collect()
    }

    /// Whether all nodes vote in one configuration, follow one leader, and have their machine and member daemon.
    pub fn is_whole(&self) -> bool {
        let voters = if self.nodes.len().is_multiple_of(2) {
            self.nodes.len() - 1
        } else {
            self.nodes.len()
        };
        self.statuses().is_some_and(|statuses| {
            let leader = statuses[0].leader.clone();
            leader.is_some()
                && statuses.iter().all(|status| {
                    status.leader == leader
                        && status.voters.len() == voters
                        && status.voters.len() + status.learners.len() == statuses.len()
                        && status.outgoing.is_empty()
                        && status.membership_committed
                        && status.state_machine == "attached"
                        && status.member == "connected"
                })
        })
    }

    /// The number of the only node that says it leads; none when a node is silent.
    pub fn leader(&self) -> Option<usize> {
        let statuses = self.statuses()?;
        let leaders: Vec<_> = self
            .nodes
            .iter()
            .zip(&statuses)
            .filter(|(_, status)| status.role == "leader")
            .collect();
        match leaders[..] {
            [(node, _)] => Some(node.number),
            _ => None,
        }
    }

    /// Where clients find the nodes, this one first.
    pub fn endpoints_from(&self, number: usize) -> Vec<String> {
        let mut endpoints: Vec<String> = self.nodes.iter().map(Node::endpoint).collect();
        endpoints.rotate_left((number - 1) % self.nodes.len());
        endpoints
    }

    /// How many leaders there were, one for each term.
    pub fn leaders(&self) -> usize {
        self.seen.borrow().invariants.leaders()
    }

    /// Nodes whose log begins after a snapshot.
    pub fn compacted(&self) -> usize {
        let seen = self.seen.borrow();
        seen.newest.values().filter(|(_, status)| status.first_index > 1).count()
    }

    fn summary(&self) -> String {
        let seen = self.seen.borrow();
        let lines = seen.newest.iter().map(|(address, (at, status))| {
            let NodeStatus { role, term, commit_index, applied_index, last_index, .. } = status;
            format!(
                "\n  address {address} at {at:?}: {role} of term {term}, leader {:?}, log {last_index}, committed {commit_index}, \
                 applied {applied_index}, voters {:?}, learners {:?}, machine {}, member {}",
                status.leader, status.voters, status.learners, status.state_machine, status.member
            )
        });
        lines.collect()
    }
}

/// Asks whatever node is at this address, for ever. A client keeps to the cluster that it found first, so that a fresh one takes its
/// place when nobody answers.
async fn observe(address: usize, endpoint: String, seen: Rc<RefCell<Seen>>) -> turmoil::Result {
    let endpoint: Endpoint = endpoint.parse()?;
    let client = || {
        Client::new(Options {
            timeout: OBSERVER_PATIENCE,
            discover: false,
            ..Options::new(vec![endpoint.clone()])
        })
    };
    let mut present = client();
    loop {
        let asked = turmoil::sim_elapsed().unwrap_or_default();
        match present.status().await {
            Ok(status) => {
                let mut seen = seen.borrow_mut();
                seen.invariants.check(&status);
                seen.newest.insert(address, (asked, status));
            }
            Err(_silent) => present = client(),
        }
        tokio::time::sleep(OBSERVED_EVERY).await;
    }
}

/// Where files need no disk, if there is such a place.
fn in_memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}
