//! One seeded virtual network with members in it, the same for every protocol: time, loss, delay, partitions, pauses,
//! crashes and restarts are made here.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;

use rand::rngs::ChaCha12Rng;
use rand::{RngExt, SeedableRng};

use crate::faults::{Fault, Plan};
use crate::gossip::{Birth, Effects, Gossip, News, address, number};
use crate::tally::{Circumstances, Tally};

/// Datagrams that wait for a paused process, as in a socket buffer; more are lost.
const SOCKET_BUFFER: usize = 200;
/// Longest one-way delay in ms; the shortest is 1.
const DELAY_MS: u64 = 10;
/// Members that everyone asks to be let in.
pub(crate) const INTRODUCERS: [usize; 2] = [0, 1];

/// A process, or the place where it was.
struct Node<G> {
    process: Option<G>,
    /// Its latest life, as its disk has it.
    life: u64,
    /// That this process began with.
    first_life: u64,
    /// It says good-bye, or is gone.
    gone: bool,
    paused_until_ms: Option<u64>,
    buffer: VecDeque<(u64, SocketAddr, Vec<u8>)>,
    /// Earliest wake-up that is in the queue.
    wakeup_ms: u64,
    /// Since when it runs without a pause.
    runs_since_ms: u64,
    group: u8,
    sent: u64,
    sent_bytes: u64,
}

enum Happening {
    Wake { node: usize },
    Arrive { node: usize, from: SocketAddr, datagram: Vec<u8> },
    Resume { node: usize },
}

struct Queued {
    at_ms: u64,
    order: u64,
    what: Happening,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.order).cmp(&(other.at_ms, other.order))
    }
}

/// The network and everyone in it.
pub(crate) struct Network<G> {
    pub(crate) now_ms: u64,
    /// Share of the datagrams that are lost.
    pub(crate) loss: f64,
    pub(crate) tally: Tally,
    nodes: Vec<Node<G>>,
    /// Whom each (row) holds for taking part; itself never.
    views: Vec<Vec<bool>>,
    partition_changed_ms: u64,
    rng: ChaCha12Rng,
    queue: BinaryHeap<Reverse<Queued>>,
    next_order: u64,
    /// Member time that went by, in ms.
    member_ms: u64,
}

impl<G: Gossip> Network<G> {
    /// `count` members that all know each other.
    pub(crate) fn converged(seed: u64, count: usize) -> Self {
        let mut network = Self {
            now_ms: 0,
            loss: 0.0,
            tally: Tally::default(),
            nodes: Vec::new(),
            views: vec![vec![false; count]; count],
            partition_changed_ms: 0,
            rng: ChaCha12Rng::seed_from_u64(seed),
            queue: BinaryHeap::new(),
            next_order: 0,
            member_ms: 0,
        };
        for _ in 0..count {
            network.nodes.push(Node {
                process: None,
                life: 0,
                first_life: 0,
                gone: true,
                paused_until_ms: None,
                buffer: VecDeque::new(),
                wakeup_ms: u64::MAX,
                runs_since_ms: 0,
                group: 0,
                sent: 0,
                sent_bytes: 0,
            });
        }
        // Not all at once: a storm of joins is another test's business.
        for member in 0..count {
            network.start(member);
            network.run(20);
        }
        network.expect_within(180_000, "everyone knows everyone", Self::is_converged);
        // Until the news of it is old.
        network.run(10_000);
        network.forget_the_past();
        network
    }

    /// Starts to count here.
    pub(crate) fn forget_the_past(&mut self) {
        self.tally = Tally::default();
        self.member_ms = 0;
        for node in &mut self.nodes {
            (node.sent, node.sent_bytes) = (0, 0);
        }
    }

    /// Starts a process; anew after a crash, with what its disk remembers.
    pub(crate) fn start(&mut self, member: usize) {
        if self.nodes[member].process.is_some() {
            return;
        }
        let birth = Birth {
            number: member,
            life: self.nodes[member].life + 1,
            members: self.nodes.len(),
            seeds: INTRODUCERS.to_vec(),
            seed: self.rng.random(),
            now_ms: self.now_ms,
        };
        let mut effects = Effects::default();
        self.views[member].fill(false);
        let process = G::start(&birth, &mut effects);
        let node = &mut self.nodes[member];
        node.process = Some(process);
        (node.life, node.first_life) = (birth.life, birth.life);
        node.gone = false;
        node.paused_until_ms = None;
        node.buffer.clear();
        node.wakeup_ms = u64::MAX;
        node.runs_since_ms = self.now_ms;
        self.carry_out(member, effects);
    }

    /// Ends a process without a word.
    pub(crate) fn crash(&mut self, member: usize) {
        let node = &mut self.nodes[member];
        if let Some(process) = node.process.take() {
            node.life = process.life();
            node.gone = true;
        }
    }

    /// It says good-bye; ending it is another step.
    pub(crate) fn leave(&mut self, member: usize) {
        self.nodes[member].gone = true;
        let now_ms = self.now_ms;
        self.call(member, |process, effects| process.leave(now_ms, effects));
    }

    /// Stops a process for a while, as SIGSTOP would.
    pub(crate) fn pause(&mut self, member: usize, ms: u64) {
        let node = &mut self.nodes[member];
        if node.process.is_some() && node.paused_until_ms.is_none() {
            let until_ms = self.now_ms + ms;
            node.paused_until_ms = Some(until_ms);
            self.push(until_ms, Happening::Resume { node: member });
        }
    }

    /// Members for which this is not the same do not reach each other.
    pub(crate) fn partition(&mut self, group: impl Fn(usize) -> u8) {
        for (member, node) in self.nodes.iter_mut().enumerate() {
            node.group = group(member);
        }
        self.partition_changed_ms = self.now_ms;
    }

    pub(crate) fn heal(&mut self) {
        self.partition(|_| 0);
    }

    /// Lets so much time pass.
    pub(crate) fn run(&mut self, ms: u64) {
        self.run_until(self.now_ms + ms, |_| false);
    }

    /// Lets so much time pass, with faults.
    pub(crate) fn run_with(&mut self, plan: Plan, ms: u64) {
        let start_ms = self.now_ms;
        for (at_ms, fault) in plan.faults() {
            self.run_until(start_ms + at_ms, |_| false);
            match fault {
                Fault::Pause { member, ms } => self.pause(member, ms),
                Fault::Crash { member } => self.crash(member),
                Fault::Leave { member } => self.leave(member),
                Fault::Start { member } => self.start(member),
                Fault::Cut { group } => self.partition(|member| u8::from(group.contains(&member))),
                Fault::Heal => self.heal(),
            }
        }
        self.run_until(start_ms + ms, |_| false);
    }

    /// Lets time pass until the condition holds, which is looked at every 10 ms, and tells how much.
    pub(crate) fn expect_within(
        &mut self,
        ms: u64,
        what: &str,
        condition: impl Fn(&Self) -> bool,
    ) -> u64 {
        let start_ms = self.now_ms;
        let reached = self.run_until(start_ms + ms, condition);
        assert!(reached, "{}: not within {ms} ms: {what}\n{}", G::NAME, self.picture());
        self.now_ms - start_ms
    }

    fn run_until(&mut self, end_ms: u64, condition: impl Fn(&Self) -> bool) -> bool {
        let mut look_ms = self.now_ms;
        loop {
            if self.now_ms >= look_ms {
                if condition(self) {
                    return true;
                }
                look_ms = self.now_ms + 10;
            }
            match self.queue.peek() {
                Some(Reverse(next)) if next.at_ms <= end_ms => self.step(),
                Some(_) | None => {
                    self.advance(end_ms);
                    return condition(self);
                }
            }
        }
    }

    fn advance(&mut self, to_ms: u64) {
        if to_ms > self.now_ms {
            let running = self.nodes.iter().filter(|node| node.process.is_some()).count() as u64;
            self.member_ms += running * (to_ms - self.now_ms);
            self.now_ms = to_ms;
        }
    }

    fn step(&mut self) {
        let Some(Reverse(Queued { at_ms, what, .. })) = self.queue.pop() else { return };
        self.advance(at_ms);
        match what {
            Happening::Wake { node } => self.wake(node, at_ms),
            Happening::Arrive { node, from, datagram } => self.arrive(node, from, datagram),
            Happening::Resume { node } => self.resume(node),
        }
    }

    fn wake(&mut self, member: usize, at_ms: u64) {
        let node = &mut self.nodes[member];
        if node.wakeup_ms != at_ms || node.paused_until_ms.is_some() {
            return;
        }
        node.wakeup_ms = u64::MAX;
        if node.process.as_ref().is_some_and(|process| process.next_wake_ms() <= at_ms) {
            self.call(member, |process, effects| process.wake(at_ms, effects));
        } else {
            self.plan_wakeup(member);
        }
    }

    fn arrive(&mut self, member: usize, from: SocketAddr, datagram: Vec<u8>) {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[member];
        if node.paused_until_ms.is_some() {
            if node.buffer.len() < SOCKET_BUFFER {
                node.buffer.push_back((now_ms, from, datagram));
            }
            return;
        }
        self.call(member, |process, effects| process.receive(now_ms, from, &datagram, effects));
    }

    /// What became due in the pause, datagrams and timers, is done in the order in which it became so.
    fn resume(&mut self, member: usize) {
        let now_ms = self.now_ms;
        if self.nodes[member].paused_until_ms != Some(now_ms) {
            return;
        }
        self.nodes[member].paused_until_ms = None;
        self.nodes[member].runs_since_ms = now_ms;
        self.nodes[member].wakeup_ms = u64::MAX;
        loop {
            let node = &mut self.nodes[member];
            let Some(timer_ms) = node.process.as_ref().map(Gossip::next_wake_ms) else { return };
            match node.buffer.front() {
                Some((arrived_ms, ..)) if *arrived_ms < timer_ms => {
                    let Some((_, from, datagram)) = node.buffer.pop_front() else { return };
                    self.call(member, |process, effects| {
                        process.receive(now_ms, from, &datagram, effects);
                    });
                }
                Some(_) | None if timer_ms <= now_ms => {
                    self.call(member, |process, effects| process.wake(now_ms, effects));
                }
                Some(_) | None => break,
            }
        }
        self.plan_wakeup(member);
    }

    fn call(&mut self, member: usize, call: impl FnOnce(&mut G, &mut Effects)) {
        let mut effects = Effects::default();
        let Some(process) = &mut self.nodes[member].process else { return };
        call(process, &mut effects);
        self.carry_out(member, effects);
    }

    fn carry_out(&mut self, member: usize, effects: Effects) {
        for (to, datagram) in effects.sent {
            self.transmit(member, to, datagram);
        }
        for news in effects.news {
            self.believe(member, news);
        }
        self.plan_wakeup(member);
    }

    fn plan_wakeup(&mut self, member: usize) {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[member];
        let Some(process) = &node.process else { return };
        let due_ms = process.next_wake_ms().max(now_ms);
        if due_ms < node.wakeup_ms {
            node.wakeup_ms = due_ms;
            self.push(due_ms, Happening::Wake { node: member });
        }
    }

    fn transmit(&mut self, sender: usize, to: SocketAddr, datagram: Vec<u8>) {
        assert!(datagram.len() <= 1_400, "{}: {} bytes", G::NAME, datagram.len());
        let lost = self.rng.random_bool(self.loss);
        let delay_ms = self.rng.random_range(1..=DELAY_MS);
        let receiver = number(to);
        let node = &mut self.nodes[sender];
        node.sent += 1;
        node.sent_bytes += datagram.len() as u64;
        let group = node.group;
        let reached = self.nodes[receiver].process.is_some() && self.nodes[receiver].group == group;
        if reached && !lost {
            let arrival = Happening::Arrive { node: receiver, from: address(sender), datagram };
            self.push(self.now_ms + delay_ms, arrival);
        }
    }

    fn push(&mut self, at_ms: u64, what: Happening) {
        self.next_order += 1;
        self.queue.push(Reverse(Queued { at_ms, order: self.next_order, what }));
    }

    fn believe(&mut self, observer: usize, news: News) {
        self.views[observer][news.subject] = news.up;
        if news.up {
            return;
        }
        let (witness, subject) = (&self.nodes[observer], &self.nodes[news.subject]);
        self.tally.declared_dead(
            news,
            &Circumstances {
                now_ms: self.now_ms,
                earlier_process: news.life < subject.first_life,
                runs: !subject.gone && subject.paused_until_ms.is_none(),
                runs_since_ms: subject.runs_since_ms,
                reached: subject.group == witness.group,
                reached_since_ms: self.partition_changed_ms,
            },
        );
    }

    /// Whether `observer` holds `subject` for taking part.
    pub(crate) fn believes_in(&self, observer: usize, subject: usize) -> bool {
        self.views[observer][subject]
    }

    /// Those that run and have not said good-bye.
    pub(crate) fn living(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|member| !self.nodes[*member].gone)
    }

    /// Whether everyone who lives has this belief of `subject`.
    pub(crate) fn all_believe(&self, subject: usize, up: bool) -> bool {
        self.living()
            .filter(|observer| *observer != subject)
            .all(|observer| self.believes_in(observer, subject) == up)
    }

    /// Whether everyone who lives holds exactly those who live for taking part.
    pub(crate) fn is_converged(&self) -> bool {
        (0..self.nodes.len()).all(|subject| self.all_believe(subject, !self.nodes[subject].gone))
    }

    /// Hours that members ran since counting began, all together.
    pub(crate) fn member_hours(&self) -> f64 {
        self.member_ms as f64 / 3_600_000.0
    }

    /// Datagrams and bytes sent per member and second since counting began, without the headers of IP and UDP.
    pub(crate) fn traffic(&self) -> (f64, f64) {
        let seconds = self.member_ms as f64 / 1_000.0;
        let sent: u64 = self.nodes.iter().map(|node| node.sent).sum();
        let bytes: u64 = self.nodes.iter().map(|node| node.sent_bytes).sum();
        (sent as f64 / seconds, bytes as f64 / seconds)
    }

    fn picture(&self) -> String {
        let line = |observer: usize| {
            let row = self.views[observer].iter().map(|up| if *up { '+' } else { '.' });
            format!("{observer:4}: {}\n", row.collect::<String>())
        };
        self.living().map(line).collect()
    }
}
