//! The real process, spoken to as raft does.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod contract;
mod crash;
mod start;
mod support;
