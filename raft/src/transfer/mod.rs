//! Snapshots on their way from a leader to a node that is behind its log.
//!
//! ```text
//!  leader                                                  follower or learner
//!  core: InstallSnapshot ─▶ sender ── offer_snapshot ────▶ receiver: how much of this file is there?
//!                             │    ◀── so many bytes ───     │
//!                             ├─── write_snapshot … ─────▶   ├─ incoming.part, checked as it grows
//!                             │                              └─ whole: synced, renamed ─▶ core: SnapshotReceived
//!  core: SnapshotResponse ◀───┴─── install_snapshot ─────▶ core: the log starts after it
//! ```
//!
//! It has a connection of its own, so that no heartbeat waits behind a piece. Whatever breaks, the sender asks again how much is
//! there and goes on from there; a node that was restarted still has what it had stored.

mod receiver;
mod sender;

pub use self::receiver::Receiver;
pub use self::sender::{Senders, SendersContext};

#[cfg(test)]
mod tests;
