//! Reading a whole file for whoever wants to know what is in it.

use std::path::Path;

use super::file::Reader;
use super::frame::Kind;
use super::{Description, SnapshotError};
use crate::consensus::{Index, LogId, Term};
use crate::session::{Image, Outline};
use crate::wal::Disk;

/// What a file holds.
#[derive(Debug)]
pub struct Inspection {
    /// Which snapshot.
    pub description: Description,
    /// Of which cluster.
    pub cluster: u128,
    /// Whole frames.
    pub frames: u64,
    /// Bytes of the session table.
    pub image_bytes: u64,
    /// What the session table says of itself, if it is one of this version.
    pub sessions: Option<Outline>,
    /// Bytes of the machine's stream.
    pub machine_bytes: u64,
    /// What the machine's stream says of itself, if it is one of the state-machine kit: the machine's name, and the last
    /// entry in it.
    pub machine: Option<(String, LogId)>,
    /// Why the file is not a snapshot to be used. What is said above is of the whole frames before the damage.
    pub fault: Option<SnapshotError>,
}

/// Reads and checks a whole file; holds one frame at a time.
///
/// # Errors
/// Its head is damaged or of another version, or the disk refuses.
pub fn inspect(disk: &dyn Disk, path: &Path) -> Result<Inspection, SnapshotError> {
    let mut reader = Reader::open(disk, path)?;
    let head = reader.head().clone();
    let description = Description { id: head.id, meta: head.meta, bytes: reader.bytes() };
    let mut found = Inspection {
        description,
        cluster: head.cluster,
        frames: 0,
        image_bytes: 0,
        sessions: None,
        machine_bytes: 0,
        machine: None,
        fault: None,
    };
    let outcome = found.read(&mut reader).and_then(|()| reader.check_name());
    found.frames = reader.progress().frames();
    match outcome {
        Err(error @ (SnapshotError::Disk(_) | SnapshotError::NoSpace(_))) => Err(error),
        outcome => Ok(Inspection { fault: outcome.err(), ..found }),
    }
}

impl Inspection {
    fn read(&mut self, reader: &mut Reader) -> Result<(), SnapshotError> {
        while let Some((kind, piece)) = reader.next_piece()? {
            if kind == Kind::Image {
                if self.image_bytes == 0 {
                    self.sessions = Image::outline(&piece);
                }
                self.image_bytes += piece.len() as u64;
            } else {
                if self.machine_bytes == 0 {
                    self.machine = label(&piece);
                }
                self.machine_bytes += piece.len() as u64;
            }
        }
        Ok(())
    }
}

fn label(piece: &[u8]) -> Option<(String, LogId)> {
    let (name, last) = state_machine::snapshot::label(piece)?;
    Some((name, LogId::new(Term(last.term), Index(last.index))))
}
