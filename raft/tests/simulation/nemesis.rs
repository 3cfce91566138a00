//! What goes wrong in a run, and what clients and operators want meanwhile.

use raft::consensus::{Index, Input, MembershipChange, NodeId, Raft, RoleName};
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom;

use crate::support::membership;
use crate::support::node::Node;
use crate::world::{Later, NODES, World};

/// How often things happen in this run, per tick.
#[derive(Clone, Copy, Debug)]
pub struct Climate {
    pub crash: f64,
    pub cut: f64,
    pub heal: f64,
    pub change: f64,
    pub snapshot: f64,
    pub break_stream: f64,
    pub apply: f64,
    pub stall: f64,
    pub stop_clock: f64,
    pub strand: f64,
    pub mischief: f64,
    pub sync: f64,
    pub tick: f64,
    pub propose: f64,
    pub read: f64,
    pub transfer: f64,
    pub leave: f64,
    pub steer: f64,
    /// Who is handed the leadership whenever somebody else has it: leads in many terms, and hears answers of its earlier ones.
    pub favourite: Option<NodeId>,
}

impl Climate {
    pub fn random(rng: &mut Xoshiro256PlusPlus) -> Self {
        let rare = |rng: &mut Xoshiro256PlusPlus, most: f64| rng.random_range(0.0..most);
        Self {
            crash: rare(rng, 0.04),
            cut: rare(rng, 0.04),
            heal: 0.05,
            change: rare(rng, 0.06),
            snapshot: rare(rng, 0.1),
            break_stream: rare(rng, 0.6),
            apply: rng.random_range(0.05..1.0),
            stall: rare(rng, 0.01),
            stop_clock: rare(rng, 0.03),
            strand: rare(rng, 0.01),
            mischief: rare(rng, 0.02),
            sync: rng.random_range(0.3..1.0),
            tick: rng.random_range(0.7..1.0),
            propose: rng.random_range(0.05..0.6),
            read: rng.random_range(0.05..0.3),
            transfer: rare(rng, 0.01),
            leave: rare(rng, 0.02),
            steer: rng.random_range(0.0..0.7),
            favourite: None,
        }
    }

    /// The same with a node that leads again and again. Few reads, or no round of one term has the number of one that is under way in another.
    pub fn with_favourite(self, rng: &mut Xoshiro256PlusPlus) -> Self {
        Self {
            transfer: rng.random_range(0.02..0.1),
            strand: rng.random_range(0.01..0.05),
            change: 0.2 * self.change,
            read: rng.random_range(0.01..0.1),
            favourite: Some(NodeId(rng.random_range(1..=3))),
            ..self
        }
    }

    pub fn calm() -> Self {
        Self {
            crash: 0.0,
            cut: 0.0,
            heal: 0.0,
            change: 0.0,
            snapshot: 0.0,
            break_stream: 0.0,
            apply: 1.0,
            stall: 0.0,
            stop_clock: 0.0,
            strand: 0.0,
            mischief: 0.0,
            sync: 1.0,
            tick: 1.0,
            propose: 0.0,
            read: 0.0,
            transfer: 0.0,
            leave: 0.0,
            steer: 0.0,
            favourite: None,
        }
    }
}

impl World {
    /// One tick of bad luck.
    pub fn nemesis(&mut self) {
        let climate = self.climate;
        if self.rng.random_bool(climate.crash) {
            let id = self.any_node();
            self.crash(id);
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
        if self.rng.random_bool(climate.stop_clock) {
            let id = self.likely_leader();
            self.stopped.insert(id, self.now + self.rng.random_range(5..60));
        }
        if self.rng.random_bool(climate.strand) {
            self.strand();
        }
        if self.rng.random_bool(climate.mischief) {
            self.mischief();
        }
        if self.rng.random_bool(climate.transfer) {
            let leader = self.likely_leader();
            let favourite = climate.favourite.filter(|&favourite| favourite != leader);
            let target = favourite.unwrap_or_else(|| self.any_node());
            self.coverage.handovers += 1;
            self.step(leader, Input::Transfer(target));
        }
    }

    pub fn crash(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a known node");
        if !node.is_up() {
            return;
        }
        self.coverage.crashes += 1;
        node.crash(self.rng.random_range(0..=node.disk.pending_writes()));
        self.clients.forget(id);
        self.departures.forget(id);
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

    /// A leader that nobody reaches while its clock stands still goes on to believe that it leads, and is asked for reads.
    fn strand(&mut self) {
        let id = self.likely_leader();
        self.coverage.strandings += 1;
        self.cut_off(id);
        self.stopped.insert(id, self.now + self.rng.random_range(15..50));
    }

    /// Cuts a node off in both directions.
    pub fn cut_off(&mut self, id: NodeId) {
        for &other in self.nodes.keys().filter(|&&other| other != id) {
            self.network.cut(id, other);
            self.network.cut(other, id);
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

    /// Somebody begins to write a snapshot of anything that its state machine has applied, and lets some, all or none of that
    /// stay in the log.
    fn take_snapshot(&mut self) {
        let id = self.any_node();
        let node = &self.nodes[&id];
        let Some(raft) = node.up() else { return };
        let (base, applied) = (raft.first_index().prev(), node.applied);
        let index = Index(self.rng.random_range(base.0..=applied.0));
        let Some(meta) = raft.describe(index) else { return };
        let compact_to = match self.rng.random_range(0..4) {
            0 => Index(self.rng.random_range(0..=index.0)),
            1 => Index(index.0.saturating_sub(3)),
            2 => index,
            _ => Index(u64::MAX),
        };
        let delay = self.rng.random_range(1..20);
        self.later(id, delay, Later::SnapshotWritten(meta, compact_to));
    }

    /// Things that are allowed at any time and must never hurt.
    fn mischief(&mut self) {
        let (id, other) = (self.any_node(), self.any_node());
        let input = match self.rng.random_range(0..6) {
            0 => Input::Campaign,
            1 => Input::Transfer(other),
            2 => Input::LinkLost(other),
            3 => Input::PeerUnreachable(other),
            4 => Input::SnapshotFailed(other),
            _ => Input::Bootstrap(membership(&[id.0], &[])),
        };
        let is_empty = self.nodes[&id].up().is_some_and(|raft| raft.last().index == Index(0));
        if !(is_empty && matches!(input, Input::Bootstrap(_))) {
            self.step(id, input);
        }
    }

    /// One tick of clients and operators.
    pub fn load(&mut self) {
        if self.rng.random_bool(self.climate.propose) {
            let id = self.likely_leader();
            let count = self.rng.random_range(1..4);
            let commands = self.clients.commands(count);
            self.step(id, commands);
        }
        if self.rng.random_bool(self.climate.read) {
            let id = self.whom_to_ask();
            if self.nodes[&id].is_up() {
                let read = self.clients.read(id, self.invariants.committed.last());
                self.step(id, read);
            }
        }
        if self.rng.random_bool(self.climate.change) {
            self.change_membership();
        }
        self.leave_and_return();
    }

    fn change_membership(&mut self) {
        let id = self.likely_leader();
        let Some(status) = self.nodes[&id].up().map(Raft::status) else { return };
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

    pub fn any_node(&mut self) -> NodeId {
        NodeId(self.rng.random_range(1..=NODES))
    }

    /// A favourite that stands still is asked the more: it may lead no longer, and be told by answers of its earlier terms that it does.
    fn whom_to_ask(&mut self) -> NodeId {
        let favourite = self.climate.favourite.filter(|id| self.stopped.contains_key(id));
        match favourite {
            Some(favourite) if self.rng.random_bool(0.7) => favourite,
            Some(_) | None => self.likely_leader(),
        }
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
