//! A cluster that does nothing by itself: messages wait until they are delivered, clocks until they are ticked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft::consensus::{Envelope, Input, NodeId, Output, SnapshotMeta};

use crate::support::node::Node;
use crate::support::print;

/// Nodes, and the messages under way between them in the order in which they were sent.
#[derive(Default)]
pub struct Cluster {
    pub nodes: BTreeMap<NodeId, Node>,
    pub under_way: VecDeque<Envelope>,
    /// Links on which everything is lost.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes whose disk answers only when a script says so.
    pub manual_sync: BTreeSet<NodeId>,
    /// The last snapshot that was offered to each node.
    pub offered: BTreeMap<NodeId, SnapshotMeta>,
    pub serial: u64,
    pub lines: Vec<String>,
}

impl Cluster {
    /// Steps a node, unless it is down, and its disk if that works by itself.
    pub fn step(&mut self, id: NodeId, input: Input) {
        if self.nodes.get(&id).is_none_or(|node| !node.is_up()) {
            return;
        }
        self.step_only(id, input);
        if !self.manual_sync.contains(&id) {
            self.sync(id, usize::MAX);
        }
    }

    /// Makes pending batches durable, sends what waited for them and tells the core.
    pub fn sync(&mut self, id: NodeId, batches: usize) {
        let node = self.nodes.get_mut(&id).expect("a known node");
        if let Some((synced, released)) = node.sync(batches) {
            self.send(released);
            self.step_only(id, synced);
            if batches == usize::MAX {
                self.sync(id, batches);
            }
        }
    }

    /// Hands over the messages that are under way now, of those that match. Answers wait for the next round.
    pub fn deliver(&mut self, matches: impl Fn(&Envelope) -> bool) {
        let (now, later) = std::mem::take(&mut self.under_way).into_iter().partition(matches);
        self.under_way = later;
        let now: VecDeque<Envelope> = now;
        for envelope in now {
            self.step(envelope.to, Input::Message(envelope));
        }
    }

    /// Delivers until nobody has anything left to say.
    pub fn stabilize(&mut self) {
        for _ in 0..1000 {
            if self.under_way.is_empty() {
                return;
            }
            self.deliver(|_| true);
        }
        panic!("the conversation does not end");
    }

    fn step_only(&mut self, id: NodeId, input: Input) {
        let output = self.nodes.get_mut(&id).expect("a known node").step(input);
        self.lines.extend(print::output(id, &output));
        self.carry_out(id, output);
    }

    fn carry_out(&mut self, id: NodeId, output: Output) {
        self.send(output.messages);
        for fetch in output.fetch {
            let entries = self.nodes[&id].disk.read(fetch.from, fetch.to);
            self.step_only(id, Input::Fetched(entries));
        }
    }

    fn send(&mut self, messages: Vec<Envelope>) {
        for envelope in messages {
            let lost = self.cut.contains(&(envelope.from, envelope.to))
                || self.nodes.get(&envelope.to).is_none_or(|node| !node.is_up());
            let mark = if lost { " (lost)" } else { "" };
            self.lines.push(format!("{}{mark}", print::envelope(&envelope)));
            if !lost {
                self.remember_offer(&envelope);
                self.under_way.push_back(envelope);
            }
        }
    }

    fn remember_offer(&mut self, envelope: &Envelope) {
        if let raft::consensus::Message::InstallSnapshot(meta) = &envelope.body {
            self.offered.insert(envelope.to, meta.clone());
        }
    }
}
