//! The `raft` process.

fn main() {}
