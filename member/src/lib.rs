//! The gossip daemon of Outrigger: finds the other members and tells who seems to be alive.
//!
//! Gossip suggests, the log decides: what is known here is a *view*, of addresses and of who seems to be there. Two
//! members may disagree, and under a partition each side believes that it is all there is. Nobody votes by it.
//!
//! ```text
//!   UDP ─▶ sockets ─┐                                  ┌─▶ sockets ─▶ UDP
//!   time ───────────┼─▶ daemon (one loop) ─▶ Swim ─▶ ──┼─▶ reporter (log)
//!   raft ═▶ server ─┤   pure protocol, swim/           ├─▶ view ─▶ server ═▶ raft (watch)
//!   names ▶ seeds ──┘                                  └─▶ seeds, memory (file)
//! ```
//!
//! - [`rpc`]: the contract, and how to connect. All that others need.
//! - [`swim`]: the protocol without I/O; [`codec`] and [`key`]: what a datagram looks like, and who can read it.
//! - [`daemon`]: the loop; [`sockets`], [`seeds`], [`server`], [`memory`], [`store`],
//!   [`report`]: its edges.
//! - [`config`], [`startup`]: settings; where they come from, and the log.

pub mod codec;
pub mod config;
pub mod daemon;
pub mod key;
pub mod memory;
pub mod report;
pub mod rpc;
pub mod seeds;
pub mod server;
pub mod sockets;
#[path = "../../state-machine/src/startup/mod.rs"]
pub mod startup;
pub mod store;
pub mod swim;
#[path = "../../state-machine/src/wire/mod.rs"]
pub mod wire;
