//! Every state machine is fed the committed entries, in their order, and all come to the same state at the same entry.

use std::collections::BTreeMap;

use raft::consensus::{Index, Term};
use state_machine::entries::{EntryBlob, EntryKind};

use super::super::trace::digest;
use super::Committed;

/// Digests of the state, by applied index.
#[derive(Debug, Default)]
pub struct States(BTreeMap<u64, u64>);

impl States {
    pub(super) fn check(&mut self, slot: usize, (applied, digest): (u64, u64)) {
        let known = *self.0.entry(applied).or_insert(digest);
        assert_eq!(known, digest, "the machine in slot {slot} has another state at {applied}");
    }
}

pub(super) fn check_fed(committed: &Committed, slot: usize, first: Index, entries: &EntryBlob) {
    let entries = entries.decode().expect("a batch of raft's is well formed");
    for (index, entry) in (first.0..).map(Index).zip(&entries) {
        let known = committed.get(index).expect("only what is committed is fed");
        assert_eq!(known.term, Term(entry.header.term), "slot {slot} is fed another entry {index}");
        if entry.header.kind == EntryKind::Command {
            let command = Some(digest(&entry.command));
            assert_eq!(
                known.written.command, command,
                "slot {slot} is fed another command {index}"
            );
        }
    }
}
