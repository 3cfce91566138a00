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

    /// Length of the records of all entries above `index`.
    pub(super) fn bytes_after(&self, index: Index) -> u64 {
        let count =
            usize::try_from(self.last.index.0.saturating_sub(index.0)).unwrap_or(usize::MAX);
        self.places.iter().rev().take(count).map(|place| u64::from(place.bytes)).sum()
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
mod tests;
