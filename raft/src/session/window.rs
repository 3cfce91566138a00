//! One session: when it was used last, and the commands of its window.

use std::collections::BTreeMap;

use super::Verdict;
use crate::consensus::Index;
use crate::rpc::client::{Outcome, SESSION_WINDOW};

/// An open session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// The entry that used it last.
    pub(super) last_used: Index,
    /// Log time of that entry.
    pub(super) last_used_ms: u64,
    /// How long it lives unused, in log time.
    pub(super) ttl_ms: u64,
    pub(super) acked_below: u64,
    /// The commands that are not acknowledged yet, by their number.
    pub(super) applied: BTreeMap<u64, Applied>,
}

/// A command that the session remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    /// Where it stands.
    pub(super) index: Index,
    /// The machine's word; none when it is not known (yet), or no longer kept.
    pub(super) result: Option<Outcome>,
}

impl Session {
    pub(super) fn open(index: Index, time_ms: u64, ttl_ms: u64) -> Self {
        let applied = BTreeMap::new();
        Self { last_used: index, last_used_ms: time_ms, ttl_ms, acked_below: 0, applied }
    }

    /// The last moment of log time at which it may be used.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.last_used_ms.saturating_add(self.ttl_ms)
    }

    /// Forgets what the client declared answered, and returns it.
    pub(super) fn acknowledge(&mut self, acked_below: u64) -> Vec<Applied> {
        if acked_below <= self.acked_below {
            return Vec::new();
        }
        self.acked_below = acked_below;
        let open = self.applied.split_off(&acked_below);
        std::mem::replace(&mut self.applied, open).into_values().collect()
    }

    pub(super) fn judge(&mut self, index: Index, sequence: u64) -> Verdict {
        if let Some(Applied { index: first, .. }) = self.applied.get(&sequence) {
            return Verdict::Duplicate { first: *first };
        }
        if sequence < self.acked_below {
            return Verdict::AlreadyAcknowledged;
        }
        if sequence - self.acked_below >= SESSION_WINDOW {
            return Verdict::OutsideWindow;
        }
        self.applied.insert(sequence, Applied { index, result: None });
        Verdict::Apply
    }
}
