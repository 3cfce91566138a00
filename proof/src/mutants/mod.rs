//! Mutants: bugs that real systems had, put into ours one at a time, to see that the tests notice.
//!
//! `proof/mutants.toml` says what each of them is, as edits of our sources. They are made in a *copy* of the tree, where each
//! is guarded by a switch that is read from the environment (`MUTANT=name`): so one build holds them all, and the product's own
//! code has no switch that could be left on.
//!
//! ```text
//!  mutants.toml ─▶ Catalogue ─▶ tree: target/mutants/tree ─▶ Programs (one cargo build) ─▶ trial, per mutant ─▶ docs/mutants.md
//! ```
//!
//! A mutant is *caught* when the test that is named for it fails with it and passes without, and when a simulator that is
//! given nothing but random seeds stumbles over it within a time limit. One that is not caught is a hole in the tests.

mod catalogue;
mod programs;
mod table;
mod tree;
mod trial;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use catalogue::{Catalogue, Edit, Mutant, NamedTest, Sample, Simulator};
pub use programs::{Pace, Programs};
pub use table::{Results, write_table};
pub use tree::prepare;
pub use trial::{Finding, Limits, Report, Trial};

/// Where things lie.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The tree.
    pub root: PathBuf,
    /// Where cargo builds the product.
    target: PathBuf,
}

impl Layout {
    /// The tree that the current directory lies in: a checkout, or sources unpacked anywhere.
    ///
    /// # Errors
    /// When it lies in none.
    pub fn here() -> Result<Self> {
        let here = std::env::current_dir()?;
        let root = here.ancestors().find(|directory| directory.join(CATALOGUE).is_file());
        let root = root.with_context(|| format!("there is no {CATALOGUE} here or above"))?;
        let target = std::env::var_os("CARGO_TARGET_DIR");
        let target = target.map_or_else(|| root.join("target"), |target| here.join(target));
        Ok(Self { root: root.to_owned(), target })
    }

    /// The list of mutants.
    pub fn catalogue(&self) -> PathBuf {
        self.root.join(CATALOGUE)
    }

    /// The copy that holds them.
    pub fn tree(&self) -> PathBuf {
        self.work().join("tree")
    }

    /// Where cargo keeps what it builds on the way. The copy shares it: what both depend on is built once.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where the copy's programs go. Not where the product's are: those of the same name would overwrite each other.
    pub fn build(&self) -> PathBuf {
        self.work().join("build")
    }

    /// What the programs said.
    pub fn logs(&self) -> PathBuf {
        self.work().join("logs")
    }

    /// What was found so far.
    pub fn results(&self) -> PathBuf {
        self.work().join("results.json")
    }

    /// The table for people.
    pub fn table(&self) -> PathBuf {
        self.root.join("docs/mutants.md")
    }

    fn work(&self) -> PathBuf {
        self.target.join("mutants")
    }
}

/// From the root.
const CATALOGUE: &str = "proof/mutants.toml";

/// Writes a file unless it says that already: what is not written need not be built again. Says whether it was written.
fn write_if_changed(path: &Path, content: &[u8]) -> Result<bool> {
    if std::fs::read(path).is_ok_and(|present| present == content) {
        return Ok(false);
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, content).with_context(|| format!("writing {}", path.display()))?;
    Ok(true)
}
