//! A hundred members in one seeded network, ours and foca's: how soon is a death found, how often is one imagined, what
//! does it cost. `scripts/gossip-world.sh` prints the tables at length; docs/gossip.md has them and says what they mean.
//!
//! `MEASURE_HOURS` sets how many member hours each false-death row has; without it, a number that suits the gate.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and times of a simulation are far below 2^52"
)]

#[cfg(test)]
mod detection;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod gossip;
#[cfg(test)]
mod network;
#[cfg(test)]
mod ours;
#[cfg(test)]
mod partitions;
#[cfg(test)]
mod tally;
#[cfg(test)]
mod truth;
#[cfg(test)]
mod yardstick;

/// In every world here.
const MEMBERS: usize = 100;
