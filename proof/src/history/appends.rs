//! Exactly-once, seen in lists: every client appends pieces that nobody else appends, and in the end each list is read.
//!
//! This says less than linearizability, and says it without a search: which piece is lost, doubled, out of place, or there although it was refused.

use std::collections::{BTreeMap, HashMap};

use super::{Call, History, Key, Operation, Outcome, Violation};

/// Every appended text ends with it, and has it nowhere else.
pub const PIECE_END: char = ';';

/// Whether each list is what its appends made it: every acknowledged piece once, none twice, none that was refused or that nobody
/// appended, and what was over before another one began stands before it.
///
/// `finals` has the last value of each key that is to be checked, an absent one as the empty text. Keys that were changed by anything but
/// appends are passed over.
///
/// # Errors
/// The first thing that is wrong.
///
/// # Panics
/// If an appended text is not one piece, or two operations append the same one: the history could not show a doubled one.
pub fn check_appends(history: &History, finals: &BTreeMap<Key, String>) -> Result<(), Violation> {
    finals.iter().try_for_each(|(key, value)| {
        let on_key: Vec<_> =
            history.operations().iter().filter(|operation| operation.key == *key).collect();
        if on_key.iter().all(|operation| matches!(operation.call, Call::Append(_) | Call::Get)) {
            check_list(key, &on_key, value)
        } else {
            Ok(())
        }
    })
}

fn check_list(key: &Key, operations: &[&Operation], value: &str) -> Result<(), Violation> {
    let violation = |reason: String, operations: &[&Operation]| Violation {
        key: key.clone(),
        reason,
        operations: operations.iter().map(|&operation| operation.clone()).collect(),
    };
    let appended = by_piece(operations);
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut listed: Vec<&Operation> = Vec::new();
    for (place, piece) in value.split_inclusive(PIECE_END).enumerate() {
        let Some(&operation) = appended.get(piece) else {
            return Err(violation(format!("nobody appended {piece:?}, which is there"), &[]));
        };
        if matches!(operation.outcome, Outcome::Refused { .. }) {
            return Err(violation(format!("{piece:?} was refused and is there"), &[operation]));
        }
        if let Some(first) = places.insert(piece, place) {
            let reason = format!("{piece:?} is there twice, in places {first} and {place}");
            return Err(violation(reason, &[operation]));
        }
        listed.push(operation);
    }
    for operation in operations {
        if let (Call::Append(piece), Outcome::Ok { .. }) = (&operation.call, &operation.outcome)
            && !places.contains_key(piece.as_str())
        {
            return Err(violation(format!("{piece:?} was acknowledged and is lost"), &[operation]));
        }
    }
    out_of_order(&listed).map_or(Ok(()), |(first, second)| {
        let reason = "the first was over before the second began, and stands behind it".to_owned();
        Err(violation(reason, &[first, second]))
    })
}

fn by_piece<'a>(operations: &[&'a Operation]) -> HashMap<&'a str, &'a Operation> {
    let mut appended = HashMap::new();
    for &operation in operations {
        if let Call::Append(piece) = &operation.call {
            let is_one_piece = piece.find(PIECE_END) == Some(piece.len() - PIECE_END.len_utf8());
            assert!(is_one_piece, "{piece:?} is not one piece");
            let twice = appended.insert(piece.as_str(), operation);
            assert!(twice.is_none(), "{piece:?} was asked for twice");
        }
    }
    appended
}

/// Two of a list of which the first in time stands behind.
fn out_of_order<'a>(listed: &[&'a Operation]) -> Option<(&'a Operation, &'a Operation)> {
    let mut earliest_end: Option<(u64, &Operation)> = None;
    for &operation in listed.iter().rev() {
        if let Some((end, behind)) = earliest_end
            && end < operation.invoked
        {
            return Some((behind, operation));
        }
        if let Outcome::Ok { at, .. } = operation.outcome
            && earliest_end.is_none_or(|(end, _)| at < end)
        {
            earliest_end = Some((at, operation));
        }
    }
    None
}
