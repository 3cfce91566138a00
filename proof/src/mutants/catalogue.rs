//! The list of mutants, and whether it still fits the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

/// Stands for the mutant's switch in the text that it puts in.
const SWITCH: &str = "MUTANT";

/// All mutants, in the order of the file: their position is the number by which the copy knows them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// Them.
    #[serde(rename = "mutant")]
    pub mutants: Vec<Mutant>,
}

/// One seeded bug.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// How it is called, on the command line too.
    pub name: String,
    /// What it does wrong.
    pub bug: String,
    /// Who had it.
    pub seen: String,
    /// The test that must fail with it and pass without.
    pub test: NamedTest,
    /// In which simulators it can show.
    pub simulators: BTreeSet<Simulator>,
    /// A seed that is known to find it: the mutant is then one of the few that every change is checked against.
    pub sample: Option<Sample>,
    /// How it is made.
    #[serde(rename = "edit")]
    pub edits: Vec<Edit>,
}

/// One replacement in one file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// From the repository's root.
    pub file: PathBuf,
    /// Occurs there exactly once.
    pub find: String,
    /// Takes its place; `MUTANT` in it is an expression that is true when the mutant is switched on.
    pub replace: String,
}

/// A test of the normal suite, written `package target path::of::the::test`; the target `lib` is the package's own tests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct NamedTest {
    /// Of the workspace.
    pub package: String,
    /// `lib`, or a file or directory in the package's `tests`.
    pub target: String,
    /// As the test program lists it.
    pub path: String,
}

/// A program that runs worlds by seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Simulator {
    /// Clusters of consensus cores: `raft/tests/simulation`.
    Core,
    /// Clusters of everything: `proof`'s program `simulate`.
    World,
}

/// A seed of a simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Which.
    pub simulator: Simulator,
    /// What it is given.
    pub seed: u64,
}

impl Catalogue {
    /// Reads the list.
    ///
    /// # Errors
    /// When it cannot be read, or says nothing sensible.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let catalogue: Self = toml::from_str(&text).context("in the list of mutants")?;
        let mut names = BTreeSet::new();
        for mutant in &catalogue.mutants {
            ensure!(names.insert(&mutant.name), "{}: the name is used twice", mutant.name);
            let switched = mutant.edits.iter().any(|edit| edit.replace.contains(SWITCH));
            ensure!(switched, "{}: no edit asks for {SWITCH}", mutant.name);
        }
        Ok(catalogue)
    }

    /// The mutants of these names, or all of them.
    ///
    /// # Errors
    /// When one is not known.
    pub fn select(&self, names: &[String]) -> Result<Vec<&Mutant>> {
        if names.is_empty() {
            return Ok(self.mutants.iter().collect());
        }
        let find = |name: &String| {
            let found = self.mutants.iter().find(|mutant| mutant.name == *name);
            found.ok_or_else(|| anyhow!("no mutant is called {name}"))
        };
        names.iter().map(find).collect()
    }

    /// The files that are edited, as they are with all mutants in them.
    ///
    /// # Errors
    /// For every edit that does not fit its file any more, by name.
    pub fn edited(&self, root: &Path) -> Result<BTreeMap<PathBuf, String>> {
        let mut faults = Vec::new();
        let mut edited = BTreeMap::new();
        for (file, edits) in self.by_file() {
            let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
            match apply(&text, &edits) {
                Ok(text) => drop(edited.insert(file.clone(), text)),
                Err(fault) => faults.push(format!("{}: {fault}", file.display())),
            }
        }
        if faults.is_empty() { Ok(edited) } else { bail!("{}", faults.join("\n")) }
    }

    /// Whether every named test is there.
    ///
    /// # Errors
    /// Names those that are not.
    pub fn check_tests(&self, root: &Path) -> Result<()> {
        let missing: Vec<String> = self
            .mutants
            .iter()
            .filter(|mutant| !mutant.test.exists(root))
            .map(|mutant| format!("{}: there is no test {}", mutant.name, mutant.test))
            .collect();
        if missing.is_empty() { Ok(()) } else { bail!("{}", missing.join("\n")) }
    }

    fn by_file(&self) -> BTreeMap<&PathBuf, Vec<Placed<'_>>> {
        let mut files: BTreeMap<&PathBuf, Vec<Placed<'_>>> = BTreeMap::new();
        for (number, mutant) in self.mutants.iter().enumerate() {
            for edit in &mutant.edits {
                files.entry(&edit.file).or_default().push(Placed { number, mutant, edit });
            }
        }
        files
    }
}

/// An edit, and whose it is.
struct Placed<'a> {
    number: usize,
    mutant: &'a Mutant,
    edit: &'a Edit,
}

/// The text with all edits made, which must not touch each other.
fn apply(text: &str, edits: &[Placed<'_>]) -> Result<String> {
    let mut spans = Vec::new();
    for placed in edits {
        let name = &placed.mutant.name;
        let mut places = text.match_indices(&placed.edit.find).map(|(at, _)| at);
        let (at, again) = (places.next(), places.next());
        let at = at.ok_or_else(|| anyhow!("{name} has drifted: its text is not there"))?;
        ensure!(again.is_none(), "{name} has drifted: its text is there more than once");
        spans.push((at, at + placed.edit.find.len(), placed));
    }
    spans.sort_by_key(|(from, ..)| *from);
    let (mut edited, mut copied) = (String::with_capacity(text.len() * 2), 0);
    for (from, to, placed) in spans {
        ensure!(from >= copied, "{} touches the edit before it", placed.mutant.name);
        edited.push_str(&text[copied..from]);
        let switch = format!("crate::mutant::is({})", placed.number);
        edited.push_str(&placed.edit.replace.replace(SWITCH, &switch));
        copied = to;
    }
    edited.push_str(&text[copied..]);
    Ok(edited)
}

impl NamedTest {
    /// Whether the sources have a function of that name where the test should be.
    fn exists(&self, root: &Path) -> bool {
        let package = root.join(&self.package);
        let places = match self.target.as_str() {
            "lib" => vec![package.join("src")],
            target => {
                let tests = package.join("tests");
                vec![tests.join(target), tests.join(format!("{target}.rs"))]
            }
        };
        let name = self.path.rsplit("::").next().unwrap_or(&self.path);
        let definition = format!("fn {name}(");
        places.iter().any(|place| is_said_below(place, &definition))
    }
}

fn is_said_below(place: &Path, text: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(place) else {
        return std::fs::read_to_string(place).is_ok_and(|file| file.contains(text));
    };
    entries.flatten().any(|entry| is_said_below(&entry.path(), text))
}

impl TryFrom<String> for NamedTest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.split_whitespace().collect::<Vec<_>>().as_slice() {
            [package, target, path] => Ok(Self {
                package: (*package).to_owned(),
                target: (*target).to_owned(),
                path: (*path).to_owned(),
            }),
            _ => Err(format!("`{text}` does not name a test: package target path")),
        }
    }
}

impl fmt::Display for NamedTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.package, self.target, self.path)
    }
}

impl fmt::Display for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Core => "core",
            Self::World => "world",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(edits: &[(&str, &str)]) -> Catalogue {
        let mutants = edits
            .iter()
            .map(|(find, replace)| Mutant {
                name: format!("{find}-mutant"),
                bug: String::new(),
                seen: String::new(),
                test: NamedTest::try_from("raft lib name".to_owned()).unwrap(),
                simulators: BTreeSet::new(),
                sample: None,
                edits: vec![Edit {
                    file: PathBuf::from("a.rs"),
                    find: (*find).to_owned(),
                    replace: (*replace).to_owned(),
                }],
            })
            .collect();
        Catalogue { mutants }
    }

    fn edited(text: &str, edits: &[(&str, &str)]) -> Result<String> {
        let catalogue = catalogue(edits);
        apply(text, &catalogue.by_file()[&PathBuf::from("a.rs")])
    }

    #[test]
    fn edits_of_one_file_are_all_made_wherever_they_stand() {
        let text = edited("if a && b { c }", &[("b", "(MUTANT || b)"), ("a", "a != MUTANT")]);
        assert_eq!(
            text.unwrap(),
            "if a != crate::mutant::is(1) && (crate::mutant::is(0) || b) { c }"
        );
    }

    #[test]
    fn what_has_drifted_is_named() {
        for (text, said) in [("b", "is not there"), ("a a", "more than once")] {
            let fault = edited(text, &[("a", "MUTANT")]).unwrap_err().to_string();
            assert!(fault.contains("a-mutant") && fault.contains(said), "{fault}");
        }
        let touching = edited("abc", &[("ab", "MUTANT"), ("bc", "MUTANT")]).unwrap_err();
        assert!(touching.to_string().contains("bc-mutant touches"), "{touching}");
    }

    #[test]
    fn the_list_fits_the_sources() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let catalogue = Catalogue::read(&root.join("proof/mutants.toml")).unwrap();
        catalogue.edited(root).unwrap();
        catalogue.check_tests(root).unwrap();
        assert!(catalogue.mutants.len() >= 30, "only {} mutants", catalogue.mutants.len());
        assert_eq!(catalogue.mutants.iter().filter(|mutant| mutant.sample.is_some()).count(), 5);
    }
}
