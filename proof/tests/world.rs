//! The simulated world: that it holds, that it repeats itself exactly, and that it sees what is planted in it.

use proof::world::{Plan, Plant, run};

/// Simulated seconds of misfortune in each run here; the command line runs longer ones.
const CHAOS_SECONDS: u64 = 40;

fn seeds() -> u64 {
    std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(50)
}

#[test]
fn clusters_survive_everything_that_goes_wrong() {
    let mut answered = 0;
    for seed in 1..=seeds() {
        match run(seed, &Plan::of(seed, CHAOS_SECONDS), false) {
            Ok(report) => answered += report.answered,
            Err(failure) => panic!(
                "seed {seed}: {}\nrepeat it: cargo run -p proof --bin simulate -- --seed {seed} --chaos {CHAOS_SECONDS}",
                failure.what
            ),
        }
    }
    assert!(answered > 400 * seeds(), "only {answered} operations");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let mut traces = Vec::new();
    for seed in 1..=5 {
        let trace = || run(seed, &Plan::of(seed, CHAOS_SECONDS), false).unwrap().trace;
        let first = trace();
        assert_eq!(first, trace(), "seed {seed}");
        traces.push(first);
    }
    traces.dedup();
    assert_eq!(traces.len(), 5, "each seed is a run of its own");
}

/// What the world says when this is planted, of the first seed that shows it.
fn found(plant: Plant) -> String {
    let failures = (1..=60).filter_map(|seed| {
        let plan = Plan { plant: Some(plant), ..Plan::of(seed, CHAOS_SECONDS) };
        run(seed, &plan, false).err()
    });
    failures.map(|failure| failure.what).next().expect("sixty seeds show it")
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    let what = found(Plant::AcknowledgeBeforeSync);
    assert!(
        what.contains("durable") || what.contains("on disk") || what.contains("disks"),
        "{what}"
    );
}

#[test]
fn a_forgotten_vote_is_found() {
    let what = found(Plant::ForgetVotes);
    assert!(what.contains("vote") || what.contains("two leaders"), "{what}");
}

#[test]
fn a_read_that_asks_nobody_is_found() {
    let what = found(Plant::ReadWithoutAsking);
    assert!(what.contains("not linearizable"), "{what}");
}

#[test]
fn a_retry_that_looks_new_is_found() {
    let what = found(Plant::RetryUnderNewNumber);
    assert!(what.contains("not linearizable") || what.contains("not exactly once"), "{what}");
}
