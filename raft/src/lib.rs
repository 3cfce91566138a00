//! The consensus sidecar.

pub mod command;
pub mod consensus;
pub mod entries;
pub mod rpc;
pub mod session;
