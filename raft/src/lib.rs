//! The consensus sidecar.

pub mod backoff;
pub mod command;
pub mod config;
pub mod consensus;
pub mod entries;
pub mod forward;
pub mod identity;
pub mod machine_link;
pub mod node;
pub mod peers;
pub mod pipeline;
pub mod roster;
pub mod rpc;
pub mod session;
pub mod wal;

use std::time::{Duration, Instant};

/// A call's context that ends after `limit`.
fn deadline(limit: Duration) -> tarpc::context::Context {
    let mut context = tarpc::context::current();
    context.deadline = Instant::now() + limit;
    context
}
