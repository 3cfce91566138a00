//! Who has a directory in use, found out without taking its lock: a raft that starts at that moment would be refused.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The process that has this lock file open, as far as the system tells: those of other users, and of other containers, are
/// not to be seen.
pub(super) fn of(lock: &Path) -> Option<u32> {
    let wanted = fs::metadata(lock).ok()?;
    let is_it = |file: &Path| {
        fs::metadata(file)
            .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.find(|id: &u32| {
        let files = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
        files.map(|file| file.path()).any(|file| is_it(&file))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_the_file_open_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(of(&path), None, "there is no such file");
        let open = fs::File::create(&path).unwrap();
        assert_eq!(of(&path), Some(std::process::id()));
        drop(open);
        assert_eq!(of(&path), None);
    }
}
