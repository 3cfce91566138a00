//! The end of a run: everything is repaired, and what clients saw is judged.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use proof::history::{Answer, Call, History, Limit, Outcome, Tally, Verdict, check, check_appends};

use super::clients::Clients;
use super::cluster::Cluster;
use super::contents;
use super::panics;
use super::process::Node;

/// How soon the cluster must be whole again, once nothing is wrong any more.
const HEALED_WITHIN: Duration = Duration::from_secs(30);
/// How soon clients must be answered then. A simulated connection that lost something never recovers, where a real one would send it
/// again: it is given up when a call between two rafts has waited for ten seconds.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// Clients of a run.
const CLIENTS: u64 = 4;
/// Answers that show that it is at work.
const SOME: usize = 50;

/// Clients at work on a cluster, each beginning at another node.
pub fn busy(cluster: &mut Cluster, seed: u64) -> Clients {
    let clients = Clients::default();
    for client in 1..=CLIENTS {
        let endpoints = cluster.endpoints_from(usize::try_from(client).expect("few"));
        clients.start(cluster, client, seed, &endpoints);
    }
    clients
}

/// Demands progress, stops the clients and checks what they saw; how many there were.
///
/// # Panics
/// When anything is wrong.
pub fn judge(cluster: &mut Cluster, clients: &Clients) -> Tally {
    let before = clients.answered();
    cluster.until("answers after all is repaired", ANSWERED_WITHIN, |_| {
        clients.answered() >= before + SOME
    });
    cluster.until("whole after all is repaired", HEALED_WITHIN, Cluster::is_whole);
    clients.end();
    cluster.until("clients end", HEALED_WITHIN, |_| clients.have_ended());
    let endpoints = cluster.endpoints_from(1);
    let read = clients.read_all(&mut cluster.sim, &endpoints);
    cluster.until("a last read of all keys", HEALED_WITHIN, |_| read.get());
    machines_are_equal(cluster);
    panics::assert_none();
    history_is_sound(&clients.history())
}

/// Whether what was seen could have been seen of one machine, each request applied once.
fn history_is_sound(history: &History) -> Tally {
    match check(history, Limit::default()) {
        Verdict::Linearizable => {}
        Verdict::Violated(violation) => panic!("not linearizable: {violation}"),
        Verdict::Undecided => panic!("the history is too long to be decided"),
    }
    let finals: BTreeMap<String, String> = history
        .operations()
        .iter()
        .filter(|operation| operation.client == 0 && operation.key.starts_with("list"))
        .filter_map(|operation| match (&operation.call, &operation.outcome) {
            (Call::Get, Outcome::Ok { answer: Answer::Value(value), .. }) => {
                Some((operation.key.clone(), value.clone().unwrap_or_default()))
            }
            _ => None,
        })
        .collect();
    assert!(!finals.is_empty(), "no list was read in the end");
    if let Err(violation) = check_appends(history, &finals) {
        panic!("not exactly once: {violation}");
    }
    history.tally()
}

/// Nobody writes any more, so all machines come to the same entry, and must hold the same.
fn machines_are_equal(cluster: &mut Cluster) {
    cluster.until("all machines apply all", HEALED_WITHIN, |cluster| {
        cluster.statuses().is_some_and(|statuses| {
            statuses.iter().all(|status| {
                status.applied_index == status.last_index
                    && status.last_index == statuses[0].last_index
            })
        })
    });
    let found: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
    let statuses = cluster.statuses().expect("all have just answered");
    let asked: Vec<_> = cluster.nodes.iter().map(Node::machine_endpoint).zip(statuses).collect();
    let (count, holds) = (asked.len(), Rc::clone(&found));
    cluster.sim.client("auditor", async move {
        for (endpoint, status) in asked {
            let contents = contents::read(&endpoint, &status).await?;
            holds.borrow_mut().push(contents);
        }
        Ok(())
    });
    cluster.until("all machines tell what they hold", HEALED_WITHIN, |_| {
        found.borrow().len() == count
    });
    let found = found.borrow();
    assert!(found[0].len() > 1, "the machines are empty");
    assert!(found.iter().all(|contents| *contents == found[0]), "the machines differ");
}
