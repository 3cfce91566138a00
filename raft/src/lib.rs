//! The consensus sidecar.

pub mod command;
pub mod config;
pub mod consensus;
pub mod entries;
pub mod identity;
pub mod rpc;
pub mod session;
