//! What is in a file: as processes see it, and as it is when the power is gone.

use rand::RngExt;

use super::super::random::Rng;

/// What a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

/// A file.
#[derive(Default)]
pub(super) struct Contents {
    /// What processes see.
    pub(super) seen: Vec<u8>,
    /// What stays for sure.
    pub(super) durable: Vec<u8>,
    /// Not synced, in order.
    pending: Vec<Change>,
    /// Lost by a sync that failed or lied: perhaps written, but no later sync will do it.
    forgotten: Vec<Change>,
}

/// A change of a file.
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

impl Contents {
    pub(super) fn power_cut(&mut self, share: f64, rng: &mut Rng) {
        if self.pending.is_empty() && self.forgotten.is_empty() {
            return;
        }
        let lost = std::mem::take(&mut self.forgotten);
        for change in lost.into_iter().chain(std::mem::take(&mut self.pending)) {
            match change {
                Change::Resize(bytes) if rng.random_bool(share) => self.durable.resize(bytes, 0),
                Change::Resize(_) => {}
                Change::Write { offset, bytes } => {
                    for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                        if rng.random_bool(share) {
                            write(&mut self.durable, offset + number * SECTOR_BYTES, sector);
                        }
                    }
                }
            }
        }
        self.seen.clone_from(&self.durable);
    }

    pub(super) fn apply(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    pub(super) fn forget(&mut self) {
        self.forgotten.append(&mut self.pending);
    }
}

impl Change {
    pub(super) fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Resize(bytes) => file.resize(*bytes, 0),
            Self::Write { offset, bytes } => write(file, *offset, bytes),
        }
    }
}

/// Writes into a file, which grows if need be.
fn write(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    file.resize(file.len().max(offset + bytes.len()), 0);
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}
