//! The gossip daemon of Outrigger: finds the other members and tells who seems to be alive.

pub mod rpc;
pub mod swim;
#[path = "../../state-machine/src/wire/mod.rs"]
pub mod wire;
