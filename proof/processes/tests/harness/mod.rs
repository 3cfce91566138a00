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

/// A number from the environment.
///
/// # Panics
/// When it is none.
pub fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}
