//! From a history without an order to the few operations that show it.

use super::search::{Found, search};
use super::{Answer, Call, Operation, Outcome};

/// For each try. A try that needs more is taken as one that failed: the witness stays larger, and true.
const STATES_PER_TRY: u64 = 1_000_000;
const TRIES: usize = 200;

/// The operations whose answers contradict each other; all others may be of unknown outcome, and there is still no order.
/// `at`: the search came no further than to its answer.
pub(super) fn witness(operations: &[&Operation], at: usize) -> Vec<Operation> {
    let forgotten: Vec<_> = operations.iter().copied().map(forgotten).collect();
    let mut weaker = Weaker::new(operations, &forgotten, at);
    weaker.forget();
    let mut shown: Vec<&Operation> = weaker.kept().collect();
    let seen = |text: &str| shown.iter().any(|operation| saw(operation, text));
    // What was refused has no part in an order; if its text was read, that is the news.
    let refused = operations.iter().copied().filter(|operation| {
        matches!(operation.outcome, Outcome::Refused { .. })
            && written(&operation.call).is_some_and(seen)
    });
    let refused: Vec<_> = refused.collect();
    shown.extend(refused);
    shown.sort_by_key(|operation| operation.invoked);
    shown.into_iter().cloned().collect()
}

/// A history of which some answers are forgotten.
struct Weaker<'a> {
    operations: &'a [&'a Operation],
    forgotten: &'a [Operation],
    /// Whose answers count.
    counts: Vec<bool>,
    tries: usize,
}

impl<'a> Weaker<'a> {
    fn new(operations: &'a [&'a Operation], forgotten: &'a [Operation], at: usize) -> Self {
        let counts = vec![true; operations.len()];
        let mut weaker = Self { operations, forgotten, counts, tries: 0 };
        if let Outcome::Ok { at: end, .. } = operations[at].outcome {
            // Mostly, what came later has no part in it.
            let later: Vec<_> =
                (0..operations.len()).filter(|at| !ends_by(operations[*at], end)).collect();
            weaker.try_without(&later);
        }
        weaker
    }

    fn kept(&self) -> impl Iterator<Item = &'a Operation> {
        let kept = self.operations.iter().zip(&self.counts).filter(|(_, counts)| **counts);
        kept.map(|(operation, _)| *operation).filter(|operation| is_answered(operation))
    }

    /// Forgets many at once, and then fewer.
    fn forget(&mut self) {
        let mut answered: Vec<usize> = (0..self.operations.len())
            .filter(|&at| self.counts[at] && is_answered(self.operations[at]))
            .collect();
        answered.sort_by_key(|at| self.operations[*at].invoked);
        let mut chunk = answered.len().div_ceil(2);
        while chunk > 0 {
            for some in answered.chunks(chunk) {
                self.try_without(some);
            }
            answered.retain(|at| self.counts[*at]);
            chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
        }
    }

    fn try_without(&mut self, some: &[usize]) {
        if self.tries == TRIES {
            return;
        }
        self.tries += 1;
        self.count(some, false);
        if !self.has_no_order() {
            self.count(some, true);
        }
    }

    fn count(&mut self, some: &[usize], counts: bool) {
        for at in some {
            self.counts[*at] = counts;
        }
    }

    fn has_no_order(&self) -> bool {
        let pairs = self.operations.iter().zip(self.forgotten).zip(&self.counts);
        let view: Vec<&Operation> = pairs
            .map(|((&operation, forgotten), counts)| if *counts { operation } else { forgotten })
            .collect();
        matches!(search(&view, &mut STATES_PER_TRY.clone()), Found::NoOrder { .. })
    }
}

fn is_answered(operation: &Operation) -> bool {
    matches!(operation.outcome, Outcome::Ok { .. })
}

fn ends_by(operation: &Operation, end: u64) -> bool {
    match operation.outcome {
        Outcome::Ok { at, .. } => at <= end,
        Outcome::Refused { .. } | Outcome::Unknown => true,
    }
}

fn forgotten(operation: &Operation) -> Operation {
    let outcome = match &operation.outcome {
        Outcome::Ok { .. } | Outcome::Unknown => Outcome::Unknown,
        refused @ Outcome::Refused { .. } => refused.clone(),
    };
    let Operation { client, key, call, invoked, .. } = operation;
    Operation { client: *client, key: key.clone(), call: call.clone(), invoked: *invoked, outcome }
}

fn written(call: &Call) -> Option<&str> {
    match call {
        Call::Put(text) | Call::Append(text) | Call::CompareAndSet { new: text, .. } => Some(text),
        Call::Increment | Call::Delete | Call::Get => None,
    }
}

fn saw(operation: &Operation, text: &str) -> bool {
    match &operation.outcome {
        Outcome::Ok {
            answer: Answer::Value(Some(value)) | Answer::NotSwapped(Some(value)),
            ..
        } => value.contains(text),
        Outcome::Ok { .. } | Outcome::Refused { .. } | Outcome::Unknown => false,
    }
}
