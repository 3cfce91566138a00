//! Wrong histories, each with what is wrong in it, and right ones that look like them.

use std::collections::BTreeMap;

use proof::history::{
    Answer, Call, History, Limit, Operation, Verdict, Violation, check, check_appends,
};

use crate::begin;

fn put(text: &str) -> Call {
    Call::Put(text.to_owned())
}

fn append(text: &str) -> Call {
    Call::Append(text.to_owned())
}

fn saw(text: &str) -> Answer {
    Answer::Value(Some(text.to_owned()))
}

fn verdict(operations: impl IntoIterator<Item = Operation>) -> Verdict {
    check(&operations.into_iter().collect(), Limit::default())
}

/// The operations that show what is wrong, as text.
#[track_caller]
fn shown(operations: impl IntoIterator<Item = Operation>) -> Vec<String> {
    let Verdict::Violated(violation) = verdict(operations) else { panic!("it was not seen") };
    violation.operations.iter().map(ToString::to_string).collect()
}

#[test]
fn a_stale_read_is_seen() {
    let operations = [
        begin(1, "x", put("old"), 0).ok(10, Answer::Applied),
        begin(2, "x", Call::Get, 11).ok(12, saw("old")),
        begin(1, "x", put("new"), 20).ok(30, Answer::Applied),
        begin(2, "x", Call::Get, 40).ok(50, saw("old")),
    ];
    let witness = shown(operations);
    assert_eq!(
        witness.len(),
        3,
        "the new write, the stale read, and what says that the old write was over: {witness:?}"
    );
    assert_eq!(witness[2], r#"40..50 client 2: get -> "old""#);
}

#[test]
fn a_read_during_a_write_may_see_either_but_not_go_back() {
    let during = |first: &str, second: &str| {
        [
            begin(1, "x", put("old"), 0).ok(10, Answer::Applied),
            begin(1, "x", put("new"), 20).ok(60, Answer::Applied),
            begin(2, "x", Call::Get, 30).ok(40, saw(first)),
            begin(3, "x", Call::Get, 45).ok(50, saw(second)),
        ]
    };
    assert_eq!(verdict(during("old", "new")), Verdict::Linearizable);
    assert_eq!(verdict(during("old", "old")), Verdict::Linearizable);
    assert_eq!(verdict(during("new", "new")), Verdict::Linearizable);
    assert_eq!(shown(during("new", "old")).len(), 3, "the write, and both reads");
}

#[test]
fn a_lost_write_is_seen() {
    let operations = [
        begin(1, "x", Call::Increment, 0).ok(10, Answer::Number(1)),
        begin(2, "x", Call::Increment, 11).ok(20, Answer::Number(2)),
        begin(1, "x", Call::Get, 30).ok(40, saw("1")),
    ];
    assert_eq!(shown(operations).len(), 2, "the second increment and the read");
}

#[test]
fn a_doubled_write_is_seen() {
    let operations = [
        begin(1, "x", Call::Increment, 0).ok(10, Answer::Number(1)),
        begin(1, "x", Call::Get, 30).ok(40, saw("2")),
    ];
    assert_eq!(shown(operations), [r#"30..40 client 1: get -> "2""#]);
}

#[test]
fn a_write_of_unknown_outcome_happens_late_or_never_but_once() {
    let read = |first: &str, second: &str| {
        [
            begin(1, "x", Call::Increment, 0).ok(10, Answer::Number(1)),
            begin(1, "x", Call::Increment, 11).unknown(),
            begin(2, "x", Call::Get, 30).ok(40, saw(first)),
            begin(2, "x", Call::Get, 50).ok(60, saw(second)),
        ]
    };
    assert_eq!(verdict(read("1", "1")), Verdict::Linearizable);
    assert_eq!(verdict(read("1", "2")), Verdict::Linearizable);
    assert_eq!(verdict(read("2", "2")), Verdict::Linearizable);
    assert!(matches!(verdict(read("2", "1")), Verdict::Violated(_)));
    assert!(matches!(verdict(read("2", "3")), Verdict::Violated(_)));
}

#[test]
fn a_read_of_what_was_refused_is_seen_with_the_refused_write() {
    let operations = [
        begin(1, "x", put("aborted"), 0).refused(10),
        begin(2, "x", Call::Get, 20).ok(30, saw("aborted")),
    ];
    assert_eq!(
        shown(operations),
        [r#"0..10 client 1: put "aborted" -> refused"#, r#"20..30 client 2: get -> "aborted""#]
    );
}

#[test]
fn a_read_before_its_write_is_seen() {
    let operations = [
        begin(2, "x", Call::Get, 0).ok(10, saw("later")),
        begin(1, "x", put("later"), 20).ok(30, Answer::Applied),
    ];
    assert_eq!(shown(operations), [r#"0..10 client 2: get -> "later""#]);
}

#[test]
fn a_split_brain_is_seen() {
    let operations = [
        begin(1, "x", put("left"), 0).ok(10, Answer::Applied),
        begin(2, "x", put("right"), 0).ok(10, Answer::Applied),
        begin(1, "x", Call::Get, 20).ok(30, saw("left")),
        begin(2, "x", Call::Get, 20).ok(30, saw("right")),
        begin(1, "x", Call::Get, 40).ok(50, saw("left")),
        begin(2, "x", Call::Get, 40).ok(50, saw("right")),
    ];
    assert!(shown(operations).len() >= 3);
}

#[test]
fn two_winners_of_one_swap_are_seen() {
    let swap = |new: &str| Call::CompareAndSet { expected: None, new: new.to_owned() };
    let operations = [
        begin(1, "lock", swap("one"), 0).ok(10, Answer::Swapped),
        begin(2, "lock", swap("two"), 5).ok(15, Answer::Swapped),
    ];
    assert_eq!(shown(operations).len(), 2);
    let operations = [
        begin(1, "lock", swap("one"), 0).ok(10, Answer::Swapped),
        begin(2, "lock", swap("two"), 5).ok(15, Answer::NotSwapped(Some("one".to_owned()))),
    ];
    assert_eq!(verdict(operations), Verdict::Linearizable);
}

#[test]
fn a_removed_key_that_comes_back_is_seen() {
    let operations = [
        begin(1, "x", put("ghost"), 0).ok(10, Answer::Applied),
        begin(1, "x", Call::Delete, 20).ok(30, Answer::Removed(true)),
        begin(2, "x", Call::Get, 40).ok(50, saw("ghost")),
    ];
    assert_eq!(shown(operations).len(), 2, "the removal and the read");
}

#[test]
fn keys_do_not_explain_each_other() {
    let operations = [
        begin(1, "x", put("value"), 0).ok(10, Answer::Applied),
        begin(2, "y", Call::Get, 20).ok(30, saw("value")),
    ];
    let Verdict::Violated(violation) = verdict(operations) else { panic!("it was not seen") };
    assert_eq!(violation.key, "y");
}

#[test]
fn a_reordered_session_is_seen_in_the_search_and_in_the_list() {
    let operations = [
        begin(1, "list", append("1.1;"), 0).ok(10, Answer::Applied),
        begin(1, "list", append("1.2;"), 20).ok(30, Answer::Applied),
        begin(2, "list", Call::Get, 40).ok(50, saw("1.2;1.1;")),
    ];
    assert_eq!(shown(operations.clone()).len(), 2, "the first, which was over, and the read");
    assert!(finally(operations, "1.2;1.1;").unwrap_err().reason.contains("stands behind it"));
}

fn finally(operations: impl IntoIterator<Item = Operation>, value: &str) -> Result<(), Violation> {
    let history: History = operations.into_iter().collect();
    check_appends(&history, &BTreeMap::from([("list".to_owned(), value.to_owned())]))
}

#[test]
fn each_piece_of_a_list_is_there_as_often_as_its_outcome_says() {
    let operations = || {
        [
            begin(1, "list", append("1.1;"), 0).ok(10, Answer::Length(4)),
            begin(1, "list", append("1.2;"), 11).refused(20),
            begin(1, "list", append("1.3;"), 21).unknown(),
            begin(2, "list", append("2.1;"), 0).ok(50, Answer::Applied),
        ]
    };
    for fine in ["1.1;2.1;", "2.1;1.1;", "1.1;1.3;2.1;", "1.1;2.1;1.3;"] {
        assert_eq!(finally(operations(), fine), Ok(()), "{fine}");
    }
    for (wrong, why) in [
        ("1.1;", "\"2.1;\" was acknowledged and is lost"),
        ("1.1;2.1;1.1;", "\"1.1;\" is there twice"),
        ("1.1;1.3;1.3;2.1;", "\"1.3;\" is there twice"),
        ("1.1;1.2;2.1;", "\"1.2;\" was refused and is there"),
        ("1.1;7.7;2.1;", "nobody appended \"7.7;\""),
        ("1.1;2.1;1", "nobody appended \"1\""),
        ("1.3;1.1;2.1;", "stands behind it"),
    ] {
        let violation = finally(operations(), wrong).unwrap_err();
        assert!(violation.to_string().contains(why), "{wrong}: {violation}");
    }
}

#[test]
fn a_key_that_was_not_only_appended_to_is_not_taken_for_a_list() {
    let operations = [
        begin(1, "list", append("1.1;"), 0).ok(10, Answer::Applied),
        begin(1, "list", Call::Delete, 20).ok(30, Answer::Removed(true)),
    ];
    assert_eq!(finally(operations, ""), Ok(()));
}

#[test]
fn too_little_budget_is_no_verdict() {
    let operation = begin(1, "x", put("value"), 0).ok(10, Answer::Applied);
    let history: History = [operation].into_iter().collect();
    assert_eq!(check(&history, Limit(0)), Verdict::Undecided);
    assert_eq!(check(&history, Limit(10)), Verdict::Linearizable);
}

#[test]
fn a_history_is_the_same_after_it_was_a_file() {
    let history: History = [
        begin(1, "x", put("ü \"quoted\"\n"), 0).ok(10, Answer::Applied),
        begin(2, "x", Call::CompareAndSet { expected: None, new: String::new() }, 3).unknown(),
        begin(3, "x", Call::Get, 5).ok(u64::MAX, Answer::Value(None)),
        begin(3, "x", Call::Increment, 6).refused(7),
    ]
    .into_iter()
    .collect();
    let mut file = Vec::new();
    history.write_lines(&mut file).unwrap();
    assert_eq!(str::from_utf8(&file).unwrap().lines().count(), 4);
    assert_eq!(History::read_lines(&file[..]).unwrap(), history);
    assert!(History::read_lines(&b"{}\n"[..]).is_err());
}
