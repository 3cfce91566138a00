//! The log as the core knows it: the term of every entry since its base, and the payloads of the newest ones.
//!
//! Terms are kept as runs (elections are rare), payloads in a cache of bounded size; older payloads are on disk and come
//! by `Output::fetch`. Writing is the caller's: this type only answers "what does the log say".

use std::collections::VecDeque;

use super::types::{Entry, Index, LogId, Term};

/// Consecutive entries of one term, from `first` to the next run or the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: Index,
    term: Term,
}

/// The log after `base`, which is the last entry that was dropped (or zero); the newest snapshot includes at least that.
///
/// Invariant: `base.index ≤ last.index`; runs ascend in index and term and start at `base.index + 1`; the cache holds
/// consecutive entries and ends at `last`.
#[derive(Clone, Debug)]
pub(super) struct Log {
    base: LogId,
    last: LogId,
    runs: VecDeque<Run>,
    cache: VecDeque<Entry>,
    cache_bytes: usize,
}

impl Log {
    /// An empty log after `base`.
    pub(super) fn new(base: LogId) -> Self {
        Self { base, last: base, runs: VecDeque::new(), cache: VecDeque::new(), cache_bytes: 0 }
    }

    /// The log as it was found on disk. `terms` are its runs, `tail` its newest entries.
    ///
    /// # Panics
    /// When the parts contradict each other: whoever read the disk is wrong.
    pub(super) fn restore(
        base: LogId,
        terms: &[(Index, Term)],
        last: LogId,
        tail: Vec<Entry>,
    ) -> Self {
        let runs: VecDeque<Run> = terms.iter().map(|&(first, term)| Run { first, term }).collect();
        let mut log = Self { last, runs, ..Self::new(base) };
        assert!(log.last.index >= base.index, "the log ends before its base");
        assert_eq!(
            log.runs.is_empty(),
            last == base,
            "a log has terms exactly when it has entries"
        );
        assert!(
            log.runs.front().is_none_or(|run| run.first == base.index.next()),
            "the log starts after its base"
        );
        assert!(log.runs_ascend(), "terms ascend along the log");
        assert_eq!(
            log.term_at(last.index),
            Some(last.term),
            "the last run has the last entry's term"
        );
        if tail.last().is_some_and(|entry| entry.id == last) {
            log.cache_bytes = tail.iter().map(Entry::weight_bytes).sum();
            log.cache = tail.into();
        }
        log
    }

    /// The entry before the first, or zero.
    pub(super) fn base(&self) -> LogId {
        self.base
    }

    pub(super) fn last(&self) -> LogId {
        self.last
    }

    /// The id at `index`, if the log still knows it (from `base` to `last`).
    pub(super) fn id_at(&self, index: Index) -> Option<LogId> {
        self.term_at(index).map(|term| LogId { term, index })
    }

    /// The term at `index`, if the log still knows it (from `base` to `last`).
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last.index {
            return None;
        }
        self.run_of(index).map(|run| run.term)
    }

    pub(super) fn contains(&self, id: LogId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// First index of the run of equal terms that `index` belongs to; `base` is a run of its own.
    pub(super) fn run_start(&self, index: Index) -> Index {
        self.run_of(index).map_or(self.base.index, |run| run.first)
    }

    /// The last entry at or below `upper` whose term is at most `term`, not below `base`.
    pub(super) fn last_with_term_at_most(&self, term: Term, upper: Index) -> Option<LogId> {
        let mut index = upper.min(self.last.index);
        while index > self.base.index {
            let run = self.run_of(index)?;
            if run.term <= term {
                return Some(LogId { term: run.term, index });
            }
            index = run.first.prev();
        }
        (index == self.base.index && self.base.term <= term).then_some(self.base)
    }

    /// Adds one entry at the end.
    ///
    /// # Panics
    /// When it does not follow the last one: everything that enters was checked before.
    pub(super) fn append(&mut self, entry: Entry) {
        assert_eq!(entry.id.index, self.last.index.next(), "entries are appended without gaps");
        assert!(entry.id.term >= self.last.term, "terms never fall along the log");
        if self.runs.back().is_none_or(|run| run.term != entry.id.term) {
            self.runs.push_back(Run { first: entry.id.index, term: entry.id.term });
        }
        self.last = entry.id;
        self.cache_bytes += entry.weight_bytes();
        self.cache.push_back(entry);
    }

    /// Drops `from` and everything above.
    ///
    /// # Panics
    /// When `from` is not above `base`.
    pub(super) fn truncate(&mut self, from: Index) {
        assert!(from > self.base.index, "what was dropped is never truncated");
        while let Some(entry) = self.cache.pop_back_if(|entry| entry.id.index >= from) {
            self.cache_bytes -= entry.weight_bytes();
        }
        let end = from.prev();
        self.last = self.id_at(end).expect("the entry before a truncation is in the log");
        while self.runs.pop_back_if(|run| run.first >= from).is_some() {}
    }

    /// Drops everything up to `to`, which becomes the base.
    ///
    /// # Panics
    /// When the log does not hold `to`.
    pub(super) fn compact(&mut self, to: LogId) {
        assert!(self.contains(to), "the log is compacted up to an entry that it holds");
        while self.runs.get(1).is_some_and(|run| run.first <= to.index.next()) {
            self.runs.pop_front();
        }
        if to == self.last {
            self.runs.clear();
        } else if let Some(run) = self.runs.front_mut() {
            run.first = run.first.max(to.index.next());
        }
        while let Some(entry) = self.cache.pop_front_if(|entry| entry.id.index <= to.index) {
            self.cache_bytes -= entry.weight_bytes();
        }
        self.base = to;
        shrink(&mut self.runs);
        shrink(&mut self.cache);
    }

    /// Drops the oldest payloads beyond `budget_bytes`, but none above `keep_after`: those are not on disk yet.
    pub(super) fn trim_cache(&mut self, budget_bytes: usize, keep_after: Index) {
        while self.cache_bytes > budget_bytes {
            let Some(entry) = self.cache.pop_front_if(|entry| entry.id.index <= keep_after) else {
                break;
            };
            self.cache_bytes -= entry.weight_bytes();
        }
        shrink(&mut self.cache);
    }

    /// First index whose payload is cached; `last + 1` when none is.
    pub(super) fn first_cached(&self) -> Index {
        self.cache.front().map_or(self.last.index.next(), |entry| entry.id.index)
    }

    /// Cached entries `from ..= to` up to `max_bytes`, at least one; empty when `from` is not cached.
    pub(super) fn cached(&self, from: Index, to: Index, max_bytes: usize) -> Vec<Entry> {
        let Some(skip) = from.0.checked_sub(self.first_cached().0) else { return Vec::new() };
        let Ok(skip) = usize::try_from(skip) else { return Vec::new() };
        if skip >= self.cache.len() {
            return Vec::new();
        }
        let entries = self.cache.range(skip..).take_while(|entry| entry.id.index <= to);
        within_bytes(entries, max_bytes).cloned().collect()
    }

    fn run_of(&self, index: Index) -> Option<&Run> {
        match self.runs.back() {
            Some(newest) if newest.first <= index => Some(newest),
            _ => {
                let after = self.runs.partition_point(|run| run.first <= index);
                after.checked_sub(1).and_then(|at| self.runs.get(at))
            }
        }
    }

    /// Whether runs ascend in index and in term, as the type promises.
    pub(super) fn runs_ascend(&self) -> bool {
        let ascending = self
            .runs
            .iter()
            .zip(self.runs.iter().skip(1))
            .all(|(a, b)| a.first < b.first && a.term < b.term);
        ascending && self.runs.front().is_none_or(|run| run.term >= self.base.term)
    }
}

/// Gives memory back once three quarters of it hold nothing: a burst must not be paid for until the process ends.
fn shrink<T>(deque: &mut VecDeque<T>) {
    const WORTH_IT: usize = 64;
    if deque.capacity() > WORTH_IT && deque.len() < deque.capacity() / 4 {
        deque.shrink_to(deque.len() * 2);
    }
}

/// The entries at the front that weigh no more than `max_bytes` together, at least one.
pub(super) fn within_bytes<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    max_bytes: usize,
) -> impl Iterator<Item = &'a Entry> {
    let mut bytes = 0;
    entries.take_while(move |entry| {
        let first = bytes == 0;
        bytes += entry.weight_bytes();
        first || bytes <= max_bytes
    })
}

#[cfg(test)]
mod tests {
    use super::super::types::Payload;
    use super::*;
    use bytes::Bytes;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { id: id(index, term), payload: Payload::Command(Bytes::from_static(b"12345678")) }
    }

    fn id(index: u64, term: u64) -> LogId {
        LogId::new(Term(term), Index(index))
    }

    /// A log whose entries have these terms, from `base.index + 1` on.
    fn log(base: LogId, terms: &[u64]) -> Log {
        let mut log = Log::new(base);
        for (offset, &term) in terms.iter().enumerate() {
            log.append(entry(base.index.0 + 1 + offset as u64, term));
        }
        log
    }

    fn terms(log: &Log) -> Vec<u64> {
        (log.base.index.0..=log.last.index.0).map(|i| log.term_at(Index(i)).unwrap().0).collect()
    }

    #[test]
    fn terms_are_known_from_base_to_last() {
        let log = log(id(3, 1), &[1, 2, 2, 5]);
        assert_eq!(terms(&log), [1, 1, 2, 2, 5]);
        assert_eq!(log.term_at(Index(2)), None);
        assert_eq!(log.term_at(Index(8)), None);
        assert_eq!(log.last(), id(7, 5));
        assert_eq!(Log::new(LogId::default()).term_at(Index(0)), Some(Term(0)));
    }

    #[test]
    fn truncation_is_the_inverse_of_appending() {
        let all = [1, 1, 2, 2, 5];
        for keep in 0..=all.len() {
            let mut truncated = log(id(3, 1), &all);
            truncated.truncate(Index(4 + keep as u64));
            let expected = log(id(3, 1), &all[..keep]);
            assert_eq!((terms(&truncated), truncated.last), (terms(&expected), expected.last));
            assert_eq!(truncated.runs, expected.runs);
            assert_eq!(
                (truncated.cache, truncated.cache_bytes),
                (expected.cache, expected.cache_bytes)
            );
        }
    }

    #[test]
    #[should_panic(expected = "what was dropped is never truncated")]
    fn the_base_is_never_truncated() {
        log(id(3, 1), &[1]).truncate(Index(3));
    }

    #[test]
    fn compaction_keeps_the_suffix() {
        let all = [1, 1, 2, 2, 5];
        for drop in 0..=all.len() {
            let mut compacted = log(id(3, 1), &all);
            let to = compacted.id_at(Index(3 + drop as u64)).unwrap();
            compacted.compact(to);
            let expected = log(to, &all[drop..]);
            assert_eq!((compacted.base, compacted.last), (to, id(8, 5)));
            assert_eq!(compacted.runs, expected.runs, "after {drop}");
            assert_eq!(
                (compacted.cache, compacted.cache_bytes),
                (expected.cache, expected.cache_bytes)
            );
        }
    }

    #[test]
    fn what_was_dropped_takes_no_memory() {
        let mut log = log(LogId::default(), &vec![1; 10_000]);
        log.compact(id(9_990, 1));
        assert_eq!(log.cache.len(), 10);
        assert!(log.cache.capacity() <= 64, "{}", log.cache.capacity());
    }

    #[test]
    fn a_restored_log_equals_the_one_that_was_written() {
        let written = log(id(3, 1), &[1, 2, 2, 5]);
        let runs = [(Index(4), Term(1)), (Index(5), Term(2)), (Index(7), Term(5))];
        let restored = Log::restore(id(3, 1), &runs, id(7, 5), vec![entry(6, 2), entry(7, 5)]);
        assert_eq!(terms(&restored), terms(&written));
        assert_eq!(restored.first_cached(), Index(6));
        let empty = Log::restore(id(3, 1), &[], id(3, 1), Vec::new());
        assert_eq!((empty.last(), empty.first_cached()), (id(3, 1), Index(4)));
    }

    #[test]
    fn run_start_finds_the_first_of_equal_terms() {
        let log = log(id(3, 1), &[1, 2, 2, 5]);
        let table = [(3, 3), (4, 4), (5, 5), (6, 5), (7, 7)];
        for (index, expected) in table {
            assert_eq!(log.run_start(Index(index)), Index(expected), "of {index}");
        }
    }

    #[test]
    fn the_last_entry_with_a_small_enough_term() {
        let log = log(id(3, 2), &[2, 4, 4, 7]);
        let table = [
            // (term at most, upper) → found
            (9, 9, Some(id(7, 7))),
            (9, 5, Some(id(5, 4))),
            (6, 9, Some(id(6, 4))),
            (4, 5, Some(id(5, 4))),
            (3, 9, Some(id(4, 2))),
            (2, 3, Some(id(3, 2))),
            (1, 9, None),
            (9, 2, None),
        ];
        for (term, upper, expected) in table {
            assert_eq!(
                log.last_with_term_at_most(Term(term), Index(upper)),
                expected,
                "{term} {upper}"
            );
        }
    }

    #[test]
    fn the_cache_gives_what_fits_but_at_least_one() {
        let log = log(LogId::default(), &[1; 10]);
        let each = entry(1, 1).weight_bytes();
        let lengths = [
            (1, 10, 0, 1),
            (1, 10, each * 3, 3),
            (1, 10, each * 3 + 1, 3),
            (4, 5, usize::MAX, 2),
            (11, 11, 99, 0),
        ];
        for (from, to, bytes, expected) in lengths {
            let got = log.cached(Index(from), Index(to), bytes);
            assert_eq!(got.len(), expected, "{from} {to} {bytes}");
            assert!(got.first().is_none_or(|entry| entry.id.index == Index(from)));
        }
    }

    #[test]
    fn the_cache_drops_the_oldest_but_nothing_that_is_not_on_disk() {
        let each = entry(1, 1).weight_bytes();
        let mut log = log(LogId::default(), &[1; 10]);
        log.trim_cache(each * 4, Index(3));
        assert_eq!(log.first_cached(), Index(4));
        log.trim_cache(each * 4, Index(10));
        assert_eq!((log.first_cached(), log.cache_bytes), (Index(7), each * 4));
        assert!(log.cached(Index(6), Index(10), usize::MAX).is_empty());
        assert_eq!(log.term_at(Index(1)), Some(Term(1)), "terms outlive payloads");
    }
}
