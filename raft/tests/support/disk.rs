//! A disk that keeps what was synced and, after a crash, as much of the rest as chance wants: whole writes, in order.

use std::collections::{BTreeMap, VecDeque};

use raft::consensus::{
    BatchNo, Entry, HardState, Index, LogId, Membership, Payload, Persist, Restored, SnapshotMeta,
    Term,
};
use raft::continuity::{Joined, join};

/// What a log writer would have made of what it was handed, and the newest snapshot file.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    durable: Image,
    pending: VecDeque<Write>,
    snapshot: Option<SnapshotMeta>,
}

#[derive(Clone, Debug)]
enum Write {
    Batch(Persist),
    Compact { base: SnapshotMeta, keeps_suffix: bool },
}

/// A log.
#[derive(Clone, Debug, Default)]
struct Image {
    batch: BatchNo,
    hard_state: HardState,
    base: Option<SnapshotMeta>,
    entries: BTreeMap<Index, Entry>,
    commit_hint: Index,
}

impl Image {
    fn apply(&mut self, write: Write) {
        match write {
            Write::Batch(persist) => self.append(persist),
            Write::Compact { base, .. } => self.compact(base),
        }
    }

    fn append(&mut self, persist: Persist) {
        self.batch = persist.batch;
        self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
        if let Some(from) = persist.truncate_from {
            self.entries.split_off(&from);
        }
        for entry in persist.append {
            let last = self.entries.last_key_value().map_or(self.base_id().index, |(at, _)| *at);
            assert_eq!(entry.id.index, last.next(), "the log takes no gap");
            self.entries.insert(entry.id.index, entry);
        }
        self.commit_hint = persist.commit_index;
    }

    fn compact(&mut self, base: SnapshotMeta) {
        if base.last.index <= self.base_id().index {
            return;
        }
        if self.id_at(base.last.index) == Some(base.last) {
            self.entries = self.entries.split_off(&base.last.index.next());
        } else {
            self.entries.clear();
        }
        self.commit_hint = self.commit_hint.max(base.last.index);
        self.base = Some(base);
    }

    fn base_id(&self) -> LogId {
        self.base.as_ref().map_or(LogId::default(), |base| base.last)
    }

    fn last(&self) -> LogId {
        self.entries.values().next_back().map_or(self.base_id(), |entry| entry.id)
    }

    fn id_at(&self, index: Index) -> Option<LogId> {
        let base = self.base_id();
        let of_entry = || self.entries.get(&index).map(|entry| entry.id);
        if index == base.index { Some(base) } else { of_entry() }
    }

    fn memberships(&self) -> impl DoubleEndedIterator<Item = (Index, Membership)> {
        self.entries.values().filter_map(|entry| match &entry.payload {
            Payload::Membership(membership) => Some((entry.id.index, (**membership).clone())),
            Payload::Noop | Payload::Command(_) => None,
        })
    }

    fn terms(&self) -> Vec<(Index, Term)> {
        let mut terms: Vec<(Index, Term)> = Vec::new();
        for (index, entry) in (self.base_id().index.0 + 1..).zip(self.entries.values()) {
            assert_eq!(entry.id.index.0, index, "the log has a gap");
            if terms.last().is_none_or(|(_, term)| *term != entry.id.term) {
                terms.push((entry.id.index, entry.id.term));
            }
        }
        terms
    }
}

impl Disk {
    pub fn write(&mut self, persist: Persist) {
        self.pending.push_back(Write::Batch(persist));
    }

    /// Lets the log begin after `base`, in its turn.
    pub fn compact(&mut self, base: SnapshotMeta) {
        let held = self.find(base.last.index).map(|entry| entry.id);
        let keeps_suffix = held == Some(base.last);
        self.pending.push_back(Write::Compact { base, keeps_suffix });
    }

    pub fn pending_batches(&self) -> usize {
        self.batches().count()
    }

    /// Batches and compactions.
    pub fn pending_writes(&self) -> usize {
        self.pending.len()
    }

    pub fn newest_batch(&self) -> BatchNo {
        self.batches().next_back().map_or(self.durable.batch, |persist| persist.batch)
    }

    pub fn durable_batch(&self) -> BatchNo {
        self.durable.batch
    }

    fn batches(&self) -> impl DoubleEndedIterator<Item = &Persist> {
        self.pending.iter().filter_map(|write| match write {
            Write::Batch(persist) => Some(persist),
            Write::Compact { .. } => None,
        })
    }

    /// Makes the oldest pending batches durable, with the compactions up to the next one.
    pub fn sync(&mut self, batches: usize) {
        let mut left = batches;
        while let Some(write) = self.pending.front() {
            if matches!(write, Write::Batch(_)) {
                let Some(fewer) = left.checked_sub(1) else { return };
                left = fewer;
            }
            self.write_oldest();
        }
    }

    fn write_oldest(&mut self) {
        if let Some(write) = self.pending.pop_front() {
            self.durable.apply(write);
        }
    }

    /// The process dies: what had reached the platters by chance stays, the rest is gone.
    pub fn crash(&mut self, surviving_writes: usize) {
        (0..surviving_writes).for_each(|_| self.write_oldest());
        self.pending.clear();
        self.durable.batch = BatchNo(0);
    }

    pub fn durable_hard_state(&self) -> HardState {
        self.durable.hard_state
    }

    /// End of the log, as the log itself knows it.
    pub fn log_last(&self) -> LogId {
        self.durable.last()
    }

    /// Last entry that the log no longer holds.
    pub fn log_base(&self) -> LogId {
        self.durable.base_id()
    }

    /// End of what a restart would find.
    pub fn durable_last(&self) -> LogId {
        if self.log_goes_on() { self.durable.last() } else { self.snapshot_last() }
    }

    /// Whether this entry would survive a crash, in the log or in a snapshot.
    pub fn holds(&self, id: LogId) -> bool {
        let in_log = self.log_goes_on() && self.durable.id_at(id.index) == Some(id);
        in_log || id.index <= self.snapshot_last().index
    }

    /// Bytes of the entries in the log, as records on disk.
    pub fn log_bytes(&self) -> usize {
        const HEADER_BYTES: usize = 21;
        let bytes = |entry: &Entry| match &entry.payload {
            Payload::Command(command) => HEADER_BYTES + command.len(),
            Payload::Noop | Payload::Membership(_) => entry.weight_bytes(),
        };
        let first = self.written_base().map_or(Index(1), |base| base.last.index.next());
        self.read(first, Index(u64::MAX)).iter().map(bytes).sum()
    }

    fn log_goes_on(&self) -> bool {
        let last = self.snapshot_last();
        last == LogId::default() || self.durable.id_at(last.index) == Some(last)
    }

    fn snapshot_last(&self) -> LogId {
        self.snapshot.as_ref().map_or(LogId::default(), |meta| meta.last)
    }

    /// A snapshot file became durable.
    pub fn store_snapshot(&mut self, meta: SnapshotMeta) {
        if self.snapshot.as_ref().is_none_or(|known| known.last.index < meta.last.index) {
            self.snapshot = Some(meta);
        }
    }

    pub fn snapshot(&self) -> Option<&SnapshotMeta> {
        self.snapshot.as_ref()
    }

    /// Reads the log as a running process sees it: written is enough, synced is not asked.
    pub fn read(&self, from: Index, to: Index) -> Vec<Entry> {
        let entries = (from.0..=to.0).map_while(|index| self.find(Index(index)));
        entries.cloned().collect()
    }

    pub fn entry(&self, index: Index) -> Option<Entry> {
        self.find(index).cloned()
    }

    fn find(&self, index: Index) -> Option<&Entry> {
        for write in self.pending.iter().rev() {
            match write {
                Write::Batch(persist) => {
                    let first =
                        persist.append.first().map_or(Index(u64::MAX), |entry| entry.id.index);
                    if let Some(at) = index.0.checked_sub(first.0)
                        && let Some(entry) = persist.append.get(usize::try_from(at).ok()?)
                    {
                        return Some(entry);
                    }
                    if persist.truncate_from.is_some_and(|from| from <= index) {
                        return None;
                    }
                }
                Write::Compact { base, keeps_suffix } => {
                    if index <= base.last.index || !keeps_suffix {
                        return None;
                    }
                }
            }
        }
        self.durable.entries.get(&index)
    }

    fn written_base(&self) -> Option<&SnapshotMeta> {
        let pending = self.pending.iter().rev().find_map(|write| match write {
            Write::Compact { base, .. } => Some(base),
            Write::Batch(_) => None,
        });
        pending.or(self.durable.base.as_ref())
    }

    /// The configuration in force at `index`, and where it stands.
    pub fn membership_at(&self, index: Index) -> (Index, Membership) {
        let base = self.written_base();
        let first = base.map_or(Index(1), |base| base.last.index.next());
        let in_log =
            (first.0..=index.0).rev().find_map(|at| match &self.find(Index(at))?.payload {
                Payload::Membership(membership) => Some((Index(at), (**membership).clone())),
                Payload::Noop | Payload::Command(_) => None,
            });
        let at_base = || base.map(|base| (base.membership_index, base.membership.clone()));
        in_log.or_else(at_base).unwrap_or_default()
    }

    /// What a process finds when it starts. `tail_entries` are read back with their payloads.
    pub fn restore(&mut self, tail_entries: usize) -> Restored {
        let (log, entries) = (&self.durable, &self.durable.entries);
        let found = Restored {
            hard_state: log.hard_state,
            base: log.base.clone(),
            snapshot: None,
            terms: log.terms(),
            last: log.last(),
            memberships: log.memberships().collect(),
            commit_index: log.commit_hint.min(log.last().index),
            tail: entries
                .values()
                .skip(entries.len().saturating_sub(tail_entries))
                .cloned()
                .collect(),
        };
        let joined = join(found, self.snapshot.clone());
        let Joined { restored, replace_log } = joined.expect("no crash leaves a gap");
        if let Some(base) = replace_log {
            self.durable.compact(base);
        }
        restored
    }
}
