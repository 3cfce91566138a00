//! The consensus sidecar: agrees with its peers on the order of commands, and feeds them to a state machine.
//!
//! ```text
//!                          ┌───────────────── one raft process ─────────────────┐
//!  raft-client ══▶ server ─┼─▶ digest_entries ──┬─▶ wal::Writer (a thread) ─┐   │
//!  other rafts ══▶         │   owns the core    │◀───────── Synced ─────────┘   │
//!  curl ─────────▶ http ───┼─▶                  │                               │
//!                          │                    ├─▶ peers ══════════════════════┼══▶ other rafts
//!  member ◀══ roster_link ─┼─▶                  │                               │
//!                          │                    └─▶ digest_commits ─▶ machine_link ══▶ state-machine
//!                          │                        owns the sessions           │
//!                          └────────────────────────────────────────────────────┘
//! ```
//!
//! Beside them [`keeper`] takes snapshots of the machine into files, of which [`transfer`] sends the newest to peers that are behind
//! the log. Arrows are bounded queues, double arrows are RPC. Everything but the log thread runs on one event loop. Start reading
//! at [`consensus`], which knows nothing of the rest; then [`pipeline`]; [`process::run`] wires all of it together.

pub mod backoff;
pub mod command;
pub mod config;
pub mod consensus;
pub mod continuity;
pub mod entries;
pub mod forward;
pub mod http;
pub mod identity;
pub mod inbound;
pub mod keeper;
pub mod leaving;
pub mod machine_link;
pub mod metrics;
pub mod node;
pub mod offline;
pub mod pace;
pub mod peers;
pub mod pipeline;
pub mod process;
pub mod room;
pub mod roster;
pub mod roster_link;
pub mod rpc;
pub mod server;
pub mod session;
pub mod shelf;
pub mod snapshot;
pub mod tasks;
pub mod transfer;
pub mod wal;

use std::time::{Duration, Instant};

/// A call's context that ends after `limit`.
fn deadline(limit: Duration) -> tarpc::context::Context {
    let mut context = tarpc::context::current();
    context.deadline = Instant::now() + limit;
    context
}
