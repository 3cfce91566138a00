//! Snapshots: what the log's beginning is replaced by.
//!
//! ```text
//!  data/raft/snapshots/  000…4e20-000…02.snapshot   up to index 20000, entry of term 2
//!                        000…7530-000…02.snapshot   up to index 30000: the newest
//!                        taking.tmp                 our machine is writing one
//!                        incoming.part              a leader is sending one
//!
//!  a snapshot            | head | session table … | the machine's stream … | end |
//! ```
//!
//! A snapshot belongs to raft: it is a copy of the machine's state, and of what raft itself folds out of the log, in one
//! file that raft made durable and can send as it is. The log drops only what such a file holds.
//!
//! A file is written under another name, synced, renamed, and then its directory is synced: under its own name there is
//! a whole one or none. Every frame of it has its own checksum (`frame.rs`), so whoever reads or receives one holds a frame
//! at a time and uses no byte that was not checked. A transfer that was cut goes on from the last whole frame that has
//! arrived, if the same file is offered again.

mod error;
mod file;
mod frame;
mod inspection;
mod names;
mod reading;
mod receiving;
mod store;
mod taking;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::error::{SnapshotDamage, SnapshotError};
pub use self::frame::{MAX_IMAGE_BYTES, PIECE_BYTES};
pub use self::inspection::{Inspection, inspect};
pub use self::reading::{MachineReader, RawReader};
pub use self::receiving::Receiving;
pub use self::store::{SPARE_BYTES, Store};
pub use self::taking::Taking;

use crate::consensus::SnapshotMeta;

/// Names one file: random, chosen when the snapshot is taken, and the same in all copies that are sent. Shown as 32
/// hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SnapshotId(pub u128);

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Describes a snapshot's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Which file.
    pub id: SnapshotId,
    /// What it replaces.
    pub meta: SnapshotMeta,
    /// Length of the whole file.
    pub bytes: u64,
}
