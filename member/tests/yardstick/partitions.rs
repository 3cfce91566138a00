//! Both sides of a partition that lasted until each held the other for dead find each other again.
//!
//! Ours by the dead that every member tries, 3 at a time every 20 s or, on a side of one, every second; foca's by what it calls
//! announcing to down members, 2 every 65 s, and by the introducers.

use crate::MEMBERS;
use crate::gossip::Gossip;
use crate::network::Network;
use crate::ours::{Default, Ours};
use crate::yardstick::{OurTiming, Yardstick};

/// Time until everyone sees everyone, in ms, after a partition that cut the first `size` members off.
fn merge<G: Gossip>(seed: u64, size: usize, within_ms: u64) {
    let mut network = Network::<G>::converged(seed, MEMBERS);
    let small = MEMBERS - size..MEMBERS;
    network.partition(|member| u8::from(small.contains(&member)));
    let lasted_ms = network.expect_within(1_800_000, "both sides bury each other", |network| {
        network.living().all(|one| {
            network.living().all(|other| {
                one == other
                    || network.believes_in(one, other)
                        == (small.contains(&one) == small.contains(&other))
            })
        })
    });
    network.heal();
    let took_ms =
        network.expect_within(within_ms, "both sides are one again", Network::is_converged);
    println!(
        "| {:2} and {size:2} | {:14} | {:5.1} | {:5.1} |",
        MEMBERS - size,
        G::NAME,
        lasted_ms as f64 / 1_000.0,
        took_ms as f64 / 1_000.0
    );
}

#[test]
fn halves_that_buried_each_other_merge_within_a_minute() {
    merge::<Ours<Default>>(1, MEMBERS / 2, 60_000);
    merge::<Yardstick<OurTiming>>(1, MEMBERS / 2, 600_000);
}

#[test]
fn one_that_was_cut_off_is_taken_back_within_a_minute() {
    merge::<Ours<Default>>(2, 1, 60_000);
    merge::<Yardstick<OurTiming>>(2, 1, 600_000);
}
