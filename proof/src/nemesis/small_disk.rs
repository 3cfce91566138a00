//! A small disk that is filled.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;

const PIECE_BYTES: usize = 1 << 20;

/// Writes the file until nothing more fits, to the last byte that the system gives. Whether that was the reason to stop.
///
/// # Errors
/// It would fill the disk of this machine.
pub(super) fn fill(filler: &Path) -> anyhow::Result<bool> {
    let directory = filler.parent().context("a file in a directory")?;
    anyhow::ensure!(is_own_disk(directory), "{} is no disk of its own", directory.display());
    let piece = vec![0; PIECE_BYTES];
    let mut fit = PIECE_BYTES;
    Ok(File::create(filler).is_ok_and(|mut file| {
        loop {
            match file.write_all(&piece[..fit]) {
                Ok(()) => {}
                Err(error) if error.kind() != ErrorKind::StorageFull => break false,
                Err(_full) if fit == 1 => break true,
                Err(_full) => fit = (fit / 16).max(1),
            }
        }
    }))
}

/// Whether something is mounted there.
fn is_own_disk(directory: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
    let around = directory.parent().and_then(device);
    device(directory).is_some_and(|own| around.is_some_and(|around| own != around))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_shared_with_the_machine_is_not_filled() {
        let filler = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/filler");
        fill(&filler).unwrap_err();
        assert!(!filler.exists());
        assert!(is_own_disk(Path::new("/proc")));
        assert!(!is_own_disk(Path::new("/nowhere")));
    }
}
