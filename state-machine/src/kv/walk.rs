//! Walking a map that others go on to change.

use std::collections::BTreeMap;
use std::ops::Bound::{self, Excluded, Unbounded};
use std::sync::Arc;

use bytes::Bytes;

/// Walks a shared map by remembering where to go on, since an iterator cannot own the map it walks.
pub(super) struct WalkShared<V> {
    map: Arc<BTreeMap<Bytes, V>>,
    next: Bound<Bytes>,
}

impl<V> WalkShared<V> {
    /// From this key on.
    pub(super) fn new(map: Arc<BTreeMap<Bytes, V>>, from: Bound<&[u8]>) -> WalkShared<V> {
        WalkShared { map, next: from.map(Bytes::copy_from_slice) }
    }
}

impl<V: Clone> Iterator for WalkShared<V> {
    type Item = (Bytes, V);

    fn next(&mut self) -> Option<(Bytes, V)> {
        let (key, value) = self.map.range::<Bytes, _>((self.next.as_ref(), Unbounded)).next()?;
        self.next = Excluded(key.clone());
        Some((key.clone(), value.clone()))
    }
}
