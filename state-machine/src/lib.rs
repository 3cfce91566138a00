//! The replicated program's side of Outrigger: the contract that raft speaks with it, a kit for authors of such programs, and a
//! durable key-value machine.

pub mod attachment;
pub mod entries;
pub mod host;
pub mod machine;
pub mod register;
pub mod rpc;
pub mod snapshot;
pub mod wire;
