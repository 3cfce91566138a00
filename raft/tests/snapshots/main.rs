//! The files of snapshots against a disk that tears, loses, flips, refuses and runs full, and against leaders that send
//! anything: a snapshot is there as a whole or not at all.

#![expect(clippy::unwrap_used, reason = "here a failed unwrap is a failed test")]

mod crash;
mod damage;
mod model;
mod receive;
mod round_trip;
#[path = "../support/simulated_disk.rs"]
mod simulated_disk;
