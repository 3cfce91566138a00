//! What operators wish: that leadership moves, that a node leaves.

use raft::consensus::NodeId;
use raft::pipeline::digest_entries::EntriesEvent;
use raft::pipeline::handover::HandoverOutcome;
use raft::rpc::peer::LeaveAnswer;
use rand::RngExt;
use tokio::sync::oneshot;

use super::super::World;
use super::super::agenda::{MS, SECOND};
use super::super::callers::Whom;
use super::super::event::{Call, Event, Reply};

impl World {
    pub(super) fn fault_operator(&mut self) -> bool {
        let slot = self.likely_leader();
        let target = self.any();
        let target: NodeId = self.slots[target].node;
        match self.nemesis.rng.random_range(0..4) {
            0 => self.hand_over(slot, Some(target)),
            1 => self.hand_over(slot, None),
            2 => self.stand_for_election(slot),
            _ => {
                let slot = self.any();
                self.wish_to_leave(slot);
            }
        }
        true
    }

    fn hand_over(&mut self, slot: usize, target: Option<NodeId>) {
        let (reply, outcome) = oneshot::channel();
        let patience_ticks = self.plan.patience_ticks;
        self.hear(slot, EntriesEvent::HandOver { target, patience_ticks, reply });
        self.keep_handover(slot, outcome);
    }

    fn stand_for_election(&mut self, slot: usize) {
        let (reply, outcome) = oneshot::channel();
        let patience_ticks = self.plan.patience_ticks;
        self.hear(slot, EntriesEvent::Campaign { patience_ticks, reply });
        self.keep_handover(slot, outcome);
    }

    fn keep_handover(&mut self, slot: usize, outcome: oneshot::Receiver<HandoverOutcome>) {
        if let Some(raft) = &mut self.slots[slot].raft {
            raft.handovers.retain_mut(|handover| handover.try_recv().is_err());
            raft.handovers.push(outcome);
            raft.handovers.drain(..raft.handovers.len().saturating_sub(8));
        }
    }

    fn wish_to_leave(&mut self, slot: usize) {
        let process = self.raft_of(slot);
        if let Some(raft) = &mut self.slots[slot].raft
            && !std::mem::replace(&mut raft.leaves, true)
        {
            self.at(MS, Event::Leaving(process));
        }
    }

    /// A node that wants to leave asks, and asks again.
    pub fn ask_to_leave(&mut self, slot: usize) {
        let (process, node) = (self.raft_of(slot), self.slots[slot].node);
        if self.nemesis.stopped {
            return;
        }
        self.at(400 * MS, Event::Leaving(process));
        self.ask_leader(slot, Whom::Leaver, Call::Leave(node));
    }

    /// The leader's word on leaving: whoever is out ends, and its machine comes back as another node.
    pub fn hear_leave(&mut self, slot: usize, reply: &Reply) {
        if matches!(reply, Reply::Leave(LeaveAnswer::Out { .. })) && !self.slots[slot].is_over {
            self.coverage.count("nodes that left");
            self.slots[slot].is_over = true;
            self.end_raft(slot);
            self.call_member(slot, |swim, _| swim.leave());
            self.replace_later(slot, 3 * SECOND);
        }
    }
}
