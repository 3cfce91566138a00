//! A small disk that is filled.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

const PIECE_BYTES: usize = 1 << 20;

/// Writes the file until nothing more fits, to the last byte that the system gives. Whether that was the reason to stop.
pub(super) fn fill(filler: &Path) -> bool {
    let piece = vec![0; PIECE_BYTES];
    let mut fit = PIECE_BYTES;
    File::create(filler).is_ok_and(|mut file| {
        loop {
            match file.write_all(&piece[..fit]) {
                Ok(()) => {}
                Err(error) if error.kind() != ErrorKind::StorageFull => break false,
                Err(_full) if fit == 1 => break true,
                Err(_full) => fit = (fit / 16).max(1),
            }
        }
    })
}
