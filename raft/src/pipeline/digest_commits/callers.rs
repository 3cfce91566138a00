//! Callers whose entries are committed, and who wait until the machine has applied them.

use std::collections::BTreeMap;

use super::super::pending::Waiting;
use super::super::{SubmitOutcome, SubmitRefused};
use super::history::{History, Source};
use crate::consensus::Index;
use crate::rpc::client::Outcome;

#[derive(Debug)]
struct Applying {
    waiting: Waiting,
    source: Source,
}

/// The callers, by the index of their entry.
#[derive(Debug, Default)]
pub(super) struct Callers {
    applying: BTreeMap<Index, Applying>,
}

impl Callers {
    pub(super) fn wait(&mut self, index: Index, waiting: Waiting, source: Source) {
        self.applying.insert(index, Applying { waiting, source });
    }

    /// The entry at `index` is applied, with this outcome.
    pub(super) fn applied(&mut self, index: Index, outcome: Outcome, history: &History) {
        if let Some(Applying { waiting, source }) = self.applying.remove(&index) {
            let own = source.first == index;
            let outcome = if own { outcome } else { history.result(source) };
            waiting.answer(Ok((source.first, outcome)));
        }
    }

    /// Everything up to `applied` is applied, and no answer of the machine is to come: the result is lost, unless it is
    /// kept, the effect is not.
    pub(super) fn overtaken(&mut self, applied: Index, history: &History) {
        let rest = self.applying.split_off(&applied.next());
        for (_, Applying { waiting, source }) in std::mem::replace(&mut self.applying, rest) {
            waiting.answer(Ok((source.first, history.result(source))));
        }
    }

    pub(super) fn expire(&mut self, now: u64) {
        let is_over = |_: &Index, applying: &mut Applying| applying.waiting.expires <= now;
        for (index, Applying { waiting, .. }) in self.applying.extract_if(.., is_over) {
            waiting.answer(Err(SubmitRefused::CommittedNotApplied { index }));
        }
    }
}

/// Answers a caller, if there is one.
pub(super) fn answer(waiting: Option<Waiting>, outcome: SubmitOutcome) {
    if let Some(waiting) = waiting {
        waiting.answer(outcome);
    }
}
