//! Snapshots in the first stage: ours, the leader's, and the state machine that needs one.

use super::super::ToCommits;
use super::{DigestEntries, EntriesActions};
use crate::consensus::{Index, Input, LogId, NodeId, RoleName, SnapshotMeta};
use crate::rpc::peer::TurnRequest;
use crate::session::Image;

impl DigestEntries {
    /// The log has said what may go now that a snapshot of our own is durable.
    pub(super) fn hold_snapshot(&mut self, compact_to: Index, actions: &mut EntriesActions) {
        // Another one may be taken before the log has answered for both.
        if let Some(meta) = self.taken.clone() {
            self.step(Input::SnapshotTaken { meta, compact_to }, actions);
        }
    }

    /// Whether it is this node's turn to take a snapshot; only a leader knows.
    pub(super) fn take_turns(
        &mut self,
        node: NodeId,
        request: TurnRequest,
    ) -> Result<bool, Option<NodeId>> {
        let status = self.raft().status();
        match status.role {
            RoleName::Leader => {
                let office = (status.id, status.term);
                Ok(self.turns.ask(office, (node, request), self.now, self.turn_ticks))
            }
            RoleName::Follower | RoleName::PreCandidate | RoleName::Candidate => Err(status.leader),
        }
    }

    /// A snapshot from the leader is durable. The core may have no use for it.
    ///
    /// # Panics
    /// When the table does not cover the snapshot: whoever received it has to look ([`Image::covers`]).
    pub(super) fn receive_snapshot(
        &mut self,
        meta: SnapshotMeta,
        image: Box<Image>,
        actions: &mut EntriesActions,
    ) {
        assert!(image.covers(&meta), "a session table is as new as its snapshot");
        self.received = Some(image);
        self.step(Input::SnapshotReceived(meta), actions);
        self.received = None;
    }

    /// Decides what a state machine that has applied `applied` gets: entries from the log, a snapshot, or nothing.
    pub(super) fn take_on(&mut self, attachment: u64, applied: LogId, from: Index) -> ToCommits {
        if let Some(reason) = self.objection(applied) {
            return ToCommits::MachineRefused { attachment, reason };
        }
        let first = self.raft().first_index();
        if applied.index.next() < first
            && let Some(snapshot) = self.raft().snapshot().cloned()
        {
            return ToCommits::MachineBehind { attachment, snapshot };
        }
        // The second stage may have asked before it heard of a snapshot that holds what it lacks.
        self.feed.restart(from.max(first));
        ToCommits::FeedStarted { attachment }
    }

    /// What was asked for may have been replaced by a snapshot meanwhile: then nobody waits for it.
    ///
    /// # Panics
    /// When somebody does: the log lacks what it said it holds.
    pub(super) fn miss(&mut self, generation: u64) {
        let needed = self.feed.end_fetch(generation);
        assert!(!needed, "the feed goes on from where the log begins");
    }

    /// A snapshot from the leader has replaced the log: goes on right after it, with the session table that it brought.
    pub(super) fn install(&mut self, meta: SnapshotMeta, actions: &mut EntriesActions) {
        let image = self.received.take().expect("the core installs what was received in this step");
        self.time_ms = self.time_ms.max(image.time_ms());
        self.feed.restart(meta.last.index.next());
        let callers = self.pending.take_replaced(meta.last.index);
        actions.weigh_after = Some(meta.last.index);
        actions.to_commits.push(ToCommits::Install { meta, image, callers });
    }

    /// The log begins after `base` now. A machine that went back while the snapshot was made may lack what is dropped; the
    /// second stage, which has seen it, finds that out.
    pub(super) fn note_base(&mut self, base: SnapshotMeta, actions: &mut EntriesActions) {
        self.feed.skip_to(base.last.index.next());
        actions.to_commits.push(ToCommits::Compacted(base.last.index));
        actions.compact.push((actions.persist.len(), base));
    }

    /// Why a state machine that has applied `applied` cannot belong to this log. Only durable entries are ever applied, so
    /// one that is beyond our log, or holds another entry than ours, was fed from another log.
    fn objection(&self, applied: LogId) -> Option<String> {
        let last = self.raft().last();
        if applied.index > last.index {
            return Some(format!(
                "it has applied entry {} and our log ends at {}: it was fed from another log; give each raft its own state machine, or empty the machine's directory to have it rebuilt",
                applied.index, last.index
            ));
        }
        let term = self.raft().term_at(applied.index).filter(|_| applied.index.0 > 0)?;
        (term != applied.term).then(|| {
            format!(
                "its entry {} is of term {}, ours of term {term}: it was fed from another log; empty the machine's directory to have it rebuilt",
                applied.index, applied.term
            )
        })
    }
}
