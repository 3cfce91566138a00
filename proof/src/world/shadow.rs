//! What is on a node's disk, as the world knows it from what it saw synced: asked instead of any node's own view.

use std::collections::VecDeque;

use raft::consensus::{HardState, Index, LogId, Persist, Restored, SnapshotMeta, Term};

/// A log without its payloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shadow {
    /// Term and vote.
    pub hard_state: HardState,
    base: LogId,
    terms: VecDeque<Term>,
}

/// What was on a disk when it was taken away: acknowledgements of it may still be on their way.
#[derive(Clone, Debug)]
pub struct Lost {
    /// The log.
    pub log: Shadow,
    /// Where its newest snapshot ended.
    pub snapshot: LogId,
}

impl Lost {
    /// Whether an entry was there.
    pub fn held(&self, id: LogId) -> bool {
        self.log.holds(id) || id.index <= self.snapshot.index
    }
}

impl Shadow {
    /// What a process found when it started.
    pub fn of(restored: &Restored) -> Self {
        let base = restored.base.as_ref().map_or(LogId::default(), |base| base.last);
        let mut terms = VecDeque::new();
        let mut runs = restored.terms.iter().peekable();
        while let Some((first, term)) = runs.next() {
            let first = first.0.max(base.index.0 + 1);
            let end = runs.peek().map_or(restored.last.index.0 + 1, |(next, _)| next.0);
            terms.extend((first..end).map(|_| *term));
        }
        Self { hard_state: restored.hard_state, base, terms }
    }

    /// End of the log.
    pub fn last(&self) -> LogId {
        match self.terms.back() {
            Some(term) => LogId::new(*term, Index(self.base.index.0 + self.terms.len() as u64)),
            None => self.base,
        }
    }

    /// Term of an entry that is there, or that the log begins after.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        let at = index.0.checked_sub(self.base.index.0 + 1)?;
        self.terms.get(usize::try_from(at).ok()?).copied()
    }

    /// Whether the entry is there, or in the snapshot that the log goes on from.
    pub fn holds(&self, id: LogId) -> bool {
        id.index < self.base.index || self.term_at(id.index) == Some(id.term)
    }

    /// Whether both say the same, as far as both go: one may have been compacted further.
    pub fn is_same(&self, other: &Self) -> bool {
        let first = self.base.index.max(other.base.index);
        self.hard_state == other.hard_state
            && self.last() == other.last()
            && (first.0..=self.last().index.0)
                .all(|index| self.term_at(Index(index)) == other.term_at(Index(index)))
    }

    /// A batch is durable.
    pub fn append(&mut self, persist: &Persist) {
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        let first = persist.append.first().map(|entry| entry.id.index);
        if let Some(from) = persist.truncate_from.or(first) {
            let kept = from.0.saturating_sub(self.base.index.0 + 1);
            self.terms.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        }
        self.terms.extend(persist.append.iter().map(|entry| entry.id.term));
    }

    /// The log begins after this entry.
    pub fn compact(&mut self, base: &SnapshotMeta) {
        let last = base.last;
        if last.index <= self.base.index {
            return;
        }
        if self.term_at(last.index) == Some(last.term) {
            let gone = usize::try_from(last.index.0 - self.base.index.0).unwrap_or(usize::MAX);
            self.terms.drain(..gone);
        } else {
            self.terms.clear();
        }
        self.base = last;
    }
}
