//! What clients saw of a cluster, and whether one register per key, one operation at a time, could have shown it to them.
//!
//! | module | what it knows |
//! |---|---|
//! | here | operations and their outcomes |
//! | `check` | the verdict on a whole history; what a violation says |
//! | `search` | the orders of one key's operations that are still possible |
//! | `step`, `value` | what one operation does to one key; a value in a few words of memory |
//! | `witness` | from a violation to the few operations that show it |
//! | `appends` | exactly-once: each acknowledged piece of a list, once, in its place |
//! | `lines` | histories as files |

mod appends;
mod check;
mod lines;
mod search;
mod step;
mod value;
mod witness;

use serde::{Deserialize, Serialize};

pub use appends::{PIECE_END, check_appends};
pub use check::{Limit, Verdict, Violation, check};

/// What an operation is about. Keys are independent of each other.
pub type Key = String;

/// One operation as its client saw it. Times are of any monotonic clock that all clients of the history share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who did it. A client may have several under way.
    pub client: u64,
    /// On what.
    pub key: Key,
    /// What was wanted.
    pub call: Call,
    /// When it began.
    pub invoked: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What was wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Call {
    /// Set to this.
    Put(String),
    /// Put this behind what is there; an absent key counts as empty.
    Append(String),
    /// Add 1; an absent key counts as 0.
    Increment,
    /// Set if the present value is the expected one.
    CompareAndSet {
        /// What must be there; none = nothing.
        expected: Option<String>,
        /// What to set.
        new: String,
    },
    /// Remove.
    Delete,
    /// Read.
    Get,
}

/// What a client knows of its operation in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It happened, once, before this time.
    Ok {
        /// When the answer was there.
        at: u64,
        /// The answer.
        answer: Answer,
    },
    /// It did not happen and never will.
    Refused {
        /// When that was known.
        at: u64,
    },
    /// It may have happened, or may still, at any time from its begin on, but only once.
    Unknown,
}

/// What the machine said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To any call: it was applied, and no more is known.
    Applied,
    /// To a get: what was there.
    Value(Option<String>),
    /// To an increment: the new number.
    Number(i64),
    /// To an append: the new length in bytes.
    Length(u64),
    /// To a compare-and-set: what was expected was there.
    Swapped,
    /// To a compare-and-set: something else was there.
    NotSwapped(Option<String>),
    /// To a delete: whether there was something.
    Removed(bool),
}

/// All that the clients of one run saw, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    operations: Vec<Operation>,
}

impl History {
    /// One more.
    pub fn push(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// All of them.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// How many came to which end.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for operation in &self.operations {
            match operation.outcome {
                Outcome::Ok { .. } => tally.answered += 1,
                Outcome::Refused { .. } => tally.refused += 1,
                Outcome::Unknown => tally.unknown += 1,
            }
        }
        tally
    }
}

impl FromIterator<Operation> for History {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        Self { operations: operations.into_iter().collect() }
    }
}

/// How many operations came to which end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// They happened.
    pub answered: usize,
    /// They did not.
    pub refused: usize,
    /// Nobody knows.
    pub unknown: usize,
}
