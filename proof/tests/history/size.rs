//! Histories of a real run's size: all of a correct register are accepted, each with one wrong answer is not.

use proof::history::{Answer, History, Limit, Operation, Outcome, Verdict, check, check_appends};

use crate::register::{Workload, run};

const SMALL: Workload =
    Workload { clients: 8, keys: 3, operations: 400, unknown_percent: 10, refused_percent: 5 };

#[test]
fn what_a_correct_register_showed_is_always_accepted() {
    for seed in 0..300 {
        let (history, finals) = run(&SMALL, seed);
        let verdict = check(&history, Limit::default());
        assert_eq!(verdict, Verdict::Linearizable, "seed {seed}");
        assert_eq!(check_appends(&history, &finals), Ok(()), "seed {seed}");
    }
}

#[test]
fn one_wrong_read_among_hundreds_is_seen_and_shown_small() {
    let mut sizes = Vec::new();
    for seed in 0..100 {
        let (history, _) = run(&Workload { unknown_percent: 3, ..SMALL }, seed);
        let mut operations = history.operations().to_vec();
        let gets = operations.iter_mut().filter_map(answer_of_a_read);
        *gets.last().expect("some reads were answered") = Some("never written".to_owned());
        let Verdict::Violated(violation) =
            check(&operations.into_iter().collect(), Limit::default())
        else {
            panic!("seed {seed}: it was not seen")
        };
        sizes.push(violation.operations.len());
    }
    assert!(sizes.iter().all(|size| *size == 1), "{sizes:?}");
}

#[test]
fn one_lost_append_among_hundreds_is_seen() {
    for seed in 0..100 {
        let (history, mut finals) = run(&SMALL, seed);
        let list = finals.get_mut("key0").expect("hundreds of operations on three keys");
        let (first, rest) = list.split_once(';').expect("some were appended");
        let was_acknowledged = history.operations().iter().any(|operation| {
            operation.call == proof::history::Call::Append(format!("{first};"))
                && matches!(operation.outcome, Outcome::Ok { .. })
        });
        *list = rest.to_owned();
        assert_eq!(check_appends(&history, &finals).is_err(), was_acknowledged, "seed {seed}");
    }
}

#[test]
fn a_hundred_thousand_operations_on_ten_keys_are_decided() {
    let workload = Workload {
        clients: 16,
        keys: 10,
        operations: 100_000,
        unknown_percent: 2,
        refused_percent: 1,
    };
    let (history, finals) = run(&workload, 1);
    assert!(history.tally().answered > 80_000, "{:?}", history.tally());
    assert_eq!(check(&history, Limit::default()), Verdict::Linearizable);
    assert_eq!(check_appends(&history, &finals), Ok(()));
    let stale: History = with_a_stale_read(&history);
    assert!(matches!(check(&stale, Limit::default()), Verdict::Violated(_)));
}

fn answer_of_a_read(operation: &mut Operation) -> Option<&mut Option<String>> {
    match &mut operation.outcome {
        Outcome::Ok { answer: Answer::Value(value), .. } => Some(value),
        Outcome::Ok { .. } | Outcome::Refused { .. } | Outcome::Unknown => None,
    }
}

/// A late read of a list shows what a much earlier one showed.
fn with_a_stale_read(history: &History) -> History {
    let mut operations = history.operations().to_vec();
    let mut lists = operations
        .iter_mut()
        .filter(|operation| operation.key == "key0")
        .filter_map(answer_of_a_read);
    let early = lists.next().expect("a read of the list").clone();
    *lists.last().expect("another read of the list") = early;
    operations.into_iter().collect()
}
