//! The `state-machine` process.

fn main() {}
