//! Names of files, and what has become of them that is not durable yet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A change of a directory.
pub(super) enum NameChange {
    Link(PathBuf, u64),
    Rename(PathBuf, PathBuf, u64),
    Unlink(PathBuf),
}

impl NameChange {
    pub(super) fn is_in(&self, dir: &Path) -> bool {
        let (Self::Link(path, _) | Self::Rename(_, path, _) | Self::Unlink(path)) = self;
        path.parent() == Some(dir)
    }
}

/// Carries a change out.
pub(super) fn apply_name(names: &mut BTreeMap<PathBuf, u64>, change: NameChange) {
    match change {
        NameChange::Link(path, id) => drop(names.insert(path, id)),
        NameChange::Rename(from, to, id) => {
            names.remove(&from);
            names.insert(to, id);
        }
        NameChange::Unlink(path) => drop(names.remove(&path)),
    }
}
