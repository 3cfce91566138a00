//! Members in one seeded virtual network: time, loss, delay, partitions, pauses and restarts are made here, and the
//! protocol is the one that the daemon runs.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use member::codec::MAX_DATAGRAM_BYTES;
use member::key::KeyRing;
use member::swim::{
    Event, Incarnation, MemberId, Output, Profile, Settings, Start, State, Swim, Tags,
};
use rand::rngs::ChaCha12Rng;
use rand::{RngExt, SeedableRng};

/// Datagrams that wait for a paused process, as in a socket buffer; more are lost.
const SOCKET_BUFFER: usize = 200;

/// One process, or the place where it was.
pub(crate) struct Node {
    pub(crate) swim: Option<Swim>,
    pub(crate) address: SocketAddr,
    pub(crate) id: MemberId,
    /// As its disk would have it.
    pub(crate) incarnation: u64,
    pub(crate) seeds: Vec<SocketAddr>,
    pub(crate) tags: Tags,
    keys: KeyRing,
    paused_until_ms: u64,
    waiting: usize,
    wakeup: u64,
}

/// A change of belief.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Belief {
    pub(crate) at_ms: u64,
    pub(crate) observer: usize,
    pub(crate) subject: MemberId,
    pub(crate) state: State,
}

enum Happening {
    Wake { node: usize, wakeup: u64 },
    Arrive { node: usize, from: SocketAddr, bytes: Vec<u8> },
}

/// The virtual network and everyone in it.
pub(crate) struct World {
    pub(crate) now_ms: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) settings: Settings,
    /// Share of datagrams that are lost.
    pub(crate) loss: f64,
    /// Longest one-way delay in ms; the shortest is 1.
    pub(crate) delay_ms: u64,
    /// Nodes of different groups do not reach each other.
    pub(crate) groups: Vec<u8>,
    /// Pairs, the smaller first, that do not reach each other.
    pub(crate) cuts: BTreeSet<(usize, usize)>,
    pub(crate) beliefs: Vec<Belief>,
    pub(crate) conflicts: usize,
    /// Every datagram sent so far, if wanted.
    pub(crate) recording: Option<Vec<(SocketAddr, SocketAddr, Vec<u8>)>>,
    rng: ChaCha12Rng,
    queue: BTreeMap<(u64, u64), Happening>,
    next_happening: u64,
    trace: DefaultHasher,
}

impl World {
    /// `count` nodes, none started; the first is everyone's seed.
    pub(crate) fn new(seed: u64, count: usize) -> Self {
        let mut world = Self {
            now_ms: 0,
            nodes: Vec::new(),
            settings: Settings::default(),
            loss: 0.0,
            delay_ms: 3,
            groups: Vec::new(),
            cuts: BTreeSet::new(),
            beliefs: Vec::new(),
            conflicts: 0,
            recording: None,
            rng: ChaCha12Rng::seed_from_u64(seed),
            queue: BTreeMap::new(),
            next_happening: 0,
            trace: DefaultHasher::new(),
        };
        for _ in 0..count {
            world.add_node();
        }
        world
    }

    /// The same, started, and everyone knows everyone.
    pub(crate) fn converged(seed: u64, count: usize) -> Self {
        let mut world = Self::new(seed, count);
        world.start_all();
        world.expect_within(30_000, World::all_alive);
        world.beliefs.clear();
        world
    }

    pub(crate) fn add_node(&mut self) -> usize {
        let number = u16::try_from(self.nodes.len()).unwrap();
        let address =
            SocketAddr::from(([10, 0, (number >> 8) as u8, (number & 0xff) as u8], 6_000));
        let seed = self.nodes.first().map(|first| first.address);
        self.nodes.push(Node {
            swim: None,
            address,
            id: MemberId(self.rng.random_range(1..=u64::MAX)),
            incarnation: 0,
            seeds: seed.into_iter().collect(),
            tags: Tags::default(),
            keys: KeyRing::default(),
            paused_until_ms: 0,
            waiting: 0,
            wakeup: 0,
        });
        self.groups.push(0);
        self.nodes.len() - 1
    }

    pub(crate) fn use_keys(&mut self, node: usize, keys: KeyRing) {
        self.nodes[node].keys = keys;
    }

    pub(crate) fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
            self.start(node);
        }
    }

    /// Starts a process, anew after a kill: its memory is what its disk holds.
    pub(crate) fn start(&mut self, number: usize) {
        let seed = self.rng.random();
        let node = &mut self.nodes[number];
        node.incarnation += 1;
        node.waiting = 0;
        node.paused_until_ms = 0;
        node.swim = Some(Swim::new(Start {
            id: node.id,
            incarnation: Incarnation(node.incarnation),
            profile: Profile {
                name: format!("node-{number}"),
                address: node.address,
                tags: node.tags.clone(),
            },
            keys: node.keys.clone(),
            settings: self.settings,
            seed,
            now_ms: self.now_ms,
        }));
        self.schedule_wakeup(number);
    }

    pub(crate) fn kill(&mut self, number: usize) {
        if let Some(swim) = self.nodes[number].swim.take() {
            self.nodes[number].incarnation = swim.own_standing().incarnation.0;
        }
    }

    /// The same place with an empty disk.
    pub(crate) fn wipe(&mut self, number: usize) {
        self.kill(number);
        self.nodes[number].id = MemberId(self.rng.random_range(1..=u64::MAX));
        self.nodes[number].incarnation = 0;
    }

    /// Stops a process for a while, as SIGSTOP would.
    pub(crate) fn pause(&mut self, number: usize, ms: u64) {
        self.nodes[number].paused_until_ms = self.now_ms + ms;
    }

    /// Calls a process and carries out what it says.
    pub(crate) fn call(&mut self, number: usize, call: impl FnOnce(&mut Swim) -> Output) {
        let Some(swim) = &mut self.nodes[number].swim else { return };
        let output = call(swim);
        self.carry_out(number, output);
        self.schedule_wakeup(number);
    }

    pub(crate) fn set_tags(&mut self, number: usize, tags: Tags) {
        self.nodes[number].tags = tags.clone();
        self.call(number, |swim| {
            swim.set_tags(tags);
            Output::default()
        });
    }

    /// Lets so much time pass.
    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        self.run_until(end, |_| false);
        self.now_ms = end;
    }

    /// Lets time pass until the condition holds, and tells how much.
    pub(crate) fn expect_within(&mut self, ms: u64, condition: impl Fn(&Self) -> bool) -> u64 {
        let start = self.now_ms;
        let reached = self.run_until(start + ms, condition);
        assert!(reached, "not within {ms} ms:\n{}", self.picture());
        self.now_ms - start
    }

    fn run_until(&mut self, end: u64, condition: impl Fn(&Self) -> bool) -> bool {
        let mut checked_ms = None;
        loop {
            // A look at every moment would cost more than the protocol; 10 ms is fine enough.
            if checked_ms.is_none_or(|checked| self.now_ms >= checked + 10) {
                if condition(self) {
                    return true;
                }
                checked_ms = Some(self.now_ms);
            }
            match self.queue.first_key_value() {
                Some(((at_ms, _), _)) if *at_ms <= end => self.step(),
                Some(_) | None => return condition(self),
            }
        }
    }

    fn step(&mut self) {
        let ((at_ms, order), happening) = self.queue.pop_first().unwrap();
        self.now_ms = self.now_ms.max(at_ms);
        match happening {
            Happening::Wake { node, wakeup } if self.nodes[node].wakeup == wakeup => {
                if !self.postpone(node, order, Happening::Wake { node, wakeup }) {
                    let now_ms = self.now_ms;
                    self.call(node, |swim| swim.tick(now_ms));
                }
            }
            Happening::Wake { .. } => {}
            Happening::Arrive { node, from, bytes } => self.arrive(node, order, from, bytes),
        }
    }

    fn arrive(&mut self, node: usize, order: u64, from: SocketAddr, bytes: Vec<u8>) {
        if self.nodes[node].paused_until_ms > self.now_ms {
            self.nodes[node].waiting += 1;
            if self.nodes[node].waiting <= SOCKET_BUFFER {
                self.postpone(node, order, Happening::Arrive { node, from, bytes });
            }
            return;
        }
        self.nodes[node].waiting = 0;
        (self.now_ms, node, from, &bytes).hash(&mut self.trace);
        let now_ms = self.now_ms;
        self.call(node, |swim| swim.handle(now_ms, from, &bytes));
    }

    fn postpone(&mut self, node: usize, order: u64, happening: Happening) -> bool {
        let until_ms = self.nodes[node].paused_until_ms;
        let paused = until_ms > self.now_ms;
        if paused {
            self.queue.insert((until_ms, order), happening);
        }
        paused
    }

    fn schedule_wakeup(&mut self, node: usize) {
        let Some(due_ms) = self.nodes[node].swim.as_ref().map(Swim::next_tick_ms) else { return };
        self.nodes[node].wakeup += 1;
        let wakeup = self.nodes[node].wakeup;
        self.push(due_ms.max(self.now_ms), Happening::Wake { node, wakeup });
    }

    fn push(&mut self, at_ms: u64, happening: Happening) {
        self.next_happening += 1;
        self.queue.insert((at_ms, self.next_happening), happening);
    }

    fn carry_out(&mut self, number: usize, output: Output) {
        let from = self.nodes[number].address;
        for datagram in output.send {
            assert!(datagram.bytes.len() <= MAX_DATAGRAM_BYTES, "{} bytes", datagram.bytes.len());
            if let Some(recording) = &mut self.recording {
                recording.push((from, datagram.to, datagram.bytes.clone()));
            }
            self.transmit(number, datagram.to, datagram.bytes);
        }
        if output.try_seeds {
            for address in self.nodes[number].seeds.clone() {
                if address != from {
                    self.call(number, |swim| swim.join(address));
                }
            }
        }
        for event in output.events {
            match event {
                Event::StateChanged { id, after, .. } => self.beliefs.push(Belief {
                    at_ms: self.now_ms,
                    observer: number,
                    subject: id,
                    state: after,
                }),
                Event::IdConflict { .. } => self.conflicts += 1,
                Event::Refuted { .. }
                | Event::Dropped { .. }
                | Event::TableFull { .. }
                | Event::WasAway { .. } => {}
            }
        }
    }

    fn transmit(&mut self, sender: usize, to: SocketAddr, bytes: Vec<u8>) {
        let lost = self.rng.random_bool(self.loss);
        let delay_ms = self.rng.random_range(1..=self.delay_ms);
        let living = |node: &Node| node.address == to && node.swim.is_some();
        let Some(receiver) = self.nodes.iter().position(living) else { return };
        let pair = (sender.min(receiver), sender.max(receiver));
        let reached = self.groups[sender] == self.groups[receiver] && !self.cuts.contains(&pair);
        if !lost && reached {
            let from = self.nodes[sender].address;
            self.push(self.now_ms + delay_ms, Happening::Arrive { node: receiver, from, bytes });
        }
    }

    /// What `observer` believes of `subject`; `None` when it does not know it.
    pub(crate) fn belief(&self, observer: usize, subject: MemberId) -> Option<State> {
        let view = self.nodes[observer].swim.as_ref()?.view();
        view.into_iter().find(|(id, ..)| *id == subject).map(|(_, standing, _)| standing.state)
    }

    pub(crate) fn living(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].swim.is_some()).collect()
    }

    /// Whether every living node believes this of `subject`, itself aside.
    pub(crate) fn all_believe(&self, subject: usize, state: State) -> bool {
        let id = self.nodes[subject].id;
        let others = self.living().into_iter().filter(|observer| *observer != subject);
        others.into_iter().all(|observer| self.belief(observer, id) == Some(state))
    }

    /// Whether every living node believes that every living node is alive.
    pub(crate) fn all_alive(&self) -> bool {
        self.living().into_iter().all(|subject| self.all_believe(subject, State::Alive))
    }

    /// Deaths that were believed of nodes that live.
    pub(crate) fn false_deaths(&self) -> usize {
        let living: Vec<_> = self.living().iter().map(|node| self.nodes[*node].id).collect();
        let deaths = self.beliefs.iter().filter(|belief| belief.state == State::Dead);
        deaths.filter(|belief| living.contains(&belief.subject)).count()
    }

    /// A number that differs as soon as anything happened differently.
    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    fn picture(&self) -> String {
        let line = |observer: usize| {
            let states = self.nodes.iter().map(|node| match self.belief(observer, node.id) {
                None => '?',
                Some(State::Alive) => 'a',
                Some(State::Suspect) => 's',
                Some(State::Dead) => 'D',
                Some(State::Left) => 'L',
            });
            format!("{observer:4}: {}\n", states.collect::<String>())
        };
        self.living().into_iter().map(line).collect()
    }
}
