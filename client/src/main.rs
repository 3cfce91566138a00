//! The `raft-client` command.

fn main() {}
