//! The consensus sidecar.

pub mod consensus;
