//! Callers that wait for their entry: keyed by log id, because an index alone could name an entry that replaced theirs.

use std::collections::BTreeMap;

use crate::consensus::{Index, LogId, NodeId, Term};

use super::{Reply, SubmitOutcome, SubmitRefused, Ticket};
use crate::session::Name;

/// A caller and how long it waits.
#[derive(Debug)]
pub struct Waiting {
    /// Whom to answer.
    pub reply: Reply<SubmitOutcome>,
    /// Tick at which it is told that nothing is known.
    pub expires: u64,
    /// Counts it as waiting until it is answered.
    pub ticket: Ticket,
    /// What its command is known by in the session table.
    pub name: Option<Name>,
}

impl Waiting {
    /// Answers. A caller that is gone by now does not mind.
    pub fn answer(self, outcome: SubmitOutcome) {
        drop(self.reply.send(outcome));
    }
}

/// The table of waiting callers of entries that are in the log, but not yet handed on as committed.
#[derive(Debug, Default)]
pub struct Pending {
    by_place: BTreeMap<(Index, Term), Waiting>,
}

impl Pending {
    /// The entry `id` is in the log, not committed yet.
    pub fn insert(&mut self, id: LogId, waiting: Waiting) {
        self.by_place.insert((id.index, id.term), waiting);
    }

    /// The entry `id` is committed: its caller goes along with it. A caller whose entry stood at the same index in
    /// another term is told that it was surely not applied: that index is taken for ever.
    pub fn take_committed(&mut self, id: LogId, leader: Option<NodeId>) -> Option<Waiting> {
        let mut own = None;
        while let Some(first) = self.by_place.first_entry()
            && first.key().0 <= id.index
        {
            let ((index, term), waiting) = first.remove_entry();
            if (index, term) == (id.index, id.term) {
                own = Some(waiting);
            } else if index == id.index {
                waiting.answer(Err(SubmitRefused::NotLeader { leader }));
            } else {
                // Only a machine that is ahead of a snapshot from the leader lets indexes be skipped.
                let reason = "replaced by a snapshot from the leader".to_owned();
                waiting.answer(Err(SubmitRefused::Unknown { reason }));
            }
        }
        own
    }

    /// A snapshot stands in the place of the entries up to `last`: takes out their callers.
    pub fn take_replaced(&mut self, last: Index) -> Vec<Waiting> {
        let rest = self.by_place.split_off(&(last.next(), Term::default()));
        std::mem::replace(&mut self.by_place, rest).into_values().collect()
    }

    /// Tells every caller whose time is up what is known: `committed` says whether an entry is in the log for good.
    pub fn expire(&mut self, now: u64, committed: impl Fn(LogId) -> bool) {
        let expired = self.by_place.extract_if(.., |_, waiting| waiting.expires <= now);
        for ((index, term), waiting) in expired {
            waiting.answer(Err(if committed(LogId::new(term, index)) {
                SubmitRefused::CommittedNotApplied { index }
            } else {
                SubmitRefused::Unknown { reason: "not committed in time".to_owned() }
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn id(index: u64, term: u64) -> LogId {
        LogId::new(Term(term), Index(index))
    }

    fn waiting(expires: u64) -> (Waiting, oneshot::Receiver<SubmitOutcome>) {
        let (reply, answer) = oneshot::channel();
        (Waiting { reply, expires, ticket: Ticket::default(), name: None }, answer)
    }

    #[test]
    fn caller_goes_along_with_exactly_its_entry() {
        let mut pending = Pending::default();
        let (old, mut old_answer) = waiting(9);
        let (new, _new_answer) = waiting(9);
        pending.insert(id(5, 1), old);
        pending.insert(id(5, 3), new);
        assert!(pending.take_committed(id(5, 3), Some(NodeId(7))).is_some());
        let refused = old_answer.try_recv().unwrap();
        assert_eq!(refused, Err(SubmitRefused::NotLeader { leader: Some(NodeId(7)) }));
        assert!(pending.by_place.is_empty());
    }

    #[test]
    fn skipped_index_is_unknown_not_refused() {
        let mut pending = Pending::default();
        let (skipped, mut answer) = waiting(9);
        pending.insert(id(4, 1), skipped);
        assert!(pending.take_committed(id(6, 2), None).is_none());
        assert!(matches!(answer.try_recv().unwrap(), Err(SubmitRefused::Unknown { .. })));
    }

    #[test]
    fn callers_of_replaced_entries_are_taken_out_and_the_others_stay() {
        let mut pending = Pending::default();
        let mut answers = Vec::new();
        for index in [4, 6, 7] {
            let (replaced, answer) = waiting(index);
            pending.insert(id(index, 1), replaced);
            answers.push(answer);
        }
        let expiries = |taken: Vec<Waiting>| taken.iter().map(|w| w.expires).collect::<Vec<_>>();
        assert_eq!(expiries(pending.take_replaced(Index(6))), [4, 6]);
        assert_eq!(expiries(pending.take_replaced(Index(6))), [] as [u64; 0]);
        assert!(pending.take_committed(id(7, 1), None).is_some());
    }

    #[test]
    fn time_is_up_for_those_whose_time_is_up() {
        let mut pending = Pending::default();
        let (early, mut early_answer) = waiting(3);
        let (committed, mut committed_answer) = waiting(3);
        let (late, mut late_answer) = waiting(4);
        pending.insert(id(1, 1), committed);
        pending.insert(id(2, 1), early);
        pending.insert(id(3, 1), late);
        pending.expire(3, |id| id.index == Index(1));
        assert!(matches!(early_answer.try_recv().unwrap(), Err(SubmitRefused::Unknown { .. })));
        assert_eq!(
            committed_answer.try_recv().unwrap(),
            Err(SubmitRefused::CommittedNotApplied { index: Index(1) })
        );
        assert!(late_answer.try_recv().is_err());
    }
}
