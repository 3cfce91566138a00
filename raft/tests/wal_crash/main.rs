//! The log against a disk that tears, loses, flips, refuses and runs full: it opens to exactly what was acknowledged
//! (and perhaps what was under way), or is refused with its place.

#![expect(clippy::unwrap_used, reason = "here a failed unwrap is a failed test")]

mod compaction;
mod crash;
mod damage;
mod errors;
mod inspection;
mod model;
mod refusals;
#[path = "../support/simulated_disk.rs"]
mod simulated_disk;
mod threads;
