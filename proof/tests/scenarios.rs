//! `docs/scenarios.md` says which test covers what can go wrong. Here the table is kept true: whatever it names exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// How many lines each part of the list has. A line is closed by a test or by a reason, never by being taken out.
const PARTS: [(char, usize); 9] = [
    ('G', 13),
    ('C', 21),
    ('S', 21),
    ('N', 11),
    ('P', 9),
    ('M', 20),
    ('K', 9),
    ('A', 12),
    ('X', 10),
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn table() -> String {
    fs::read_to_string(repository().join("docs/scenarios.md")).expect("the table is there")
}

/// The lines of the list: id and what covers it.
fn lines(table: &str) -> impl Iterator<Item = (&str, &str)> {
    table.lines().filter_map(|line| {
        let (id, rest) = line.strip_prefix("| ")?.split_once(" | ")?;
        let covered = rest.strip_suffix(" |")?.rsplit(" | ").next()?;
        id.ends_with(|last: char| last.is_ascii_digit()).then_some((id, covered))
    })
}

/// Everything in backticks that is a path of this repository.
fn references(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|quoted| quoted.contains('/'))
}

/// Says what is wrong with a reference to a file, or to a test in it.
fn complaint(reference: &str) -> Option<String> {
    let (file, test) = match reference.split_once("::") {
        Some((file, test)) => (file, Some(test)),
        None => (reference, None),
    };
    let path = repository().join(file);
    if test.is_none() {
        return (!path.exists()).then(|| format!("{reference}: there is no such file"));
    }
    let Ok(source) = fs::read_to_string(path) else {
        return Some(format!("{reference}: there is no such file"));
    };
    let is_there = test.is_some_and(|test| has_test(&source, test));
    (!is_there).then(|| format!("{reference}: there is no such test in it"))
}

/// Whether the source has a function of exactly this name that is a test which runs: the attributes that stand directly above it, comments
/// and nothing else between them, say so.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let begins = [format!("fn {name}("), format!("async fn {name}(")];
    let is_it = |line: &str| begins.iter().any(|begin| line.starts_with(begin.as_str()));
    let functions = (0..lines.len()).filter(|at| is_it(lines[*at]));
    let mut attributes = functions.map(|at| {
        let above = lines[..at].iter().rev();
        above
            .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
            .collect::<Vec<_>>()
    });
    attributes.any(|above| {
        let marked = above.iter().any(|line| is_mark_of_a_test(line));
        marked && !above.iter().any(|line| line.starts_with("#[ignore"))
    })
}

/// `#[test]`, `#[tokio::test]`, or the latter with settings.
fn is_mark_of_a_test(line: &str) -> bool {
    ["#[test]", "#[tokio::test]"].contains(&line) || line.starts_with("#[tokio::test(")
}

#[test]
fn every_line_of_the_list_is_there_once_and_closed() {
    let table = table();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, covered) in lines(&table) {
        *seen.entry(id).or_default() += 1;
        assert!(!covered.trim().is_empty(), "{id} says nothing about what covers it");
        let closed = ["Not covered:", "Nothing to test:", "the simulation"]
            .iter()
            .any(|words| covered.contains(words));
        assert!(
            closed || references(covered).next().is_some(),
            "{id} names neither a test nor a reason"
        );
    }
    for (part, count) in PARTS {
        for number in 1..=count {
            let id = format!("{part}{number}");
            assert_eq!(seen.remove(id.as_str()), Some(1), "{id} stands in the table once");
        }
    }
    assert!(seen.is_empty(), "nobody knows these lines: {seen:?}");
}

#[test]
fn every_test_that_the_table_names_exists() {
    let table = table();
    let complaints: Vec<String> = references(&table).filter_map(complaint).collect();
    assert!(complaints.is_empty(), "docs/scenarios.md:\n{}", complaints.join("\n"));
    assert!(references(&table).count() > 200, "the table is read to its end");
}

#[test]
fn a_name_that_does_not_exist_is_noticed() {
    assert!(complaint("raft/tests/no_such_file.rs").is_some());
    assert!(complaint("raft/tests/paper.rs::no_such_test").is_some());
    assert!(complaint("raft/tests/paper.rs::role").is_some(), "a helper is no test");
    assert!(complaint("scripts/no-such.sh").is_some());
}

#[test]
fn only_a_test_of_just_this_name_counts() {
    let source = "
        #[test]
        fn the_first_of_two() {}

        fn a_helper_below_a_test() {}

        #[tokio::test(flavor = \"multi_thread\")]
        // Why it is as it is.
        async fn one_that_waits() {}

        #[test]
        #[ignore]
        fn one_that_never_runs() {}

        // fn in_a_comment() {}
        #[cfg(test)]
        fn only_built_for_tests() {}
    ";
    for (name, counts) in [
        ("the_first_of_two", true),
        ("one_that_waits", true),
        ("first_of_two", false),
        ("the_first", false),
        ("a_helper_below_a_test", false),
        ("one_that_never_runs", false),
        ("in_a_comment", false),
        ("only_built_for_tests", false),
    ] {
        assert_eq!(has_test(source, name), counts, "{name}");
    }
}
