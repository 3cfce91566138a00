//! Why the process ends, and with which exit code.

use std::io;

use crate::consensus::LogId;
use crate::continuity::Discontinuity;
use crate::identity::IdentityError;
use crate::session::ImageError;
use crate::snapshot::{SnapshotDamage, SnapshotError};
use crate::tasks::LogFailure;
use crate::wal::{DiskError, OpenError, ReadError};

/// Why the process ends other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// Log and snapshots do not belong together.
    #[error(transparent)]
    Discontinuous(#[from] Discontinuity),
    /// The log failed while running; it was not retried.
    #[error(
        "the log failed: {0}; the process ends at once, so that nothing is acknowledged that may be lost"
    )]
    LogFailed(LogFailure),
    /// The snapshots cannot be opened.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// A snapshot was found to be damaged while running.
    #[error("{0}; it is set aside, and this process starts again from the snapshot before")]
    SnapshotDamaged(SnapshotDamage),
    /// What is in a snapshot, whole as it is, cannot be gone on from.
    #[error("the session table in the snapshot up to {snapshot} cannot be used: {source}")]
    SessionTable {
        /// Its last entry.
        snapshot: LogId,
        /// What is wrong.
        source: ImageError,
    },
    /// A port.
    #[error(
        "{0}; is another raft running there? choose another --port-base, --raft-port or --http-port"
    )]
    Listen(io::Error),
    /// The ready file.
    #[error("cannot write the ready file {path}: {source}")]
    ReadyFile {
        /// Which.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The system gives no thread, socket or the like.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// A task that owns state has ended by a panic.
    #[error("internal error, please report it: {0}")]
    Panic(String),
}

impl From<LogFailure> for RunError {
    fn from(failure: LogFailure) -> Self {
        match failure {
            LogFailure::Snapshot(damage) => Self::SnapshotDamaged(damage),
            LogFailure::Write(_) | LogFailure::Read(_) | LogFailure::TooSlow => {
                Self::LogFailed(failure)
            }
        }
    }
}

impl RunError {
    /// The documented exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Listen(_) => 3,
            Self::Identity(IdentityError::Io { .. } | IdentityError::Locked { .. })
            | Self::Log(OpenError::Locked { .. }) => 4,
            Self::Identity(
                IdentityError::Damaged { .. }
                | IdentityError::LogMissing { .. }
                | IdentityError::LogOfAnother { .. },
            )
            | Self::Log(
                OpenError::Damaged(_)
                | OpenError::UnknownVersion { .. }
                | OpenError::Unreadable(ReadError::Damaged(_)),
            )
            | Self::Discontinuous(_)
            | Self::SessionTable { .. }
            | Self::Snapshots(SnapshotError::Damaged(_) | SnapshotError::UnknownVersion { .. })
            | Self::LogFailed(LogFailure::Read(ReadError::Damaged(_))) => 11,
            Self::Identity(IdentityError::ForeignCluster { .. })
            | Self::Log(OpenError::Foreign { .. })
            | Self::Snapshots(SnapshotError::Foreign { .. }) => 12,
            Self::LogFailed(_) => 13,
            Self::Log(OpenError::Disk(error)) | Self::Snapshots(SnapshotError::Disk(error))
                if is_unusable(error) =>
            {
                4
            }
            Self::Log(
                OpenError::Option { .. }
                | OpenError::NoSpace(_)
                | OpenError::Unreadable(_)
                | OpenError::Disk(_),
            )
            | Self::Snapshots(_)
            | Self::SnapshotDamaged(_)
            | Self::ReadyFile { .. }
            | Self::System(_)
            | Self::Panic(_) => 1,
        }
    }
}

/// Whether the log's directory cannot be used, as opposed to a disk that fails.
fn is_unusable(error: &DiskError) -> bool {
    matches!(
        error.source.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
    )
}
