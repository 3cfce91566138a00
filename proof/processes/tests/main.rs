//! Whole processes as libraries in a simulated network: `raft`, `member` and `state-machine` of each node run as they are shipped,
//! tarpc, hyper and datagrams included, and the client library talks to them. Only the sockets are turmoil's.
//!
//! A seed decides what the network does and what goes wrong. The processes draw their own random numbers and their disks are real
//! files, so that the same seed gives the same faults, not the same run. Scenarios have a seed each; `VARIATION=N` has the network of
//! all of them behave otherwise. `chaos` takes many.
//!
//! A connection that loses something is dead here, without being closed: nothing is sent again, as a kernel would. So a partition
//! leaves half-open connections behind, and what recovers does so by its own time limits.

mod chaos;
mod crashes;
mod formation;
mod harness;
mod machines;
mod membership;
mod partitions;
mod snapshots;
