//! The copy of the tree that has the mutants in it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Catalogue, Layout, write_if_changed};

/// What the copy's programs end with when they are asked for a mutant that they do not have.
pub(super) const UNKNOWN_MUTANT: i32 = 97;

/// Brings the copy up to date and says how many of its files have changed.
///
/// # Errors
/// When an edit does not fit its file any more, or for the reasons of files.
pub fn prepare(layout: &Layout, catalogue: &Catalogue) -> Result<usize> {
    let edited = catalogue.edited(&layout.root)?;
    let tree = layout.tree();
    let files = sources(&layout.root)?;
    let mut kept: BTreeSet<PathBuf> = files.iter().map(|file| tree.join(file)).collect();
    let mut changed = 0;
    for file in &files {
        let content = match edited.get(file) {
            Some(text) => text.clone().into_bytes(),
            None => std::fs::read(layout.root.join(file))?,
        };
        let content = if is_library_of_mutants(file, catalogue) {
            [content, b"\nmod mutant;\n".to_vec()].concat()
        } else {
            content
        };
        changed += usize::from(write_if_changed(&tree.join(file), &content)?);
    }
    let switch = switch(catalogue);
    for package in packages(catalogue) {
        let file = tree.join(package).join("src/mutant.rs");
        changed += usize::from(write_if_changed(&file, switch.as_bytes())?);
        kept.insert(file);
    }
    remove_others(&tree, &kept)?;
    Ok(changed)
}

/// What builds the workspace: the root's own files and the directories of packages, committed or not yet.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        } else if path.join("Cargo.toml").is_file() {
            add_files(&path, &mut files)?;
        }
    }
    let below_root = |file: PathBuf| file.strip_prefix(root).map(Path::to_owned).ok();
    Ok(files.into_iter().filter_map(below_root).collect())
}

/// All files below a directory, but for what cargo built there.
fn add_files(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if directory.join("CACHEDIR.TAG").is_file() {
        return Ok(());
    }
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            add_files(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// The packages that have a mutant.
fn packages(catalogue: &Catalogue) -> BTreeSet<&Path> {
    let edits = catalogue.mutants.iter().flat_map(|mutant| &mutant.edits);
    edits.filter_map(|edit| edit.file.iter().next()).map(Path::new).collect()
}

fn is_library_of_mutants(file: &Path, catalogue: &Catalogue) -> bool {
    packages(catalogue).iter().any(|package| file == package.join("src/lib.rs"))
}

/// The module that the copy's packages ask whether a mutant is on.
fn switch(catalogue: &Catalogue) -> String {
    let mut names = String::new();
    for mutant in &catalogue.mutants {
        let _ = write!(names, "\n    {:?},", mutant.name);
    }
    format!(
        r#"//! Which mutant is switched on, by number: `MUTANT=name`, read once.

use std::sync::OnceLock;

const NAMES: &[&str] = &[{names}
];

static ACTIVE: OnceLock<Option<usize>> = OnceLock::new();

pub(crate) fn is(number: usize) -> bool {{
    *ACTIVE.get_or_init(read) == Some(number)
}}

fn read() -> Option<usize> {{
    let name = std::env::var("MUTANT").ok()?;
    let number = NAMES.iter().position(|known| *known == name);
    if number.is_none() {{
        eprintln!("no mutant is called {{name}}");
        std::process::exit({UNKNOWN_MUTANT});
    }}
    number
}}
"#
    )
}

/// Removes what the project no longer has.
fn remove_others(directory: &Path, kept: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_others(&path, kept)?;
        } else if !kept.contains(&path) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}
