//! The copy's programs: one build holds all mutants.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Layout, NamedTest, Simulator};

/// What is to be quick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The build, for a few seeds that are known.
    Build,
    /// The search, a matter of seeds per second.
    Search,
}

/// Where each program lies, after the build.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    tests: BTreeMap<(String, String), PathBuf>,
    world: Option<PathBuf>,
}

/// The line that cargo says of each thing that it made.
#[derive(Deserialize)]
struct Made {
    #[serde(default)]
    manifest_path: PathBuf,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Programs {
    /// Builds the programs that have these tests, and these simulators.
    ///
    /// # Errors
    /// When the build fails.
    pub fn build(
        layout: &Layout,
        tests: &BTreeSet<&NamedTest>,
        simulators: &BTreeSet<Simulator>,
        pace: Pace,
    ) -> Result<Self> {
        let mut targets: BTreeSet<&str> = tests.iter().map(|test| test.target.as_str()).collect();
        let has_lib = targets.remove("lib");
        if simulators.contains(&Simulator::Core) {
            targets.insert(CORE.1);
        }
        let mut arguments = vec!["build"];
        arguments.extend(targets.into_iter().flat_map(|target| ["--test", target]));
        if simulators.contains(&Simulator::World) {
            arguments.extend(["--bin", WORLD]);
        }
        let mut made = cargo(layout, pace, &arguments)?;
        if has_lib {
            made.extend(cargo(layout, pace, &["test", "--no-run", "--lib"])?);
        }
        let mut programs = Self::default();
        for made in made {
            programs.take(made);
        }
        Ok(programs)
    }

    /// The program that has this test.
    ///
    /// # Errors
    /// When it was not built.
    pub fn test(&self, test: &NamedTest) -> Result<&PathBuf> {
        let key = (test.package.clone(), test.target.clone());
        self.tests.get(&key).with_context(|| format!("no program has the test {test}"))
    }

    /// The simulator.
    ///
    /// # Errors
    /// When it was not built.
    pub fn simulator(&self, simulator: Simulator) -> Result<&PathBuf> {
        let program = match simulator {
            Simulator::Core => self.tests.get(&(CORE.0.to_owned(), CORE.1.to_owned())),
            Simulator::World => self.world.as_ref(),
        };
        program.with_context(|| format!("the simulator {simulator} was not built"))
    }

    fn take(&mut self, made: Made) {
        let (Some(target), Some(executable)) = (made.target, made.executable) else { return };
        let package = made.manifest_path.parent().and_then(|directory| directory.file_name());
        let Some(package) = package.and_then(|name| name.to_str()) else { return };
        let name = match target.kind.first().map(String::as_str) {
            Some("lib") => "lib".to_owned(),
            Some("test") => target.name,
            Some("bin") if target.name == WORLD => {
                self.world = Some(executable);
                return;
            }
            _ => return,
        };
        self.tests.insert((package.to_owned(), name), executable);
    }
}

/// The core's simulator: package and target.
const CORE: (&str, &str) = ("raft", "simulation");

/// The whole world's, of `proof`.
const WORLD: &str = "simulate";

impl Pace {
    fn opt_level(self) -> &'static str {
        match self {
            Self::Build => "0",
            Self::Search => "2",
        }
    }
}

/// Ours.
const PACKAGES: [&str; 5] = ["raft", "member", "state-machine", "raft-client", "proof"];

/// Runs cargo in the copy. Cargo tells the copy's packages from ours only by how they are built, so that has to differ: they go
/// without what backtraces want. All of the workspace is selected, so that features, and with them the builds of what we depend on, are
/// those of the product's tests, and are taken from there.
fn cargo(layout: &Layout, pace: Pace, arguments: &[&str]) -> Result<Vec<Made>> {
    let mut command = Command::new("cargo");
    command
        .current_dir(layout.tree())
        .env("CARGO_BUILD_BUILD_DIR", layout.target())
        .env("CARGO_TARGET_DIR", layout.build())
        .args(arguments)
        .args(["--workspace", "--locked", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit());
    for package in PACKAGES {
        for setting in ["debug=false", &format!("opt-level={}", pace.opt_level())] {
            command.args(["--config", &format!("profile.dev.package.{package}.{setting}")]);
        }
    }
    let output = command.output()?;
    ensure!(output.status.success(), "cargo {} failed", arguments.join(" "));
    let said = String::from_utf8(output.stdout).context("cargo says no text")?;
    said.lines().map(|line| serde_json::from_str(line).context("what cargo says")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// One that is missing here would be built under the same name from both trees.
    #[test]
    fn all_packages_of_the_workspace_are_built_in_another_way() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let manifest = |directory: &Path| -> toml::Table {
            std::fs::read_to_string(directory.join("Cargo.toml")).unwrap().parse().unwrap()
        };
        let workspace = manifest(root);
        let members = workspace["workspace"]["members"].as_array().unwrap();
        let name = |member: &toml::Value| {
            let package = manifest(&root.join(member.as_str().unwrap()));
            package["package"]["name"].as_str().unwrap().to_owned()
        };
        let names: BTreeSet<String> = members.iter().map(name).collect();
        assert_eq!(names, PACKAGES.map(str::to_owned).into());
    }
}
