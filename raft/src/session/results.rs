//! The budget of kept results: which are kept, by age, and how many bytes they are. The results themselves stand with
//! their commands.

use std::collections::BTreeMap;

use super::Name;
use crate::consensus::Index;
use crate::rpc::client::Outcome;

/// Names of the commands whose results are kept, by their place in the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Results {
    by_age: BTreeMap<Index, Name>,
    bytes: usize,
}

impl Results {
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, index: Index, name: Name, outcome: &Outcome) {
        self.bytes += weight_bytes(outcome);
        self.by_age.insert(index, name);
    }

    pub(super) fn forget(&mut self, index: Index, outcome: &Outcome) {
        self.bytes -= weight_bytes(outcome);
        self.by_age.remove(&index);
    }

    /// The oldest, while there are more bytes than `limit_bytes`.
    pub(super) fn oldest_beyond(&self, limit_bytes: usize) -> Option<Name> {
        let (_, name) = self.by_age.first_key_value().filter(|_| self.bytes > limit_bytes)?;
        Some(*name)
    }
}

fn weight_bytes(outcome: &Outcome) -> usize {
    const OVERHEAD_BYTES: usize = 64;
    OVERHEAD_BYTES
        + match outcome {
            Outcome::Done(result) | Outcome::Refused(result) => result.len(),
            Outcome::AlreadyApplied => 0,
        }
}
