//! From a history without an order to the few operations that show it.

use super::search::{Found, search};
use super::{Answer, Call, Operation, Outcome};

/// For each try. A try that needs more is taken as one that failed: the witness stays larger, and true.
const STATES_PER_TRY: u64 = 100_000;
const TRIES: usize = 400;

/// The operations whose answers contradict each other; all others may be of unknown outcome, and there is still no order.
/// `at`: whose answer was the first that fits nowhere.
pub(super) fn witness(operations: &[&Operation], at: usize) -> Vec<Operation> {
    let weaker = weakest(operations, at);
    let mut shown: Vec<_> =
        weaker.iter().filter(|operation| is_answered(operation)).cloned().collect();
    let seen = |text: &str| shown.iter().any(|operation| saw(operation, text));
    // What was refused has no part in an order; if its text was read, that is the news.
    let refused = operations.iter().filter(|operation| {
        matches!(operation.outcome, Outcome::Refused { .. })
            && written(&operation.call).is_some_and(seen)
    });
    let refused: Vec<_> = refused.map(|&operation| operation.clone()).collect();
    shown.extend(refused);
    shown.sort_by_key(|operation| operation.invoked);
    shown
}

/// Forgets answers, many at once and then fewer, as long as there is no order without them.
fn weakest(operations: &[&Operation], at: usize) -> Vec<Operation> {
    let Outcome::Ok { at: end, .. } = operations[at].outcome else { return Vec::new() };
    let mut kept: Vec<Operation> = operations
        .iter()
        .filter(|operation| operation.invoked <= end)
        .map(
            |operation| {
                if ends_by(operation, end) { (*operation).clone() } else { forgotten(operation) }
            },
        )
        .collect();
    kept.sort_by_key(|operation| operation.invoked);
    let mut tries = 0;
    let mut chunk = kept.len().div_ceil(2);
    loop {
        let mut begin = 0;
        while begin < kept.len() && tries < TRIES {
            let end = (begin + chunk).min(kept.len());
            if kept[begin..end].iter().any(is_answered) {
                let mut fewer = kept.clone();
                for operation in &mut fewer[begin..end] {
                    *operation = forgotten(operation);
                }
                tries += 1;
                if has_no_order(&fewer) {
                    kept = fewer;
                }
            }
            begin = end;
        }
        if chunk <= 1 || tries == TRIES {
            return kept;
        }
        chunk = chunk.div_ceil(2);
    }
}

fn has_no_order(operations: &[Operation]) -> bool {
    let operations: Vec<_> = operations.iter().collect();
    matches!(search(&operations, &mut STATES_PER_TRY.clone()), Found::NoOrder { .. })
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
    Operation { outcome, ..operation.clone() }
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
