//! What was applied and is not in the store yet: each key once, however often it was written.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::kv::engine::{Changes, Pair, Pairs};
use crate::kv::walk::WalkShared;
use crate::machine::MachineError;

/// Beyond this it goes to the store before it is synced (4 MiB).
const MAX_BYTES: usize = 4 << 20;
/// About what a key costs beside itself and its value.
const KEY_OVERHEAD_BYTES: usize = 80;

/// The newest changes. Whoever walks them shares the map, and the next change then copies it.
#[derive(Default)]
pub(super) struct Overlay {
    changes: Arc<Changes>,
    bytes: usize,
}

impl Overlay {
    /// What was done to a key: a new value, or removed.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        self.changes.get(key)
    }

    pub(super) fn add(&mut self, changes: Changes) {
        let own = Arc::make_mut(&mut self.changes);
        for (key, change) in changes {
            // Copies of their own: slices would keep whole batches in memory.
            let change = change.map(|value| Bytes::copy_from_slice(&value));
            self.bytes += value_bytes(change.as_ref());
            if let Some(before) = own.get_mut(&key) {
                self.bytes -= value_bytes(before.as_ref());
                *before = change;
            } else {
                self.bytes += key.len() + KEY_OVERHEAD_BYTES;
                own.insert(Bytes::copy_from_slice(&key), change);
            }
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES
    }

    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// After all of it is in the store.
    pub(super) fn clear(&mut self) {
        *self = Overlay::default();
    }

    /// Lays the changes over pairs of the store, both from the same key on.
    pub(super) fn over(&self, stored: Pairs, from: Bound<&[u8]>) -> Pairs {
        if self.changes.is_empty() {
            return stored;
        }
        let changed = WalkShared::new(Arc::clone(&self.changes), from);
        Box::new(Merged { stored: stored.peekable(), changed: changed.peekable() })
    }
}

fn value_bytes(change: Option<&Bytes>) -> usize {
    change.map_or(0, Bytes::len)
}

struct Merged {
    stored: Peekable<Pairs>,
    changed: Peekable<WalkShared<Option<Bytes>>>,
}

impl Iterator for Merged {
    type Item = Result<Pair, MachineError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.stored.peek(), self.changed.peek()) {
                (_, None) | (Some(Err(_)), _) => Ordering::Greater,
                (None, Some(_)) => Ordering::Less,
                (Some(Ok((stored, _))), Some((changed, _))) => changed.cmp(stored),
            };
            if order == Ordering::Greater {
                return self.stored.next();
            }
            if order == Ordering::Equal {
                drop(self.stored.next());
            }
            let (key, change) = self.changed.next()?;
            if let Some(value) = change {
                return Some(Ok((key, value)));
            }
        }
    }
}
