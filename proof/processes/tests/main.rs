//! Whole processes as libraries in a simulated network: `raft`, `member` and `state-machine` of each node run as they are shipped,
//! tarpc, hyper and datagrams included, and the client library talks to them. Only the sockets are turmoil's.
//!
//! A seed decides what the network does and what goes wrong. The processes draw their own random numbers and their disks are real
//! files, so that the same seed gives the same faults, not the same run.

mod chaos;
mod crashes;
mod formation;
mod harness;
mod machines;
mod membership;
mod partitions;
mod snapshots;
