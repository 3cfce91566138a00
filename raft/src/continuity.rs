//! Whether the log goes on from the newest snapshot: asked once at start, before anything is said to a peer.
//!
//! A snapshot file and the log are not written together, so a crash may leave the log where it was before a snapshot was
//! received. It never leaves the log beyond the snapshots: an entry is dropped only when a durable snapshot includes it.

use crate::consensus::{Index, LogId, Restored, SnapshotMeta, Term};

/// What the node starts with.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Log and snapshot together.
    pub restored: Restored,
    /// The log does not reach the snapshot, or holds other entries: make it begin after this before it is written to
    /// ([`Wal::compact`](crate::wal::Wal::compact)). Nothing of it was ever committed that the snapshot lacks.
    pub replace_log: Option<SnapshotMeta>,
}

/// Log and snapshots do not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Discontinuity {
    /// Entries are in neither.
    #[error(
        "the log begins after entry {base} and {}: what lies between is lost. This node must not vote with it. Keep a copy \
         of the directory, check the disk, then start the node with an empty data directory: it joins as a new node and \
         the others send it what it lacks",
        .snapshot.map_or("there is no whole snapshot".to_owned(), |at| format!("the newest whole snapshot ends at {at}"))
    )]
    Gap {
        /// Last entry that the log no longer holds.
        base: Index,
        /// Where the newest whole snapshot ends, if there is one.
        snapshot: Option<Index>,
    },
    /// A committed entry is another one in the log than in the snapshot.
    #[error(
        "the newest snapshot ends at entry {} of term {}, which is of term {} in the log, where it is committed: \
         they are of different nodes or clusters. This node must not vote with them. Was a file copied here by mistake? \
         Keep a copy of the directory, then start the node with an empty data directory: it joins as a new node and the \
         others send it what it lacks",
        .snapshot.index, .snapshot.term, .found
    )]
    Contradiction {
        /// Last entry of the snapshot.
        snapshot: LogId,
        /// Its term in the log.
        found: Term,
    },
}

/// Joins what was found in the log with the newest whole snapshot.
///
/// # Errors
/// [`Discontinuity`]: nothing may be started from this.
pub fn join(log: Restored, snapshot: Option<SnapshotMeta>) -> Result<Joined, Discontinuity> {
    let base = log.base.as_ref().map_or(Index(0), |base| base.last.index);
    let newest = snapshot.as_ref().map(|meta| meta.last);
    let Some(meta) = snapshot.filter(|meta| meta.last.index >= base) else {
        if base == Index(0) {
            return Ok(Joined { restored: log, replace_log: None });
        }
        return Err(Discontinuity::Gap { base, snapshot: newest.map(|last| last.index) });
    };
    match term_at(&log, meta.last.index) {
        Some(term) if term == meta.last.term => {
            let restored = Restored { snapshot: Some(meta), ..log };
            Ok(Joined { restored, replace_log: None })
        }
        Some(found) if meta.last.index <= log.commit_index.max(base) => {
            Err(Discontinuity::Contradiction { snapshot: meta.last, found })
        }
        Some(_) | None => Ok(replaced(&log, meta)),
    }
}

/// Nothing but the snapshot; term, vote and what was known to be committed stay.
fn replaced(log: &Restored, meta: SnapshotMeta) -> Joined {
    let restored = Restored {
        hard_state: log.hard_state,
        base: Some(meta.clone()),
        snapshot: Some(meta.clone()),
        last: meta.last,
        commit_index: meta.last.index,
        ..Restored::default()
    };
    Joined { restored, replace_log: Some(meta) }
}

/// Term of an entry that the log holds, or begins after.
fn term_at(log: &Restored, index: Index) -> Option<Term> {
    let base = log.base.as_ref().map_or(LogId::default(), |base| base.last);
    if index == base.index {
        return Some(base.term);
    }
    if index > log.last.index {
        return None;
    }
    let run = log.terms.partition_point(|(first, _)| *first <= index).checked_sub(1)?;
    Some(log.terms[run].1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{HardState, Membership, NodeId};

    fn id(index: u64, term: u64) -> LogId {
        LogId::new(Term(term), Index(index))
    }

    fn meta(index: u64, term: u64) -> SnapshotMeta {
        let membership = Membership { voters: [NodeId(index)].into(), ..Membership::default() };
        SnapshotMeta { last: id(index, term), membership, membership_index: Index(1) }
    }

    /// Entries up to 9, in term 2 up to 5 and in term 3 from there; everything up to 6 is known to be committed.
    fn log(base: Option<SnapshotMeta>) -> Restored {
        let first = base.as_ref().map_or(Index(1), |base| base.last.index.next());
        Restored {
            hard_state: HardState { term: Term(4), vote: Some(NodeId(7)) },
            base,
            terms: vec![(first, Term(2)), (Index(6), Term(3))],
            last: id(9, 3),
            commit_index: Index(6),
            ..Restored::default()
        }
    }

    #[test]
    fn a_log_that_holds_the_snapshots_last_entry_goes_on_as_it_is() {
        for base in [None, Some(meta(3, 2))] {
            for snapshot in [meta(3, 2), meta(5, 2), meta(6, 3), meta(9, 3)] {
                let Joined { restored, replace_log } =
                    join(log(base.clone()), Some(snapshot.clone())).unwrap();
                assert_eq!(replace_log, None, "{snapshot:?}");
                assert_eq!((restored.base, restored.snapshot), (base.clone(), Some(snapshot)));
                assert_eq!((restored.last, restored.terms.len()), (id(9, 3), 2));
            }
        }
        let whole = join(log(None), None).unwrap();
        assert_eq!((whole.restored.snapshot, whole.replace_log), (None, None));
    }

    #[test]
    fn a_log_that_ends_before_the_snapshot_or_contradicts_it_is_replaced() {
        for base in [None, Some(meta(3, 2))] {
            // Entries 7 to 9 of the log were never committed.
            for snapshot in [meta(10, 3), meta(40, 5), meta(8, 4)] {
                let Joined { restored, replace_log } =
                    join(log(base.clone()), Some(snapshot.clone())).unwrap();
                assert_eq!(replace_log, Some(snapshot.clone()));
                assert_eq!(restored.base, Some(snapshot.clone()));
                assert_eq!((restored.last, &restored.terms[..]), (snapshot.last, &[][..]));
                assert_eq!(restored.commit_index, snapshot.last.index);
                assert_eq!(restored.hard_state, log(None).hard_state, "the vote stays");
            }
        }
    }

    #[test]
    fn a_log_that_begins_beyond_the_snapshots_is_refused() {
        let cases = [
            (Some(meta(3, 2)), None, Some("after entry 3 and there is no whole snapshot")),
            (
                Some(meta(3, 2)),
                Some(meta(2, 2)),
                Some("after entry 3 and the newest whole snapshot ends at 2"),
            ),
            (Some(meta(3, 2)), Some(meta(3, 2)), None),
            (None, Some(meta(2, 2)), None),
        ];
        for (base, snapshot, expected) in cases {
            match (join(log(base), snapshot), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(text)) => assert!(error.to_string().contains(text), "{error}"),
                (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn a_snapshot_that_contradicts_a_committed_entry_is_refused() {
        for (base, snapshot) in
            [(None, meta(6, 4)), (None, meta(2, 1)), (Some(meta(3, 2)), meta(3, 1))]
        {
            let expected = snapshot.last;
            match join(log(base), Some(snapshot)) {
                Err(Discontinuity::Contradiction { snapshot, .. }) => {
                    assert_eq!(snapshot, expected);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
