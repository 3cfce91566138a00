//! Two logs that hold an entry with the same index and term hold the same entry there and the same one before it
//! (paper §5.3); and a leader never truncates its own log.

use std::collections::BTreeMap;
use std::hash::Hasher;

use raft::consensus::{Entry, LogId, Membership, Payload, RoleName, Term};
use raft::pipeline::digest_entries::EntriesActions;

use super::super::trace::{Fnv, digest};
use super::{Before, World};

/// What an entry holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// Of the payload.
    pub digest: u64,
    /// Of the machine's part of a command.
    pub command: Option<u64>,
    /// A configuration.
    pub membership: Option<Box<Membership>>,
}

/// Every entry that was ever written, with the term of the one before it.
#[derive(Debug, Default)]
pub struct Logs(BTreeMap<LogId, (Term, Written)>);

impl Logs {
    /// An entry.
    pub fn get(&self, id: LogId) -> Option<&Written> {
        self.0.get(&id).map(|(_, written)| written)
    }
}

/// The digest of a payload.
pub fn digest_of(payload: &Payload) -> u64 {
    match payload {
        Payload::Noop => 1,
        Payload::Command(bytes) => digest(bytes),
        Payload::Membership(membership) => {
            let mut hash = Fnv::default();
            for (mark, ids) in
                [(1, &membership.voters), (2, &membership.outgoing), (3, &membership.learners)]
            {
                hash.write_u64(mark);
                for id in ids {
                    hash.write_u64(id.0);
                }
            }
            hash.finish()
        }
    }
}

impl World {
    pub(super) fn check_logs(&mut self, slot: usize, before: &Before, actions: &EntriesActions) {
        let Some(raft) = &mut self.slots[slot].raft else { return };
        let core = raft.entries.raft();
        let leads_on = before.role == RoleName::Leader
            && core.role() == RoleName::Leader
            && before.hard_state.term == core.hard_state().term;
        let mut bases = actions.compact.iter().peekable();
        for (place, persist) in actions.persist.iter().enumerate() {
            while let Some((_, base)) = bases.next_if(|(after, _)| *after <= place) {
                raft.planned.compact(base);
            }
            if leads_on {
                assert_eq!(persist.truncate_from, None, "the leader in slot {slot} truncates");
            }
            let mut term_before = persist.append.first().map(|first| {
                let known = raft.planned.term_at(first.id.index.prev());
                known.expect("the entry before an append is known")
            });
            raft.planned.append(persist);
            for Entry { id, payload } in &persist.append {
                let membership = match payload {
                    Payload::Membership(membership) => Some(membership.clone()),
                    Payload::Noop | Payload::Command(_) => None,
                };
                let command = Self::command(payload);
                let written = Written { digest: digest_of(payload), command, membership };
                let written = (term_before.unwrap_or_default(), written);
                let known = self.invariants.logs.0.entry(*id).or_insert_with(|| written.clone());
                assert_eq!(*known, written, "slot {slot} writes another entry {id}");
                term_before = Some(id.term);
            }
        }
        bases.for_each(|(_, base)| raft.planned.compact(base));
    }
}
