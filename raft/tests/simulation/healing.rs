//! What has to be when nothing goes wrong any more.

use std::collections::BTreeSet;

use raft::consensus::{Index, Membership, NodeId, Status, Term};

use crate::nemesis::Climate;
use crate::network::Weather;
use crate::world::World;

/// Progress is demanded within this many ticks after everything has healed: 25 of the longest election timeouts…
const HEALING_TICKS: u64 = 300;
/// … and this many for each entry that somebody could be behind: windows may let through one at a time, read from disk.
const HEALING_TICKS_PER_ENTRY: u64 = 8;
/// A leader that everybody hears is watched for so long: five of the longest election timeouts.
const QUIET_TICKS: u64 = 60;
/// A voter is away for so long, and watched for as long when it is back.
const AWAY_TICKS: u64 = 30;

impl World {
    /// Everything is repaired, everybody is started, and talks over new connections.
    pub fn heal(&mut self) {
        self.network.heal();
        self.network.weather = Weather::CALM;
        self.stalled.clear();
        self.stopped.clear();
        self.climate = Climate::calm();
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.network.reset(id);
            let node = self.nodes.get_mut(&id).expect("a known node");
            if !node.is_up() {
                node.start();
            }
        }
    }

    /// A leader, new entries on all members, no joint configuration left, reads answered.
    pub fn demand_progress(&mut self) {
        let longest =
            self.nodes.values().map(|node| node.raft().last().index.0).max().unwrap_or_default();
        let limit_ticks = HEALING_TICKS + HEALING_TICKS_PER_ENTRY * longest;
        let mut asked: Option<(Term, Index)> = None;
        for _ in 0..limit_ticks {
            self.tick();
            let Some(leader) = self.settled_leader() else { continue };
            match asked {
                Some((term, index)) if term == leader.term => {
                    if self.all_have(&leader.membership, index) && self.clients.waiting_reads() == 0
                    {
                        return;
                    }
                }
                // What was asked of an earlier leader may be lost.
                Some(_) | None => asked = Some((leader.term, self.ask(leader.id))),
            }
        }
        let states: Vec<String> =
            self.nodes.values().map(|node| summary(&node.raft().status())).collect();
        panic!("no progress within {limit_ticks} ticks: {states:#?}");
    }

    /// New commands and a read. Returns where the commands end in the leader's log.
    fn ask(&mut self, leader: NodeId) -> Index {
        let commands = self.clients.commands(3);
        self.step(leader, commands);
        let read = self.clients.read(leader, self.invariants.committed.last());
        self.step(leader, read);
        self.nodes[&leader].raft().last().index
    }

    /// Nobody disturbs a leader that everybody hears, nor does a voter that was cut off from it and comes back.
    pub fn demand_stability(&mut self) {
        let leader = self.settled_leader().expect("a leader");
        self.expect_no_election(leader.term, QUIET_TICKS);
        let others = leader.membership.voters.iter().filter(|id| **id != leader.id);
        let spare = others.copied().next().filter(|_| leader.membership.voters.len() > 2);
        if let Some(spare) = spare {
            self.cut_off(spare);
            self.expect_no_election(leader.term, AWAY_TICKS);
            self.network.heal();
            self.expect_no_election(leader.term, AWAY_TICKS);
        }
    }

    fn expect_no_election(&mut self, term: Term, ticks: u64) {
        for _ in 0..ticks {
            self.tick();
        }
        let leader = self.settled_leader().expect("a leader stays");
        assert_eq!(leader.term, term, "somebody disturbed a healthy leader");
    }

    /// The leader of the newest term, once it has committed an entry of it, and neither a change nor a handover is under way.
    pub fn settled_leader(&self) -> Option<Status> {
        let statuses = self.nodes.values().map(|node| node.raft().status());
        let leader =
            statuses.filter(|status| status.leader_ready).max_by_key(|status| status.term)?;
        let is_changing = !leader.membership_committed || leader.membership.is_joint();
        (!is_changing && leader.transferring_to.is_none()).then_some(leader)
    }

    fn all_have(&self, membership: &Membership, index: Index) -> bool {
        membership.members().iter().all(|id| self.nodes[id].raft().ready_index() >= index)
    }
}

/// One line about a node, for the report of a failure.
fn summary(status: &Status) -> String {
    let ids = |ids: &BTreeSet<NodeId>| ids.iter().map(|id| id.0).collect::<Vec<_>>();
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
