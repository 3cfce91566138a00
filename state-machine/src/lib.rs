//! The replicated program's side of Outrigger: the contract that raft speaks with it, a kit for authors of such programs, and a
//! durable key-value machine.
//!
//! ```text
//!   raft ══ wire, rpc ══▶ server ─▶ worker (queue, thread) ─▶ Host ─▶ Machine: Kv over an Engine, Register, or yours
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`rpc`] | the contract: calls, types, errors, limits |
//! | [`entries`] | a batch of committed entries as one buffer |
//! | [`wire`] | connections: endpoints, hello, bounded codec |
//! | [`startup`] | settings and log of a daemon |
//! | [`machine`] | trait `Machine` and its duties |
//! | [`host`] | order, gaps, fencing, snapshots in pieces: the same for every machine |
//! | [`attachment`] | whose data a machine holds |
//! | [`snapshot`] | a snapshot as a stream of bytes |
//! | [`kv`], [`register`] | two machines |
//! | [`worker`], [`server`], [`daemon`], [`config`] | the process around them |
//!
//! To write a machine of your own in Rust, implement [`machine::Machine`] and hand it to a [`host::Host`].

pub mod attachment;
pub mod config;
mod crash_point;
pub mod daemon;
pub mod entries;
pub mod host;
pub mod kv;
pub mod machine;
#[cfg(test)]
mod probe;
pub mod register;
pub mod rpc;
pub mod server;
pub mod snapshot;
pub mod startup;
pub mod wire;
pub mod worker;
