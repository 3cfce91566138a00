//! A disk that keeps what was synced and, after a crash, as much of the rest as chance wants: whole batches, in order.

use std::collections::{BTreeMap, VecDeque};

use raft::consensus::{
    BatchNo, Entry, HardState, Index, LogId, Membership, Payload, Persist, Restored, SnapshotMeta,
    Term,
};

/// What a log writer would have made of the batches that it was handed.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    durable: Image,
    pending: VecDeque<Persist>,
    /// Prefixes to drop, each after this batch is durable: before that, what a snapshot replaces could look like what follows
    /// it.
    compactions: VecDeque<(BatchNo, Index)>,
    snapshot: Option<SnapshotMeta>,
}

#[derive(Clone, Debug, Default)]
struct Image {
    batch: BatchNo,
    hard_state: HardState,
    entries: BTreeMap<Index, Entry>,
    commit_hint: Index,
}

impl Image {
    fn apply(&mut self, persist: Persist) {
        self.batch = persist.batch;
        self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
        if let Some(from) = persist.truncate_from {
            self.entries.split_off(&from);
        }
        self.entries.extend(persist.append.into_iter().map(|entry| (entry.id.index, entry)));
        self.commit_hint = persist.commit_index;
    }

    fn compact(&mut self, to: Index) {
        self.entries = self.entries.split_off(&to.next());
    }
}

impl Disk {
    pub fn write(&mut self, persist: Persist) {
        self.pending.push_back(persist);
    }

    pub fn pending_batches(&self) -> usize {
        self.pending.len()
    }

    pub fn newest_batch(&self) -> BatchNo {
        self.pending.back().map_or(self.durable.batch, |persist| persist.batch)
    }

    pub fn durable_batch(&self) -> BatchNo {
        self.durable.batch
    }

    /// Makes the oldest pending batches durable.
    pub fn sync(&mut self, batches: usize) {
        for persist in self.pending.drain(..batches.min(self.pending.len())) {
            self.durable.apply(persist);
        }
        let durable = self.durable.batch;
        while let Some((_, to)) = self.compactions.pop_front_if(|(after, _)| *after <= durable) {
            self.durable.compact(to);
        }
    }

    /// The process dies: what had reached the platters by chance stays, the rest is gone.
    pub fn crash(&mut self, surviving_batches: usize) {
        self.sync(surviving_batches);
        self.pending.clear();
        self.compactions.clear();
        self.durable.batch = BatchNo(0);
    }

    pub fn durable_hard_state(&self) -> HardState {
        self.durable.hard_state
    }

    pub fn durable_last(&self) -> LogId {
        let base = self.snapshot.as_ref().map_or(LogId::default(), |meta| meta.last);
        let newest = self.durable.entries.values().next_back().map(|entry| entry.id);
        newest.filter(|id| id.index > base.index).unwrap_or(base)
    }

    /// Whether this entry would survive a crash, in the log or in a snapshot.
    pub fn holds(&self, id: LogId) -> bool {
        let in_snapshot = self.snapshot.as_ref().is_some_and(|meta| id.index <= meta.last.index);
        in_snapshot || self.durable.entries.get(&id.index).is_some_and(|entry| entry.id == id)
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

    /// Drops everything up to `to`, in its turn.
    pub fn compact(&mut self, to: Index) {
        self.compactions.push_back((self.newest_batch(), to));
        self.sync(0);
    }

    /// Reads the log as a running process sees it: written is enough, synced is not asked.
    pub fn read(&self, from: Index, to: Index) -> Vec<Entry> {
        let written = self.written();
        let mut next = from;
        let mut entries = Vec::new();
        for (index, entry) in written.entries.range(from..=to) {
            if *index != next {
                break;
            }
            next = next.next();
            entries.push(entry.clone());
        }
        entries
    }

    pub fn entry(&self, index: Index) -> Option<Entry> {
        for persist in self.pending.iter().rev() {
            if let Some(entry) = persist.append.iter().find(|entry| entry.id.index == index) {
                return Some(entry.clone());
            }
            if persist.truncate_from.is_some_and(|from| from <= index) {
                return None;
            }
        }
        self.durable.entries.get(&index).cloned()
    }

    /// The configuration in force at `index`, and where it stands.
    pub fn membership_at(&self, index: Index) -> (Index, Membership) {
        let in_log = self.written().entries.range(..=index).rev().find_map(|(at, entry)| {
            match &entry.payload {
                Payload::Membership(membership) => Some((*at, (**membership).clone())),
                Payload::Noop | Payload::Command(_) => None,
            }
        });
        let in_snapshot =
            || self.snapshot.as_ref().map(|meta| (meta.membership_index, meta.membership.clone()));
        in_log.or_else(in_snapshot).unwrap_or_default()
    }

    /// What a process finds when it starts. `tail_entries` are read back with their payloads.
    pub fn restore(&mut self, tail_entries: usize) -> Restored {
        self.drop_what_the_snapshot_replaced();
        let entries = &self.durable.entries;
        let base = self.snapshot.as_ref().map_or(LogId::default(), |meta| meta.last);
        let mut terms: Vec<(Index, Term)> = Vec::new();
        for (offset, entry) in entries.values().enumerate() {
            assert_eq!(entry.id.index.0, base.index.0 + 1 + offset as u64, "the log has a gap");
            if terms.last().is_none_or(|(_, term)| *term != entry.id.term) {
                terms.push((entry.id.index, entry.id.term));
            }
        }
        let memberships = entries.values().filter_map(|entry| match &entry.payload {
            Payload::Membership(membership) => Some((entry.id.index, (**membership).clone())),
            Payload::Noop | Payload::Command(_) => None,
        });
        Restored {
            hard_state: self.durable.hard_state,
            snapshot: self.snapshot.clone(),
            terms,
            last: self.durable_last(),
            memberships: memberships.collect(),
            commit_index: self.durable.commit_hint,
            tail: entries
                .values()
                .skip(entries.len().saturating_sub(tail_entries))
                .cloned()
                .collect(),
        }
    }

    /// The log continues a snapshot only if it holds the snapshot's last entry, or starts right after it.
    fn drop_what_the_snapshot_replaced(&mut self) {
        let Some(last) = self.snapshot.as_ref().map(|meta| meta.last) else { return };
        let entries = &mut self.durable.entries;
        let continues = match entries.get(&last.index) {
            Some(entry) => entry.id == last,
            None => entries.keys().next() == Some(&last.index.next()),
        };
        if continues { *entries = entries.split_off(&last.index.next()) } else { entries.clear() }
    }

    fn written(&self) -> Image {
        let mut image = self.durable.clone();
        self.pending.iter().for_each(|persist| image.apply(persist.clone()));
        image
    }
}
