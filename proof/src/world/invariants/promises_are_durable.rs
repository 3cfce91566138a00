//! What is promised is on disk: votes and acknowledged entries when the answer leaves, and what a leader commits on a
//! majority of the disks of the configuration in force. The disks are asked, not the leader's view of them.

use std::collections::BTreeSet;

use raft::consensus::{
    AppendOutcome, Envelope, HardState, Index, LogId, Message, NodeId, RoleName,
};
use raft::pipeline::digest_entries::EntriesActions;

use super::{Before, World, configurations};

impl World {
    pub(super) fn check_commit(&mut self, slot: usize, before: &Before, actions: &EntriesActions) {
        let Some(raft) = &self.slots[slot].raft else { return };
        let core = raft.entries.raft();
        let (commit, term) = (core.commit_index(), core.hard_state().term);
        if commit == before.commit_index {
            return;
        }
        let led = before.role == RoleName::Leader && before.hard_state.term == term;
        if led && core.role() == RoleName::Leader {
            let id = LogId::new(term, commit);
            assert_eq!(core.term_at(commit), Some(term), "slot {slot} commits an older term");
            let configurations = configurations(before, actions);
            let decided = configurations.iter().any(|membership| {
                self.is_held(&membership.voters, id) && self.is_held(&membership.outgoing, id)
            });
            assert!(decided, "{id} is not on the disks of a majority of {configurations:?}");
        }
        self.check_committed(slot, before);
    }

    fn is_held(&self, voters: &BTreeSet<NodeId>, id: LogId) -> bool {
        let holds = |voter: &&NodeId| match self.places.get(voter) {
            Some(slot) => self.slots[*slot].holds(id),
            None => self.lost.get(voter).is_some_and(|lost| lost.held(id)),
        };
        voters.is_empty() || voters.iter().filter(holds).count() > voters.len() / 2
    }

    pub(super) fn check_promise(&self, slot: usize, envelope: &Envelope) {
        let shadow = &self.slots[slot].shadow;
        let last = shadow.last().index.max(self.slots[slot].snapshot.index);
        let on_disk = shadow.hard_state;
        let is_later = on_disk.term > envelope.term;
        match &envelope.body {
            Message::Vote(_) => {
                let own = HardState { term: envelope.term, vote: Some(envelope.from) };
                assert!(on_disk == own || is_later, "slot {slot} asks before its vote is durable");
            }
            Message::VoteResponse(response) if response.granted => {
                let given = HardState { term: envelope.term, vote: Some(envelope.to) };
                assert!(on_disk == given || is_later, "slot {slot} votes before that is durable");
            }
            Message::AppendResponse(response) => {
                if let AppendOutcome::Accepted { match_index } = response.outcome {
                    self.check_acknowledges(slot, envelope, match_index, last);
                }
            }
            Message::SnapshotResponse(response) => {
                if let Some(installed) = response.installed {
                    self.check_acknowledges(slot, envelope, installed.index, last);
                }
            }
            Message::VoteResponse(_)
            | Message::PreVote(_)
            | Message::PreVoteResponse(_)
            | Message::Append(_)
            | Message::InstallSnapshot(_)
            | Message::TimeoutNow => {}
        }
    }

    fn check_acknowledges(&self, slot: usize, envelope: &Envelope, upto: Index, last: Index) {
        let term = self.slots[slot].shadow.hard_state.term;
        assert!(
            term >= envelope.term,
            "slot {slot} acknowledges in term {} with {term} on disk",
            envelope.term
        );
        assert!(
            last >= upto || term > envelope.term,
            "slot {slot} acknowledges {upto} with entries up to {last} on disk"
        );
    }
}
