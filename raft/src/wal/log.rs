//! What the log holds, in memory: ids, places and memberships, never payloads.
//!
//! The same code follows the records as they are written and as they are read back at the next start, so both must
//! arrive at the same state. Each entry costs 16 bytes here.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::error::Impossible;
use super::record::{EntryPayload, Record, State};
use crate::consensus::{HardState, Index, LogId, Membership, SnapshotMeta, Term};

/// Where an entry's record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Segment.
    pub(super) segment: u32,
    /// First block of the frame, counted from the start of the file.
    pub(super) block: u32,
    /// Start of the record in the frame's payload, in bytes.
    pub(super) at: u32,
    /// Length of the record, in bytes.
    pub(super) bytes: u32,
}

impl Place {
    /// Whether both stand in the same frame.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        (self.segment, self.block) == (other.segment, other.block)
    }
}

/// The log without its payloads.
///
/// Invariant: `places` belong to the consecutive indexes up to `last.index`; `terms` and `memberships` ascend. When the
/// log is complete they start right after the base. While it is being read, entries below a base that comes later in
/// the log may be missing, and so may the term of `last` when there is no place.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    base: Option<SnapshotMeta>,
    hard_state: HardState,
    last: LogId,
    commit_index: Index,
    places: VecDeque<Place>,
    terms: Vec<(Index, Term)>,
    memberships: Vec<(Index, Membership)>,
}

impl Log {
    /// Continues from the state that a segment starts with.
    pub(super) fn from_state(state: State) -> Self {
        let base_index = state.base.as_ref().map_or(Index(0), |base| base.last.index);
        Self {
            memberships: state.membership.into_iter().filter(|(at, _)| *at > base_index).collect(),
            base: state.base,
            hard_state: state.hard_state,
            last: state.last,
            commit_index: state.commit_index,
            ..Self::default()
        }
    }

    /// What a segment that starts here must say.
    pub(super) fn state(&self) -> State {
        State {
            base: self.base.clone(),
            hard_state: self.hard_state,
            last: self.last,
            commit_index: self.commit_index,
            membership: self.membership(),
        }
    }

    /// Checks that a segment which starts here says what the segments before it said.
    pub(super) fn agree(&self, state: &State) -> Result<(), Impossible> {
        let ours = self.state();
        let same = ours.base == state.base
            && ours.hard_state == state.hard_state
            && ours.commit_index == state.commit_index
            && ours.last.index == state.last.index
            && (!self.is_complete() || ours == *state);
        if same {
            return Ok(());
        }
        Err(Impossible(format!(
            "the segment starts after {} in term {}, the one before it ends at {} in term {}",
            state.last, state.hard_state.term, ours.last, ours.hard_state.term,
        )))
    }

    /// Term and vote.
    pub(super) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// End of the log.
    pub(super) fn last(&self) -> LogId {
        self.last
    }

    /// Commit hint, never above `last`.
    pub(super) fn commit_index(&self) -> Index {
        self.commit_index
    }

    /// The last entry that the log no longer holds.
    pub(super) fn base(&self) -> Option<&SnapshotMeta> {
        self.base.as_ref()
    }

    /// First index whose entry is here; one past the end when there is none.
    pub(super) fn first(&self) -> Index {
        Index(self.last.index.0 + 1 - self.places.len() as u64)
    }

    /// Runs of terms.
    pub(super) fn terms(&self) -> &[(Index, Term)] {
        &self.terms
    }

    /// Membership entries, ascending.
    pub(super) fn memberships(&self) -> &[(Index, Membership)] {
        &self.memberships
    }

    /// Place of an entry.
    pub(super) fn place(&self, index: Index) -> Option<Place> {
        let at = index.0.checked_sub(self.first().0)?;
        self.places.get(usize::try_from(at).ok()?).copied()
    }

    /// Term of an entry that is here, or of the base.
    pub(super) fn term(&self, index: Index) -> Option<Term> {
        if let Some(base) = self.base.as_ref().filter(|base| base.last.index == index) {
            return Some(base.last.term);
        }
        self.place(index)?;
        let run = self.terms.partition_point(|(first, _)| *first <= index).checked_sub(1)?;
        Some(self.terms[run].1)
    }

    /// Oldest segment that holds an entry of the log, if any.
    pub(super) fn oldest_segment(&self) -> Option<u32> {
        // Places ascend, because an entry is only ever replaced by a later one.
        self.places.front().map(|place| place.segment)
    }

    /// Whether the newest entries from some index on weigh at most this much: the first of them.
    pub(super) fn tail_start(&self, max_bytes: usize, weigh: impl Fn(&Place) -> usize) -> Index {
        let mut left = max_bytes;
        let fits = |place: &&Place| {
            let weight = weigh(place);
            let fits = weight <= left;
            left = left.saturating_sub(weight);
            fits
        };
        let count = self.places.iter().rev().take_while(fits).count();
        Index(self.last.index.0 + 1 - count as u64)
    }

    /// The highest index that may be dropped so that at least so many bytes of the entries up to `index` stay, if there are
    /// so many.
    pub(super) fn trailing(&self, index: Index, keep_bytes: u64) -> Index {
        let (first, index) = (self.first(), index.min(self.last.index));
        let count = (index.0 + 1).saturating_sub(first.0);
        let kept =
            self.places.range(..usize::try_from(count).expect("at most the number of places"));
        let mut bytes = 0;
        let stay = kept.rev().take_while(|place| {
            let wanted = bytes < keep_bytes;
            bytes += u64::from(place.bytes);
            wanted
        });
        Index(first.0 - 1 + count - stay.count() as u64)
    }

    /// Follows a record. `place` is where it stands.
    pub(super) fn admit(&mut self, record: &Record<'_>, place: Place) -> Result<(), Impossible> {
        match record {
            Record::HardState(hard_state) => self.set_hard_state(*hard_state),
            Record::Truncate(from) => self.truncate(*from),
            Record::Commit(index) => {
                self.commit_index = self.commit_index.max((*index).min(self.last.index));
                Ok(())
            }
            Record::Base { meta, keeps_suffix } => self.rebase(meta, *keeps_suffix),
            Record::Entry { id, payload } => self.append(*id, payload, place),
            Record::Segment(_) => Err(Impossible("a segment start inside a segment".to_owned())),
        }
    }

    /// The record that makes the log begin after this entry, unless it begins there or later already.
    pub(super) fn base_record<'a>(&self, meta: &'a SnapshotMeta) -> Option<Record<'a>> {
        let keeps_suffix = self.term(meta.last.index) == Some(meta.last.term);
        (meta.last.index > self.base_id().index)
            .then_some(Record::Base { meta: Cow::Borrowed(meta), keeps_suffix })
    }

    /// The frame that holds the last record was copied: its entries, if any, stand there now.
    pub(super) fn move_last_frame(&mut self, from: (u32, u32), to: (u32, u32)) {
        let moved = self.places.iter_mut().rev();
        for place in moved.take_while(|place| (place.segment, place.block) == from) {
            (place.segment, place.block) = to;
        }
    }

    /// Checks, at the end of reading, that nothing is missing between the base and the first entry.
    pub(super) fn complete(&mut self) -> Result<(), Impossible> {
        if self.is_complete() {
            return Ok(());
        }
        let (first, base) = (self.first(), self.base_id());
        Err(Impossible(format!("entries {} to {} are missing", base.index.next(), first.prev())))
    }

    fn is_complete(&self) -> bool {
        self.first() == self.base_id().index.next()
    }

    fn base_id(&self) -> LogId {
        self.base.as_ref().map_or(LogId::default(), |base| base.last)
    }

    fn membership(&self) -> Option<(Index, Membership)> {
        let of_base =
            || self.base.as_ref().map(|base| (base.membership_index, base.membership.clone()));
        self.memberships.last().cloned().or_else(of_base)
    }

    fn set_hard_state(&mut self, new: HardState) -> Result<(), Impossible> {
        let old = self.hard_state;
        let changes_vote = new.term == old.term && old.vote.is_some() && new.vote != old.vote;
        if new.term < old.term || changes_vote {
            return Err(Impossible(format!("{new:?} cannot follow {old:?}")));
        }
        self.hard_state = new;
        Ok(())
    }

    fn truncate(&mut self, from: Index) -> Result<(), Impossible> {
        let kept = self.base_id().index.max(self.commit_index);
        if from <= kept {
            return Err(Impossible(format!(
                "truncation from {from} drops committed entries up to {kept}"
            )));
        }
        if from <= self.last.index {
            self.drop_suffix(from);
        }
        Ok(())
    }

    fn drop_suffix(&mut self, from: Index) {
        let keep = from.0.saturating_sub(self.first().0);
        self.places.truncate(usize::try_from(keep).expect("fewer than there are places"));
        self.terms.retain(|(first, _)| *first < from);
        self.memberships.retain(|(at, _)| *at < from);
        self.last.index = from.prev();
        self.last.term = self.term(from.prev()).unwrap_or_default();
    }

    fn append(
        &mut self,
        id: LogId,
        payload: &EntryPayload<'_>,
        place: Place,
    ) -> Result<(), Impossible> {
        if id.index != self.last.index.next() || id.term < self.last.term {
            return Err(Impossible(format!("entry {id} cannot follow {}", self.last)));
        }
        if self.terms.last().is_none_or(|(_, term)| *term != id.term) {
            self.terms.push((id.index, id.term));
        }
        if let EntryPayload::Membership(membership) = payload {
            self.memberships.push((id.index, membership.clone().into_owned()));
        }
        self.places.push_back(place);
        self.last = id;
        Ok(())
    }

    fn rebase(&mut self, meta: &SnapshotMeta, keeps_suffix: bool) -> Result<(), Impossible> {
        let (old, new) = (self.base_id(), meta.last);
        if new.index <= old.index || (keeps_suffix && new.index > self.last.index) {
            return Err(Impossible(format!(
                "base {new} cannot follow {old} in a log up to {}",
                self.last
            )));
        }
        if keeps_suffix {
            self.drop_prefix(new);
        } else {
            self.places.clear();
            self.terms.clear();
            self.memberships.clear();
            self.last = new;
        }
        self.places.shrink_to(self.places.len() * 2);
        self.base = Some(meta.clone());
        self.commit_index = self.commit_index.max(new.index).min(self.last.index);
        Ok(())
    }

    fn drop_prefix(&mut self, base: LogId) {
        let first = self.first();
        let gone = (base.index.0 + 1).saturating_sub(first.0).min(self.places.len() as u64);
        self.places.drain(..usize::try_from(gone).expect("at most the number of places"));
        self.memberships.retain(|(at, _)| *at > base.index);
        let runs_gone = self.terms.partition_point(|(first, _)| *first <= base.index);
        let cut_run = runs_gone.checked_sub(1).map(|run| self.terms[run].1);
        self.terms.drain(..runs_gone);
        let next = base.index.next();
        let starts_late = self.terms.first().is_none_or(|(first, _)| *first > next);
        if let Some(term) = cut_run.filter(|_| starts_late && !self.places.is_empty()) {
            self.terms.insert(0, (next, term));
        }
        if self.last.index == base.index {
            self.last = base;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::NodeId;
    use proptest::prelude::*;

    const NOWHERE: Place = Place { segment: 0, block: 0, at: 0, bytes: 0 };

    fn entry(index: u64, term: u64) -> Record<'static> {
        Record::Entry { id: LogId::new(Term(term), Index(index)), payload: EntryPayload::Noop }
    }

    fn membership(index: u64, term: u64) -> Record<'static> {
        let payload = EntryPayload::Membership(Cow::Owned(members(index)));
        Record::Entry { id: LogId::new(Term(term), Index(index)), payload }
    }

    fn members(id: u64) -> Membership {
        Membership { voters: [NodeId(id)].into(), ..Membership::default() }
    }

    fn base(index: u64, term: u64, keeps_suffix: bool) -> Record<'static> {
        let last = LogId::new(Term(term), Index(index));
        let meta = SnapshotMeta { last, membership: members(99), membership_index: Index(1) };
        Record::Base { meta: Cow::Owned(meta), keeps_suffix }
    }

    /// Entries 1 to 6 in the terms 1 1 2 2 2 4, memberships at 2 and 5.
    fn log() -> Log {
        let mut log = Log::default();
        let records = [
            entry(1, 1),
            membership(2, 1),
            entry(3, 2),
            entry(4, 2),
            membership(5, 2),
            entry(6, 4),
        ];
        for (at, record) in (0..).zip(&records) {
            log.admit(record, Place { at, ..NOWHERE }).unwrap();
        }
        log
    }

    fn after(records: &[Record<'_>]) -> Log {
        let mut log = log();
        for record in records {
            log.admit(record, NOWHERE).unwrap();
        }
        log
    }

    #[track_caller]
    fn assert_holds(
        log: &Log,
        first: u64,
        last: (u64, u64),
        terms: &[(u64, u64)],
        memberships: &[u64],
    ) {
        assert_eq!(log.first(), Index(first));
        assert_eq!(log.last(), LogId::new(Term(last.1), Index(last.0)));
        let runs: Vec<_> = terms.iter().map(|(at, term)| (Index(*at), Term(*term))).collect();
        assert_eq!(log.terms(), runs);
        let at: Vec<_> = log.memberships().iter().map(|(at, _)| at.0).collect();
        assert_eq!(at, memberships);
    }

    #[test]
    fn entries_are_known_by_run_and_place() {
        let log = log();
        assert_holds(&log, 1, (6, 4), &[(1, 1), (3, 2), (6, 4)], &[2, 5]);
        let terms: Vec<_> = (0..8).map(|index| log.term(Index(index)).map(|term| term.0)).collect();
        assert_eq!(terms, [None, Some(1), Some(1), Some(2), Some(2), Some(2), Some(4), None]);
        assert_eq!(log.place(Index(4)), Some(Place { at: 3, ..NOWHERE }));
        assert_eq!(log.place(Index(0)), None);
        assert_eq!(log.place(Index(7)), None);
    }

    #[test]
    fn a_truncation_drops_the_suffix() {
        assert_holds(
            &after(&[Record::Truncate(Index(7))]),
            1,
            (6, 4),
            &[(1, 1), (3, 2), (6, 4)],
            &[2, 5],
        );
        assert_holds(&after(&[Record::Truncate(Index(6))]), 1, (5, 2), &[(1, 1), (3, 2)], &[2, 5]);
        assert_holds(&after(&[Record::Truncate(Index(4))]), 1, (3, 2), &[(1, 1), (3, 2)], &[2]);
        assert_holds(&after(&[Record::Truncate(Index(1))]), 1, (0, 0), &[], &[]);
    }

    #[test]
    fn a_base_drops_the_prefix_or_everything() {
        assert_holds(&after(&[base(2, 1, true)]), 3, (6, 4), &[(3, 2), (6, 4)], &[5]);
        assert_holds(&after(&[base(4, 2, true)]), 5, (6, 4), &[(5, 2), (6, 4)], &[5]);
        assert_holds(&after(&[base(6, 4, true)]), 7, (6, 4), &[], &[]);
        assert_holds(&after(&[base(4, 3, false)]), 5, (4, 3), &[], &[]);
        assert_holds(&after(&[base(9, 5, false), entry(10, 5)]), 10, (10, 5), &[(10, 5)], &[]);
        assert_holds(&after(&[base(4, 2, true), Record::Truncate(Index(5))]), 5, (4, 2), &[], &[]);
    }

    #[test]
    fn a_base_record_keeps_the_suffix_only_behind_the_very_entry() {
        for (index, term, expected) in [
            (4, 2, Some(true)),
            (4, 3, Some(false)),
            (9, 4, Some(false)),
            (6, 4, Some(true)),
            (0, 0, None),
        ] {
            let Record::Base { meta, .. } = base(index, term, true) else { unreachable!() };
            let keeps = log().base_record(&meta).map(|record| {
                let Record::Base { keeps_suffix, .. } = record else { unreachable!() };
                keeps_suffix
            });
            assert_eq!(keeps, expected, "{index}@{term}");
        }
        let Record::Base { meta, .. } = base(3, 2, true) else { unreachable!() };
        assert_eq!(after(&[base(4, 2, true)]).base_record(&meta), None, "older than the base");
    }

    #[test]
    fn trailing_entries_are_counted_in_bytes_of_their_records() {
        let mut log = Log::default();
        for (at, bytes) in (0..).zip([10, 20, 30, 40, 50]) {
            let place = Place { at, bytes, ..NOWHERE };
            log.admit(&entry(u64::from(at) + 1, 1), place).unwrap();
        }
        let table = [
            // (of the entries up to, bytes that stay) → entries up to here may go
            (5, 0, 5),
            (5, 1, 4),
            (5, 50, 4),
            (5, 51, 3),
            (5, 150, 0),
            (5, u64::MAX, 0),
            (3, 40, 1),
            (99, 50, 4),
            (0, 50, 0),
        ];
        for (index, keep, expected) in table {
            assert_eq!(log.trailing(Index(index), keep), Index(expected), "{index} {keep}");
        }
        log.admit(&base(2, 1, true), NOWHERE).unwrap();
        for (index, keep, expected) in [(5, 51, 3), (5, 999, 2), (2, 7, 2), (1, 7, 2), (4, 0, 4)] {
            assert_eq!(log.trailing(Index(index), keep), Index(expected), "{index} {keep}");
        }
    }

    #[test]
    fn what_was_dropped_takes_no_memory() {
        let mut log = Log::default();
        for index in 1..=10_000 {
            log.admit(&entry(index, 1), NOWHERE).unwrap();
        }
        log.admit(&base(9_990, 1, true), NOWHERE).unwrap();
        assert!(log.places.capacity() < 64, "{}", log.places.capacity());
    }

    #[test]
    fn the_commit_hint_never_goes_back_or_beyond_the_end() {
        let commits = |commits: &[u64]| {
            let records: Vec<_> =
                commits.iter().map(|index| Record::Commit(Index(*index))).collect();
            after(&records).commit_index().0
        };
        assert_eq!(commits(&[3]), 3);
        assert_eq!(commits(&[3, 2]), 3);
        assert_eq!(commits(&[9]), 6);
        assert_eq!(after(&[base(4, 2, true)]).commit_index(), Index(4));
    }

    #[test]
    fn a_frame_that_was_copied_takes_its_entries_along() {
        let mut log = Log::default();
        for (index, block) in [(1, 3), (2, 5), (3, 5)] {
            log.admit(&entry(index, 1), Place { segment: 1, block, at: 0, bytes: 0 }).unwrap();
        }
        log.move_last_frame((1, 5), (2, 9));
        let places: Vec<_> = log.places.iter().map(|place| (place.segment, place.block)).collect();
        assert_eq!(places, [(1, 3), (2, 9), (2, 9)]);
    }

    #[test]
    fn the_state_of_a_log_that_lacks_old_entries_is_complete_once_a_base_covers_them() {
        let mut log =
            Log::from_state(State { last: LogId::new(Term(3), Index(10)), ..State::default() });
        assert!(log.complete().is_err());
        for record in [Record::Truncate(Index(6)), entry(6, 4), entry(7, 4)] {
            log.admit(&record, NOWHERE).unwrap();
        }
        assert!(log.complete().is_err());
        log.admit(&base(5, 3, true), NOWHERE).unwrap();
        log.complete().unwrap();
        assert_holds(&log, 6, (7, 4), &[(6, 4)], &[]);
    }

    fn any_record() -> impl Strategy<Value = Record<'static>> {
        let small = || 0..12_u64;
        prop_oneof![
            (small(), small()).prop_map(|(index, term)| entry(index, term)),
            (small(), small()).prop_map(|(index, term)| membership(index, term)),
            (small(), small(), any::<bool>())
                .prop_map(|(index, term, keeps)| base(index, term, keeps)),
            small().prop_map(|index| Record::Truncate(Index(index))),
            small().prop_map(|index| Record::Commit(Index(index))),
            (small(), small()).prop_map(|(term, vote)| {
                Record::HardState(HardState { term: Term(term), vote: Some(NodeId(vote)) })
            }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes_the_log_is_consistent(start in 0..12_u64, records in prop::collection::vec(any_record(), 0..60)) {
            let last = LogId::new(Term(1), Index(start));
            let mut log = Log::from_state(State { last, ..State::default() });
            for record in &records {
                if log.admit(record, NOWHERE).is_err() {
                    break;
                }
                let (first, last) = (log.first(), log.last().index);
                prop_assert_eq!(log.places.len() as u64, last.0 + 1 - first.0);
                prop_assert!((first.0..=last.0).all(|index| log.term(Index(index)).is_some()));
                prop_assert!(log.terms.is_sorted() && log.terms.iter().all(|(at, _)| (first..=last).contains(at)));
                prop_assert!(log.commit_index() <= last);
                prop_assert!(log.agree(&log.state()).is_ok());
            }
        }
    }
}
