//! The checker against one that tries all orders, on small histories of any kind.

use proof::history::{Answer, Call, History, Limit, Operation, Outcome, Verdict, check};
use proptest::prelude::*;

/// Whether some order of these operations explains them, by trying all.
fn has_order(operations: &[Operation], done: u32, value: Option<&str>) -> bool {
    let waiting = || (0..operations.len()).filter(|at| done & (1 << at) == 0);
    let mut must = waiting().filter(|at| matches!(operations[*at].outcome, Outcome::Ok { .. }));
    if must.next().is_none() {
        return true;
    }
    waiting().any(|at| {
        let is_over_before = |other: usize| match operations[other].outcome {
            Outcome::Ok { at: end, .. } => end < operations[at].invoked,
            Outcome::Refused { .. } | Outcome::Unknown => false,
        };
        !waiting().any(is_over_before)
            && step(&operations[at], value)
                .is_some_and(|after| has_order(operations, done | (1 << at), after.as_deref()))
    })
}

/// What is there.
type Value = Option<String>;

/// The value after it; none if it cannot happen here.
fn step(operation: &Operation, before: Option<&str>) -> Option<Value> {
    let answer = match &operation.outcome {
        Outcome::Ok { answer, .. } => Some(answer),
        Outcome::Refused { .. } => return None,
        Outcome::Unknown => None,
    };
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let (after, truth) = match &operation.call {
        Call::Put(value) => (Some(value.clone()), Answer::Applied),
        Call::Append(text) => {
            let value = format!("{}{text}", before.unwrap_or_default());
            let length = value.len() as u64;
            (Some(value), Answer::Length(length))
        }
        Call::Increment => {
            let number = before.unwrap_or("0").parse::<i64>().ok()? + 1;
            (Some(number.to_string()), Answer::Number(number))
        }
        Call::CompareAndSet { expected, new } if expected.as_deref() == before => {
            (Some(new.clone()), Answer::Swapped)
        }
        Call::CompareAndSet { .. } => (owned(before), Answer::NotSwapped(owned(before))),
        Call::Delete => (None, Answer::Removed(before.is_some())),
        Call::Get => (owned(before), Answer::Value(owned(before))),
    };
    answer.is_none_or(|answer| *answer == Answer::Applied || *answer == truth).then_some(after)
}

/// Few values, so that operations often meet the one that they need.
fn value() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        Just(None),
        Just(Some("1".to_owned())),
        Just(Some("2".to_owned())),
        Just(Some("a;".to_owned())),
        Just(Some("a;b;".to_owned())),
        Just(Some("b;a;".to_owned())),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("1".to_owned()),
        Just("2".to_owned()),
        Just("a;".to_owned()),
        Just("b;".to_owned())
    ]
}

fn call_and_answer(only_lists: bool) -> BoxedStrategy<(Call, Answer)> {
    let append = prop_oneof![Just("a;"), Just("b;")];
    let append = (append, 1..4_u64, any::<bool>()).prop_map(|(text, length, applied)| {
        let answer = if applied { Answer::Applied } else { Answer::Length(length * 2) };
        (Call::Append(text.to_owned()), answer)
    });
    let get = value().prop_map(|value| (Call::Get, Answer::Value(value)));
    if only_lists {
        return prop_oneof![append, get].boxed();
    }
    let swap = (value(), text(), prop_oneof![Just(None), value().prop_map(Some)]);
    let swap = swap.prop_map(|(expected, new, instead)| {
        let answer = instead.map_or(Answer::Swapped, Answer::NotSwapped);
        (Call::CompareAndSet { expected, new }, answer)
    });
    prop_oneof![
        text().prop_map(|text| (Call::Put(text), Answer::Applied)),
        append,
        (1..4_i64).prop_map(|number| (Call::Increment, Answer::Number(number))),
        swap,
        any::<bool>().prop_map(|removed| (Call::Delete, Answer::Removed(removed))),
        Just((Call::Delete, Answer::Applied)),
        get,
    ]
    .boxed()
}

fn operation(only_lists: bool) -> impl Strategy<Value = Operation> {
    (call_and_answer(only_lists), 0..12_u64, 0..8_u64, 0..8_u8).prop_map(
        |((call, answer), invoked, took, ending)| {
            let at = invoked + took;
            let outcome = match ending {
                0 | 1 => Outcome::Unknown,
                2 => Outcome::Refused { at },
                _ => Outcome::Ok { at, answer },
            };
            Operation { client: 1, key: "x".to_owned(), call, invoked, outcome }
        },
    )
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    any::<bool>().prop_flat_map(|only_lists| prop::collection::vec(operation(only_lists), 1..8))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn both_checkers_say_the_same(operations in operations()) {
        let expected = has_order(&operations, 0, None);
        let history: History = operations.into_iter().collect();
        match check(&history, Limit::default()) {
            Verdict::Linearizable => prop_assert!(expected, "accepted without an order"),
            Verdict::Violated(violation) => {
                prop_assert!(!expected, "refused with an order: {violation}");
                prop_assert!(!violation.operations.is_empty());
            }
            Verdict::Undecided => prop_assert!(false, "undecided"),
        }
    }
}
