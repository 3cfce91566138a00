//! Whose data a machine holds: cluster, node and the highest boot that fed it, on disk before any of them is trusted.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::crash_point::crash_point;
use crate::machine::MachineError;

/// Whom a machine's data belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment {
    /// The cluster.
    pub cluster: u128,
    /// The node; never 0.
    pub node: u64,
    /// The highest boot of that node's raft that attached. It only ever grows.
    pub boot: u64,
}

/// Where the attachment is kept.
pub trait AttachmentStore: Send + 'static {
    /// What was stored last; none in a new place.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    fn load(&self) -> Result<Option<Attachment>, MachineError>;

    /// Replaces it, durably and at once: after a crash it is the old one or the new one.
    ///
    /// # Errors
    /// The storage failed.
    fn store(&mut self, attachment: &Attachment) -> Result<(), MachineError>;
}

/// Kept in memory, for tests and for programs that keep nothing else either.
#[derive(Debug, Default)]
pub struct MemoryAttachment(Option<Attachment>);

impl AttachmentStore for MemoryAttachment {
    fn load(&self) -> Result<Option<Attachment>, MachineError> {
        Ok(self.0)
    }

    fn store(&mut self, attachment: &Attachment) -> Result<(), MachineError> {
        self.0 = Some(*attachment);
        Ok(())
    }
}

/// Kept in the file `attachment` of a directory, 44 bytes, numbers little-endian:
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 8 | `OUTRATT1` |
/// | 8 | 16 | cluster |
/// | 24 | 8 | node |
/// | 32 | 8 | boot |
/// | 40 | 4 | CRC32C of the above |
#[derive(Debug)]
pub struct AttachmentFile {
    directory: PathBuf,
}

const MAGIC: &[u8; 8] = b"OUTRATT1";
const FILE_BYTES: usize = 44;

impl AttachmentFile {
    /// In that directory, which exists.
    pub fn new(directory: &Path) -> AttachmentFile {
        AttachmentFile { directory: directory.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("attachment")
    }
}

impl AttachmentStore for AttachmentFile {
    fn load(&self) -> Result<Option<Attachment>, MachineError> {
        let doing = "reading the attachment";
        match fs::read(self.path()) {
            Ok(bytes) => decode(&bytes).map(Some).ok_or_else(|| MachineError::Damaged {
                doing,
                what: format!("{} is not an attachment", self.path().display()),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(MachineError::storage(doing)(error)),
        }
    }

    fn store(&mut self, attachment: &Attachment) -> Result<(), MachineError> {
        replace_file(&self.path(), &encode(attachment))
            .map_err(MachineError::storage("writing the attachment"))
    }
}

fn encode(attachment: &Attachment) -> [u8; FILE_BYTES] {
    let mut bytes = [0; FILE_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..24].copy_from_slice(&attachment.cluster.to_le_bytes());
    bytes[24..32].copy_from_slice(&attachment.node.to_le_bytes());
    bytes[32..40].copy_from_slice(&attachment.boot.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..40]);
    bytes[40..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Attachment> {
    let (fields, checksum) = bytes.split_last_chunk::<4>()?;
    let rest = fields.strip_prefix(MAGIC)?;
    let (cluster, rest) = rest.split_first_chunk::<16>()?;
    let (node, rest) = rest.split_first_chunk::<8>()?;
    let boot = <[u8; 8]>::try_from(rest).ok()?;
    let attachment = Attachment {
        cluster: u128::from_le_bytes(*cluster),
        node: u64::from_le_bytes(*node),
        boot: u64::from_le_bytes(boot),
    };
    (crc32c::crc32c(fields) == u32::from_le_bytes(*checksum)).then_some(attachment)
}

/// Writes a file so that after any crash it holds the old bytes or the new ones: temporary file, sync, rename, sync of the
/// directory.
///
/// # Errors
/// Whatever the system says; the old file is untouched unless only the last sync failed.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    crash_point("wrote the new file");
    fs::rename(&temporary, path)?;
    crash_point("renamed the new file");
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    sync_directory(directory.unwrap_or(Path::new(".")))
}

/// Makes the names in a directory durable.
///
/// # Errors
/// Whatever the system says.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTACHMENT: Attachment = Attachment { cluster: 1 << 100, node: 7, boot: 9 };

    #[test]
    fn what_was_stored_is_there_for_the_next_process() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = AttachmentFile::new(directory.path());
        assert_eq!(file.load().unwrap(), None);
        for boot in [9, 10] {
            file.store(&Attachment { boot, ..ATTACHMENT }).unwrap();
            let next = AttachmentFile::new(directory.path()).load().unwrap();
            assert_eq!(next, Some(Attachment { boot, ..ATTACHMENT }));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let whole = encode(&ATTACHMENT);
        assert_eq!(decode(&whole), Some(ATTACHMENT));
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&damaged), None, "bit {bit}");
        }
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length]), None, "cut at {length}");
        }
    }

    #[test]
    fn a_damaged_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("attachment"), b"nonsense").unwrap();
        let error = AttachmentFile::new(directory.path()).load().unwrap_err();
        assert!(error.to_string().contains("/attachment is not an attachment"), "{error}");
    }
}
