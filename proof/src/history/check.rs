//! The verdict on a history.

use std::collections::BTreeMap;
use std::fmt;

use super::search::{Found, search};
use super::witness::witness;
use super::{Answer, Call, History, Key, Operation, Outcome};

/// How many states are looked at, over all keys, before a check gives up. One that needs operations of unknown outcome counts once
/// more for each kind of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub u64);

impl Default for Limit {
    /// Some seconds and less than a gigabyte; a history of ten thousand operations, a few of them unknown, needs some ten thousand.
    fn default() -> Self {
        Self(20_000_000)
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Each key's operations have an order that explains every answer.
    Linearizable,
    /// A key's operations have none.
    Violated(Violation),
    /// The limit was reached first. Never a pass.
    Undecided,
}

/// What no correct cluster could have shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where.
    pub key: Key,
    /// What is wrong.
    pub reason: String,
    /// The operations that show it, as few as could be found, in the order of their begin.
    pub operations: Vec<Operation>,
}

/// Whether a history is linearizable, each key being absent at first.
pub fn check(history: &History, limit: Limit) -> Verdict {
    let mut by_key: BTreeMap<&Key, Vec<&Operation>> = BTreeMap::new();
    for operation in history.operations() {
        by_key.entry(&operation.key).or_default().push(operation);
    }
    let mut budget = limit.0;
    let mut undecided = false;
    for (key, operations) in by_key {
        match search(&operations, &mut budget) {
            Found::Order => {}
            Found::OutOfBudget => undecided = true,
            Found::NoOrder { at } => {
                return Verdict::Violated(Violation {
                    key: key.clone(),
                    reason: "these operations have no order that explains their answers".to_owned(),
                    operations: witness(&operations, at),
                });
            }
        }
    }
    if undecided { Verdict::Undecided } else { Verdict::Linearizable }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}: {}", self.key, self.reason)?;
        self.operations.iter().try_for_each(|operation| write!(f, "\n  {operation}"))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, call, invoked, outcome, .. } = self;
        match outcome {
            Outcome::Ok { at, answer } => {
                write!(f, "{invoked}..{at} client {client}: {call} -> {answer}")
            }
            Outcome::Refused { at } => {
                write!(f, "{invoked}..{at} client {client}: {call} -> refused")
            }
            Outcome::Unknown => write!(f, "{invoked}.. client {client}: {call} -> unknown"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(value) => write!(f, "put {}", Text(value)),
            Self::Append(text) => write!(f, "append {}", Text(text)),
            Self::Increment => f.write_str("increment"),
            Self::CompareAndSet { expected, new } => {
                write!(f, "compare and set {} {}", Present(expected), Text(new))
            }
            Self::Delete => f.write_str("delete"),
            Self::Get => f.write_str("get"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied => f.write_str("applied"),
            Self::Value(value) => write!(f, "{}", Present(value)),
            Self::Number(number) => write!(f, "{number}"),
            Self::Length(bytes) => write!(f, "{bytes} bytes"),
            Self::Swapped => f.write_str("swapped"),
            Self::NotSwapped(value) => write!(f, "not swapped, {} is there", Present(value)),
            Self::Removed(true) => f.write_str("removed"),
            Self::Removed(false) => f.write_str("nothing was there"),
        }
    }
}

/// The ends of a long text are enough to know it by.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 24;
        let length = self.0.chars().count();
        if length <= 2 * SHOWN {
            return write!(f, "{:?}", self.0);
        }
        let first: String = self.0.chars().take(SHOWN).collect();
        let last: String = self.0.chars().skip(length - SHOWN).collect();
        write!(f, "{first:?}…{last:?} ({} bytes)", self.0.len())
    }
}

struct Present<'a>(&'a Option<String>);

impl fmt::Display for Present<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => Text(text).fmt(f),
            None => f.write_str("nothing"),
        }
    }
}
