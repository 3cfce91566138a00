//! What is committed stays as it is, and every node that reaches it finds the same.

use raft::consensus::{Entry, Index, LogId, Membership, Payload, RoleName, Term};
use raft::pipeline::ToCommits;
use raft::pipeline::digest_entries::EntriesActions;

use super::log_matching::{Written, digest_of};
use super::{Before, World, configurations_overlap};

/// Everything that was committed so far, in the order of the log.
#[derive(Debug, Default)]
pub struct Committed {
    entries: Vec<One>,
    newest_membership: Option<Membership>,
}

/// One entry.
#[derive(Clone, Debug)]
pub struct One {
    /// Term of the leader that made it.
    pub term: Term,
    /// What it holds.
    pub written: Written,
    /// Term of the leader that knew it first to be committed.
    pub committed_in: Term,
}

impl Committed {
    /// The newest.
    pub fn last(&self) -> Index {
        Index(self.entries.len() as u64)
    }

    /// An entry.
    pub fn get(&self, index: Index) -> Option<&One> {
        self.entries.get(usize::try_from(index.0.checked_sub(1)?).ok()?)
    }

    /// The newest configuration.
    pub fn newest_membership(&self) -> Option<&Membership> {
        self.newest_membership.as_ref()
    }

    /// Some of the newest, newest first.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = (Index, &One)> {
        let numbered = (1..).map(Index).zip(&self.entries);
        let skipped = self.entries.len().saturating_sub(count);
        numbered.skip(skipped)
    }

    /// An id that a snapshot names.
    pub fn check_id(&self, id: LogId) {
        let known = self.get(id.index).map(|one| one.term);
        assert_eq!(known, Some(id.term), "{id} is named as committed");
    }

    fn push(&mut self, one: One) {
        if let Some(membership) = &one.written.membership {
            if let Some(before) = &self.newest_membership {
                configurations_overlap::check(before, membership);
            }
            self.newest_membership = Some((**membership).clone());
        }
        self.entries.push(one);
    }
}

impl World {
    /// Whoever counts an entry as committed counts the one that everybody does.
    pub(super) fn check_committed(&mut self, slot: usize, before: &Before) {
        let Some(raft) = &self.slots[slot].raft else { return };
        let core = raft.entries.raft();
        let commit = core.commit_index();
        let led = before.role == RoleName::Leader;
        let committed_in = if led { before.hard_state.term } else { core.hard_state().term };
        for index in (before.commit_index.0 + 1..=commit.0).map(Index) {
            let Some(term) = core.term_at(index) else { continue };
            let id = LogId::new(term, index);
            if let Some(known) = self.invariants.committed.get(index) {
                assert_eq!(known.term, term, "slot {slot} commits another entry at {index}");
                continue;
            }
            let knew = core.role() == RoleName::Leader || before.role == RoleName::Leader;
            assert!(knew, "slot {slot} takes {id} for committed before a leader does");
            let written = self.invariants.logs.get(id).expect("it was written somewhere").clone();
            self.invariants.committed.push(One { term, written, committed_in });
        }
        if let Some(membership) = self.invariants.committed.newest_membership() {
            let places = &self.places;
            self.atlas.settle(membership, |node| places.contains_key(&node));
        }
    }

    /// What goes to the second stage is committed, and on this node's disk.
    pub(super) fn check_handed_on(&self, slot: usize, actions: &EntriesActions) {
        for message in &actions.to_commits {
            let ToCommits::Committed(batch) = message else { continue };
            for Entry { id, payload } in batch.iter().map(|committed| &committed.entry) {
                let known = self.invariants.committed.get(id.index);
                let known = known.map(|one| (one.term, one.written.digest));
                assert_eq!(known, Some((id.term, digest_of(payload))), "slot {slot} hands on {id}");
                let durable = self.slots[slot].holds(*id);
                assert!(durable, "slot {slot} hands on {id} before it is durable there");
            }
        }
    }

    /// The payload of a committed command; none for anything else.
    pub(super) fn command(payload: &Payload) -> Option<u64> {
        match payload {
            Payload::Command(bytes) => {
                bytes.get(raft::command::HEADER_BYTES..).map(super::super::trace::digest)
            }
            Payload::Noop | Payload::Membership(_) => None,
        }
    }
}
