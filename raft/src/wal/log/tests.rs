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
    let records =
        [entry(1, 1), membership(2, 1), entry(3, 2), entry(4, 2), membership(5, 2), entry(6, 4)];
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
        let records: Vec<_> = commits.iter().map(|index| Record::Commit(Index(*index))).collect();
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
        (small(), small(), any::<bool>()).prop_map(|(index, term, keeps)| base(index, term, keeps)),
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
