//! One replica, carried out as a runtime would that has nothing else to do.

use raft::consensus::{Config, Envelope, Input, NodeId, Output, RoleName};

use crate::facts::{Facts, place};
use crate::support::node::Node;
use crate::support::quick_config;

/// Longer than all ticks of a run: nobody's timer runs out but where an event says so, and no disk counts as stalled.
const ELECTION_TICKS: u32 = 12;

/// A replica to which something happens, and what comes of it.
pub struct Process {
    pub node: Node,
    pub sent: Vec<Envelope>,
    pub reads: Vec<(u8, usize)>,
}

impl Process {
    pub fn new(node: Node) -> Self {
        Self { node, sent: Vec::new(), reads: Vec::new() }
    }

    pub fn step(&mut self, input: Input) {
        let output = self.node.step(input);
        self.carry_out(output);
    }

    /// Old entries are read from the log at once: how long that takes makes no difference to the others.
    fn carry_out(&mut self, output: Output) {
        self.sent.extend(output.messages);
        self.reads.extend(
            output
                .reads
                .into_iter()
                .map(|(read, index)| (u8::try_from(read.0).expect("few reads"), place(index))),
        );
        for fetch in output.fetch {
            let entries = self.node.disk.read(fetch.from, fetch.to);
            self.step(Input::Fetched(entries));
        }
    }

    /// Makes the oldest write durable, if there is one.
    pub fn sync(&mut self) -> bool {
        let Some((input, released)) = self.node.sync(1) else { return false };
        self.step(input);
        self.sent.extend(released);
        true
    }

    /// Who follows turns against the leader. Who asks for votes, or leads, waits in vain for an election timeout, in which
    /// all that it sends is lost; its disk is idle, so that this does not count as a stall.
    pub fn lose_patience(&mut self, facts: &Facts) -> bool {
        match (facts.role, facts.follows) {
            (RoleName::Follower, Some(leader)) => self.step(Input::LinkLost(leader)),
            (RoleName::Follower, None) => self.step(Input::Campaign),
            (RoleName::PreCandidate | RoleName::Candidate | RoleName::Leader, _) => {
                return facts.pending == 0 && self.wait_in_vain(facts.role);
            }
        }
        true
    }

    fn wait_in_vain(&mut self, role: RoleName) -> bool {
        (0..=ELECTION_TICKS).any(|_| {
            self.sent.clear();
            self.step(Input::Tick);
            let begins_anew = role == RoleName::PreCandidate && !self.sent.is_empty();
            begins_anew || self.node.raft().status().role != role
        })
    }
}

/// Settings with which nothing happens by itself.
pub fn config(id: NodeId) -> Config {
    Config {
        heartbeat_ticks: 1,
        election_ticks_min: ELECTION_TICKS,
        election_ticks_max: ELECTION_TICKS + 1,
        link_lost_ticks_max: 0,
        ..quick_config(id, 0)
    }
}
