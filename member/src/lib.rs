//! The gossip membership daemon.

#[path = "../../state-machine/src/wire/mod.rs"]
pub mod wire;
