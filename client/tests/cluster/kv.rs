//! The verbs of the key-value machine where once too often would show.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use raft::rpc::client::Outcome;
use raft::rpc::wire::Endpoint;
use state_machine::kv::command::{Command, Swap, decode_swap};

use crate::harness::caller::Caller;
use crate::harness::cluster::{Cluster, QUICK};
use crate::harness::program::Program;
use crate::harness::wait::eventually;

const WRITERS: usize = 4;
const KILLS: u64 = 3;
/// Rounds of all writers between two kills.
const SOME: u64 = 100;
/// Rounds of a writer that go into one value, so that values stay short.
const ROUNDS_PER_KEY: u64 = 100;

#[derive(Default)]
struct Progress {
    rounds: AtomicU64,
    stop: AtomicBool,
}

/// Appends and compares until it is told to stop; the number of its rounds.
async fn write(endpoints: Vec<Endpoint>, writer: usize, progress: Arc<Progress>) -> u64 {
    let mut caller = Caller::new(endpoints, writer);
    caller.open_session().await;
    let text = |text: String| Bytes::from(text);
    let mut round = 0;
    while !progress.stop.load(Ordering::Relaxed) {
        let key = text(format!("log/{writer}/{}", round / ROUNDS_PER_KEY));
        caller.submit(&Command::Append { key, value: text(format!("{round};")) }).await;
        let expected = (round > 0).then(|| text(round.to_string()));
        let (key, value) = (text(format!("turn/{writer}")), text((round + 1).to_string()));
        let turned = caller.submit(&Command::Cas { key, expected, value }).await.outcome;
        match &turned {
            Outcome::Done(answer) => assert_eq!(decode_swap(answer), Ok(Swap::Done), "{round}"),
            Outcome::AlreadyApplied => {}
            Outcome::Refused(_) => panic!("{turned:?}"),
        }
        round += 1;
        progress.rounds.fetch_add(1, Ordering::Relaxed);
    }
    round
}

#[tokio::test]
async fn appends_and_swaps_happen_once_while_leaders_die() {
    let mut cluster = Cluster::form(3, QUICK).await;
    let progress = Arc::<Progress>::default();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(cluster.endpoints(), writer, Arc::clone(&progress))))
        .collect();
    for kill in 1..=KILLS {
        eventually("rounds", async || {
            (progress.rounds.load(Ordering::Relaxed) >= kill * SOME).then_some(())
        })
        .await;
        let leader = cluster.leader().await;
        cluster.node(leader).bounce(Program::Raft).await;
    }
    progress.stop.store(true, Ordering::Relaxed);
    let mut caller = Caller::new(cluster.endpoints(), 0);
    for (writer, rounds) in writers.into_iter().enumerate() {
        let rounds = rounds.await.unwrap();
        assert_eq!(caller.get(&format!("turn/{writer}")).await, Some(rounds.to_string()));
        for begin in (0..rounds).step_by(usize::try_from(ROUNDS_PER_KEY).unwrap()) {
            let end = rounds.min(begin + ROUNDS_PER_KEY);
            let expected: Vec<_> = (begin..end).map(|round| format!("{round};")).collect();
            let key = format!("log/{writer}/{}", begin / ROUNDS_PER_KEY);
            assert_eq!(caller.get(&key).await, Some(expected.concat()), "{key}");
        }
    }
}
