//! The consensus sidecar.

pub mod consensus;
pub mod wal;
