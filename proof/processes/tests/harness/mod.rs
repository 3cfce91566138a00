//! A cluster of whole processes in one simulated network.

pub mod clients;
pub mod cluster;
pub mod contents;
pub mod faults;
pub mod idle;
pub mod invariants;
pub mod panics;
pub mod process;
pub mod verdict;
