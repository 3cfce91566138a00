//! What can go wrong with the log. Each error says what, where, what is affected and what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::consensus::Index;

/// The disk refused an operation.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", .path.display())]
pub struct DiskError {
    /// A verb.
    pub action: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

impl DiskError {
    /// Whether space ran out, which an operator mends without replacing anything.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Says what was being done to what when a system call failed.
pub(crate) trait During<T> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, DiskError>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(|source| DiskError { action, path: path.to_owned(), source })
    }
}

/// Acknowledged bytes are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log is damaged: {} at byte {offset}: {what}; affected: {affected}. This node must not vote with it. Keep a \
     copy of the directory, check the disk, then start the node with an empty data directory: it joins as a new \
     node and the others send it what it lacks",
    .file.display()
)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where in it, in bytes from its start.
    pub offset: u64,
    /// What was found.
    pub what: String,
    /// What may be lost.
    pub affected: String,
}

/// Why a log cannot be opened. Its files are as they were, except after `Disk` and `NoSpace`, where a started file may
/// be left that the next open removes.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Acknowledged entries, a term or a vote may be missing.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// Written by another version of this program.
    #[error(
        "{} has log format {found}, this program reads format {supported}; nothing was changed: use the program that \
         wrote it",
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
    /// A segment of another log lies in the directory.
    #[error(
        "{} belongs to another log (it says {found:016x}, the segment after it {expected:016x}); nothing was changed: \
         remove it if it was copied here by mistake",
        .file.display()
    )]
    Foreign {
        /// The file.
        file: PathBuf,
        /// The log that it names.
        found: u64,
        /// The log that the newest segment names.
        expected: u64,
    },
    /// Another process, or another `Wal` of this one, has the directory open.
    #[error("{} is in use by another process; stop that one first", .dir.display())]
    Locked {
        /// The log's directory.
        dir: PathBuf,
    },
    /// An option is out of range.
    #[error("log option {option} must be {allowed}, got {got}")]
    Option {
        /// Its name.
        option: &'static str,
        /// The range.
        allowed: &'static str,
        /// The value.
        got: u64,
    },
    /// No space for a segment. Nothing is lost.
    #[error("{0}; free some space and start again: nothing is lost")]
    NoSpace(DiskError),
    /// The disk refused. Nothing is lost by that.
    #[error(
        "{0}; check the owner and the permissions of the directory, and the disk, then start again"
    )]
    Disk(DiskError),
    /// What was read and found whole a moment ago cannot be read again.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
}

impl From<DiskError> for OpenError {
    fn from(error: DiskError) -> Self {
        if error.is_full() { Self::NoSpace(error) } else { Self::Disk(error) }
    }
}

/// Why a batch is not durable. It may be on disk all the same, in part or as a whole. The log refuses everything from
/// here on: the process must end, and the next open finds out what is there.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No space for the next segment. Everything acknowledged is safe.
    #[error(
        "{0}; the log stops here, everything acknowledged is safe: free some space and start again"
    )]
    NoSpace(DiskError),
    /// The disk refused a write or a sync. It is never retried: a second sync may succeed without having written what
    /// the first one lost.
    #[error(
        "{0}; the log stops here, everything acknowledged is safe: check the disk before starting again"
    )]
    Disk(DiskError),
    /// The caller broke a rule of the log; nothing of this call's last frame was written.
    #[error("the log refuses an impossible record: {0}; this is a bug")]
    Impossible(Impossible),
    /// An earlier call failed.
    #[error("the log stopped at an earlier error; end the process")]
    Stopped,
    /// The writer's thread panicked; the panic's own message has the reason.
    #[error("the log's thread panicked; end the process: this is a bug")]
    Panicked,
}

impl From<DiskError> for WriteError {
    fn from(error: DiskError) -> Self {
        if error.is_full() { Self::NoSpace(error) } else { Self::Disk(error) }
    }
}

impl From<Impossible> for WriteError {
    fn from(error: Impossible) -> Self {
        Self::Impossible(error)
    }
}

/// A record that cannot follow what the log holds: a caller's bug when written, damage when read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Impossible(pub String);

/// Why entries cannot be read. The log goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// They were dropped: a snapshot includes them.
    #[error("the log starts at index {first}: older entries are in the snapshot only")]
    Compacted {
        /// First index that the log holds.
        first: Index,
    },
    /// They are not there.
    #[error("the log ends at index {last}")]
    Beyond {
        /// Last index that the log holds.
        last: Index,
    },
    /// They are not what was written.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The disk refused; the same read may succeed later.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// An append failed: what the log holds is not known any more.
    #[error("the log stopped at an earlier error; end the process")]
    Stopped,
}
