//! The replicated program's side of Outrigger: the contract that raft speaks with it, a kit for authors of such programs, and a
//! durable key-value machine.

pub mod entries;
pub mod rpc;
pub mod wire;
