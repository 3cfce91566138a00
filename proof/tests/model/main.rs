//! Model checking of the consensus core: its real code, in a world so small that every order of events can be followed, by
//! stateright's breadth-first search. What a simulation finds by chance is here either absent or found.
//!
//! What can happen: a message that was sent arrives, at any time, or again, or never; a write becomes durable; a process
//! crashes with any part of what it was writing and starts again; somebody turns against its leader or campaigns again; time
//! passes; a client proposes or reads; the configuration changes. The words of each world say how often. Timers do not run out
//! by themselves, since an event says when they do; a disk is never taken for stalled, and no snapshots are taken.
//!
//! `scripts/model.sh` follows larger worlds.

#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(clippy::print_stdout, reason = "a run says how far it came")]

#[path = "../../../raft/tests/support/mod.rs"]
mod support;

mod bounds;
mod facts;
mod identity;
mod process;
mod properties;
mod replicas;
mod world;

use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use stateright::{Checker, CheckerBuilder, HasDiscoveries, Model};

use replicas::Disk;
use world::World;

fn search(world: World) -> CheckerBuilder<World> {
    world.checker().threads(available_parallelism().map_or(1, NonZeroUsize::get))
}

/// Follows every course of a world, prints how many states there were, and demands every property. Far fewer states than there
/// once were would mean that something no longer happens.
fn exhaust(words: &str, least_states: usize) {
    let checker = search(World::of(words, Disk::Sound)).spawn_bfs().join();
    println!("{words}: {}, all there are", extent(&checker));
    demand(&checker);
    let states = checker.unique_state_count();
    assert!(states >= least_states, "only {states} states");
}

fn extent(checker: &impl Checker<World>) -> String {
    format!(
        "{} states made of {} states of single replicas, up to {} events deep",
        checker.unique_state_count(),
        checker.model().replicas.met(),
        checker.max_depth() - 1
    )
}

/// Every property holds, and everything that should be possible was seen.
fn demand(checker: &impl Checker<World>) {
    demand_safety(checker);
    let unseen = unseen(checker);
    assert!(unseen.is_empty(), "never seen: {unseen:?}");
}

fn unseen(checker: &impl Checker<World>) -> Vec<&'static str> {
    let properties = checker.model().properties().into_iter();
    properties
        .filter(|property| !property.expectation.discovery_is_failure())
        .map(|property| property.name)
        .filter(|name| checker.discovery(name).is_none())
        .collect()
}

/// No property is violated, or the shortest course that does it is told.
fn demand_safety(checker: &impl Checker<World>) {
    let violations = violations(checker);
    assert!(violations.is_empty(), "violated: {violations}");
}

/// What is violated, each with the shortest course to it.
fn violations(checker: &impl Checker<World>) -> String {
    let properties = checker.model().properties().into_iter();
    let safety = properties.filter(|property| property.expectation.discovery_is_failure());
    let found = safety.filter_map(|property| {
        let course = checker.discovery(property.name)?.into_actions();
        Some(format!("{}\n{}\n", property.name, told(checker.model(), &course)))
    });
    found.collect()
}

fn told(world: &World, course: &[world::Action]) -> String {
    let lines: Vec<String> = course.iter().map(|action| world.format_action(action)).collect();
    lines.join("\n")
}

/// Two candidates, of whom one may be elected when the other's term is over.
#[test]
fn elections() {
    exhaust("cold campaigns=2 terms=3", 1_500_000);
}

/// Anybody crashes at any moment, and votes again or stands again.
#[test]
fn crashes() {
    exhaust("cold campaigns=2 crashes=1", 400_000);
}

/// A message arrives twice, with crashes around it.
#[test]
fn copies() {
    exhaust("cold campaigns=1 crashes=2 copies=1", 300_000);
}

/// An entry is held by all, by two or by one alone when somebody else takes over.
#[test]
fn replication() {
    exhaust("led proposals=1 campaigns=2 terms=4", 900_000);
}

#[test]
fn reads() {
    exhaust("led reads=1 campaigns=2 terms=3", 50_000);
}

#[test]
fn a_change_of_the_configuration() {
    exhaust("led changes=1 crashes=1", 200_000);
}

/// Worlds that somebody wants to know about, each for so many seconds at most; without any, a tiny one.
#[test]
fn worlds_of_ones_own() {
    let wanted = std::env::var("MODEL_WORLDS").unwrap_or_else(|_| "cold campaigns=1".to_owned());
    let seconds = std::env::var("MODEL_SECONDS").unwrap_or_else(|_| "600".to_owned());
    let limit = Duration::from_secs(seconds.parse().expect("a number of seconds"));
    for words in wanted.split(';').filter(|words| !words.trim().is_empty()) {
        follow(words, limit);
    }
}

/// Follows the courses of a world for as long as `limit`.
fn follow(words: &str, limit: Duration) {
    let began = Instant::now();
    let checker = search(World::of(words, Disk::Sound)).timeout(limit).spawn_bfs().join();
    let elapsed = began.elapsed();
    let ending = if elapsed < limit { "all there are" } else { "not all there are" };
    println!("{words}: {}, {ending}, in {} s", extent(&checker), elapsed.as_secs());
    demand_safety(&checker);
    for name in unseen(&checker) {
        println!("  never seen: {name}");
    }
}

/// What a search says of a disk that breaks its word.
fn found_out(disk: Disk) -> String {
    let world = World::of("cold terms=3 campaigns=2 crashes=1", disk);
    let checker = search(world).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    violations(&checker)
}

#[test]
fn a_disk_that_forgets_votes_is_found_out() {
    let found = found_out(Disk::ForgetsVotes);
    assert!(found.contains("a vote never changes"), "{found}");
    assert!(found.contains("Crash"), "{found}");
}

#[test]
fn a_disk_that_forgets_an_entry_is_found_out() {
    let found = found_out(Disk::ForgetsTheLastEntry);
    assert!(found.contains("what a leader commits is durable on a majority"), "{found}");
    assert!(found.contains("Crash"), "{found}");
}
