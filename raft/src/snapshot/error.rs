//! What can go wrong with a snapshot's file. Each error says what, where, and what becomes of it.

use std::path::PathBuf;

use super::SnapshotId;
use crate::wal::DiskError;

/// A file is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot {} is damaged at byte {offset}: {what}; nothing more of it is used", .file.display())]
pub struct SnapshotDamage {
    /// The file.
    pub file: PathBuf,
    /// Start of the frame that is not whole, in bytes from the start of the file.
    pub offset: u64,
    /// What was found there.
    pub what: String,
}

/// Why a snapshot cannot be read, taken or received. The log and all other snapshots are as they were.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Bytes are not what was written.
    #[error(transparent)]
    Damaged(#[from] SnapshotDamage),
    /// A snapshot of another cluster.
    #[error(
        "{} is a snapshot of cluster {found:032x}, this node belongs to {expected:032x}; nothing was changed: remove it \
         if it was copied here by mistake",
        .file.display()
    )]
    Foreign {
        /// The file.
        file: PathBuf,
        /// The cluster that it names.
        found: u128,
        /// The cluster of this node.
        expected: u128,
    },
    /// Written by another version of this program.
    #[error(
        "{} has snapshot format {found}, this program reads format {supported}; nothing was changed: use the program \
         that wrote it",
        .file.display()
    )]
    UnknownVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// What arrives is whole, but it is not what was offered.
    #[error("the snapshot that arrives is not the one that was offered: {what}; it is given up")]
    Mismatch {
        /// What differs.
        what: String,
    },
    /// The end has not arrived yet. What has arrived stays.
    #[error("{have} of {want} bytes of the snapshot have arrived")]
    Incomplete {
        /// Bytes that are there.
        have: u64,
        /// Bytes that the snapshot has.
        want: u64,
    },
    /// It was removed or replaced by a newer one.
    #[error("snapshot {id} is here no more: a newer one has taken its place")]
    Gone {
        /// Which.
        id: SnapshotId,
    },
    /// One at a time.
    #[error("another snapshot is being {action} at the moment")]
    Busy {
        /// What is under way.
        action: &'static str,
    },
    /// An earlier error ended this one; it is to be dropped.
    #[error("the snapshot was given up at an earlier error")]
    GivenUp,
    /// A part of it is longer than a snapshot may have it.
    #[error("{part} of the snapshot has {bytes} bytes; at most {limit} are possible")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// Its length.
        bytes: u64,
        /// The longest that is possible.
        limit: u64,
    },
    /// There is not enough space for what is offered. What has arrived of it stays.
    #[error(
        "the rest of the snapshot has {rest} bytes, and {} has only {free} bytes free, of which {spare} are for the log: \
         free some space, it is offered again later", .dir.display()
    )]
    NoRoom {
        /// Where it should go.
        dir: PathBuf,
        /// Bytes that have not arrived.
        rest: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes that a snapshot must leave.
        spare: u64,
    },
    /// No space. What was being made has been removed, to leave the space to the log.
    #[error(
        "{0}; the snapshot is given up and nothing is lost: free some space, it is tried again later"
    )]
    NoSpace(DiskError),
    /// The disk refused. What was being made is of no use any more; what was there is as it was.
    #[error(
        "{0}; the snapshot is given up, everything else is as it was: check the directory and the disk"
    )]
    Disk(DiskError),
}

impl From<DiskError> for SnapshotError {
    fn from(error: DiskError) -> Self {
        if error.is_full() { Self::NoSpace(error) } else { Self::Disk(error) }
    }
}
