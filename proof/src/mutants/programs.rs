//! The copy's programs: one build holds all mutants.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Layout, NamedTest, Simulator};

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
    /// Builds the tests of these packages, and the simulator of the whole world if there is one.
    ///
    /// # Errors
    /// When the build fails.
    pub fn build(
        layout: &Layout,
        tests: &BTreeSet<&NamedTest>,
        simulators: &BTreeSet<Simulator>,
    ) -> Result<Self> {
        let mut programs = Self::default();
        let mut arguments = vec!["test".to_owned(), "--no-run".to_owned()];
        let mut wanted: BTreeSet<(&str, &str)> =
            tests.iter().map(|test| (test.package.as_str(), test.target.as_str())).collect();
        if simulators.contains(&Simulator::Core) {
            wanted.insert(CORE);
        }
        for package in wanted.iter().map(|(package, _)| *package).collect::<BTreeSet<_>>() {
            arguments.extend(["-p".to_owned(), package.to_owned()]);
        }
        for target in wanted.iter().map(|(_, target)| *target).collect::<BTreeSet<_>>() {
            match target {
                "lib" => arguments.push("--lib".to_owned()),
                target => arguments.extend(["--test".to_owned(), target.to_owned()]),
            }
        }
        for made in cargo(layout, &arguments)? {
            programs.take_test(made);
        }
        let has_world = layout.tree().join("proof/src/bin/simulate.rs").is_file();
        if simulators.contains(&Simulator::World) && has_world {
            let arguments = ["build", "-p", "proof", "--bin", "simulate"];
            let made = cargo(layout, &arguments.map(str::to_owned))?;
            programs.world = made.into_iter().find_map(|made| made.executable);
        }
        Ok(programs)
    }

    /// The program that has this test, and the directory in which it expects to run.
    ///
    /// # Errors
    /// When it was not built.
    pub fn test(&self, test: &NamedTest) -> Result<&PathBuf> {
        let key = (test.package.clone(), test.target.clone());
        self.tests.get(&key).with_context(|| format!("no program has the test {test}"))
    }

    /// The simulator, if this tree has it.
    pub fn simulator(&self, simulator: Simulator) -> Option<&PathBuf> {
        match simulator {
            Simulator::Core => self.tests.get(&(CORE.0.to_owned(), CORE.1.to_owned())),
            Simulator::World => self.world.as_ref(),
        }
    }

    fn take_test(&mut self, made: Made) {
        let (Some(target), Some(executable)) = (made.target, made.executable) else { return };
        let package = made.manifest_path.parent().and_then(|directory| directory.file_name());
        let Some(package) = package.and_then(|name| name.to_str()) else { return };
        let name = match target.kind.first().map(String::as_str) {
            Some("lib") => "lib".to_owned(),
            Some("test") => target.name,
            _ => return,
        };
        self.tests.insert((package.to_owned(), name), executable);
    }
}

/// The core's simulator: package and target.
const CORE: (&str, &str) = ("raft", "simulation");

fn cargo(layout: &Layout, arguments: &[String]) -> Result<Vec<Made>> {
    let output = Command::new("cargo")
        .current_dir(layout.tree())
        .env("CARGO_TARGET_DIR", layout.build())
        .args(arguments)
        .args(["--locked", "--quiet", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "cargo {} failed", arguments.join(" "));
    let said = String::from_utf8(output.stdout).context("cargo says no text")?;
    said.lines().map(|line| serde_json::from_str(line).context("what cargo says")).collect()
}
