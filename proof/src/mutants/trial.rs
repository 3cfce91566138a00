//! One mutant on trial: the test that is named for it, then random seeds.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::tree::UNKNOWN_MUTANT;
use super::{Layout, Mutant, NamedTest, Programs, Sample, Simulator};

/// What `timeout` ends with when the time was up.
const TIME_IS_UP: i32 = 124;
/// What it ends with when the program had to be killed.
const KILLED: i32 = 137;
/// The core's simulator as the test program lists it.
const CORE_TEST: &str = "every_invariant_holds_in_every_run";

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The named test.
    pub test: Duration,
    /// The random seeds of one simulator.
    pub seeds: Duration,
}

/// A mutant's programs and limits.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'a> {
    /// Where things lie.
    pub layout: &'a Layout,
    /// What was built.
    pub programs: &'a Programs,
    /// How long it may take.
    pub limits: Limits,
}

/// What was found of one mutant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether the named test fails with it.
    pub named: bool,
    /// What each simulator made of random seeds.
    pub seeds: Vec<Finding>,
}

/// The first seed that a simulator found a mutant with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which simulator.
    pub simulator: Simulator,
    /// The seed; none when the time was up before.
    pub seed: Option<u64>,
    /// Until then.
    pub seconds: f64,
}

impl Report {
    /// Whether the mutant was caught, both ways.
    pub fn is_caught(&self) -> bool {
        self.named && self.seeds.iter().any(|finding| finding.seed.is_some())
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    TimeIsUp,
}

impl Trial<'_> {
    /// The named test without any mutant, which must pass.
    ///
    /// # Errors
    /// When it does not.
    pub fn expect_sound(&self, test: &NamedTest) -> Result<()> {
        let name = format!("none-{}-{}", test.target, test.path.replace("::", "-"));
        let end = self.run_test(test, None, &name)?;
        ensure!(
            end == End::Passed,
            "{test} fails without any mutant: see {}",
            self.log(&name).display()
        );
        Ok(())
    }

    /// Both trials. The simulators are asked one after the other until one finds it.
    ///
    /// # Errors
    /// When a program cannot be run.
    pub fn of(&self, mutant: &Mutant) -> Result<Report> {
        let named = self.named(mutant)?;
        let mut seeds = Vec::new();
        for &simulator in &mutant.simulators {
            let finding = self.random_seeds(mutant, simulator)?;
            seeds.push(finding);
            if finding.seed.is_some() {
                break;
            }
        }
        Ok(Report { named, seeds })
    }

    /// Whether the mutant's test notices it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn named(&self, mutant: &Mutant) -> Result<bool> {
        let log = format!("{}-test", mutant.name);
        // Whose time is up has noticed nothing.
        Ok(self.run_test(&mutant.test, Some(&mutant.name), &log)? == End::Failed)
    }

    /// Whether a seed that is known to find the mutant still does, and finds nothing without it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn sample(&self, mutant: &Mutant, sample: Sample) -> Result<bool> {
        let Sample { simulator, seed } = sample;
        let log = |name: Option<&str>| format!("{}-{simulator}-{seed}", name.unwrap_or("none"));
        let run = |name: Option<&str>| -> Result<End> {
            let mut command = self.simulator(simulator)?;
            match simulator {
                Simulator::Core => command.env("SEED", seed.to_string()),
                Simulator::World => command.args(["--seed", &seed.to_string()]),
            };
            self.end(command, name, &log(name))
        };
        let mutated = Some(mutant.name.as_str());
        if run(None)? != End::Passed || run(mutated)? != End::Failed {
            return Ok(false);
        }
        // A simulator can also fail because it saw too little.
        let said = std::fs::read_to_string(self.log(&log(mutated)))?;
        Ok(said.lines().any(|line| seed_in(line, simulator) == Some(seed)))
    }

    fn random_seeds(&self, mutant: &Mutant, simulator: Simulator) -> Result<Finding> {
        let mut command = self.simulator(simulator)?;
        match simulator {
            Simulator::Core => command.env("SEEDS", u32::MAX.to_string()),
            Simulator::World => {
                let minutes = self.limits.seeds.as_secs().div_ceil(60);
                command.args(["--from", "0", "--jobs", "1", "--minutes", &minutes.to_string()])
            }
        };
        command.env("MUTANT", &mutant.name);
        let began = Instant::now();
        let seed = self.search(command, simulator, &format!("{}-{simulator}", mutant.name))?;
        Ok(Finding { simulator, seed, seconds: began.elapsed().as_secs_f64() })
    }

    /// Lets a simulator run until it names a seed that fails, or its time is up.
    fn search(&self, mut command: Command, simulator: Simulator, log: &str) -> Result<Option<u64>> {
        let mut log = self.create_log(log)?;
        command.stdout(Stdio::piped()).stderr(log.try_clone()?);
        let mut child = command.spawn().context("running a simulator of the copy")?;
        let said = child.stdout.take().context("what it says cannot be read")?;
        for line in BufReader::new(said).lines() {
            let line = line?;
            writeln!(log, "{line}")?;
            if let Some(seed) = seed_in(&line, simulator) {
                // `timeout` hands it on.
                kill_process(Pid::from_child(&child), Signal::TERM)?;
                child.wait()?;
                return Ok(Some(seed));
            }
        }
        end_of(child.wait()?)?;
        Ok(None)
    }

    fn simulator(&self, simulator: Simulator) -> Result<Command> {
        let program = self.programs.simulator(simulator)?;
        let mut command = limited(program, self.limits.seeds);
        match simulator {
            Simulator::Core => {
                command.current_dir(self.layout.tree().join("raft"));
                command.args(["--exact", CORE_TEST]);
            }
            Simulator::World => drop(command.current_dir(self.layout.tree())),
        }
        Ok(command)
    }

    fn run_test(&self, test: &NamedTest, mutant: Option<&str>, log: &str) -> Result<End> {
        let mut command = limited(self.programs.test(test)?, self.limits.test);
        command.current_dir(self.layout.tree().join(&test.package));
        command.args(["--exact", &test.path]);
        let end = self.end(command, mutant, log)?;
        let said = std::fs::read_to_string(self.log(log))?;
        ensure!(said.contains("running 1 test"), "there is no test {test}");
        Ok(end)
    }

    fn end(&self, mut command: Command, mutant: Option<&str>, log: &str) -> Result<End> {
        match mutant {
            Some(name) => command.env("MUTANT", name),
            None => command.env_remove("MUTANT"),
        };
        let log = self.create_log(log)?;
        command.stdout(log.try_clone()?).stderr(log);
        end_of(command.status().context("running a program of the copy")?)
    }

    fn create_log(&self, name: &str) -> Result<File> {
        std::fs::create_dir_all(self.layout.logs())?;
        Ok(File::create(self.log(name))?)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.layout.logs().join(name)
    }
}

/// A program that is ended when its time is up. In the foreground it stays in our group, so that an interrupt reaches it.
fn limited(program: &Path, limit: Duration) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--kill-after=5", &limit.as_secs().to_string()]).arg(program);
    command.env_remove("SEED").env_remove("SEEDS").env_remove("TRACE");
    command
}

fn end_of(status: ExitStatus) -> Result<End> {
    match status.code() {
        Some(0) => Ok(End::Passed),
        Some(TIME_IS_UP | KILLED) => Ok(End::TimeIsUp),
        Some(UNKNOWN_MUTANT) => bail!("the copy is older than the list: prepare it anew"),
        Some(_) | None => Ok(End::Failed),
    }
}

/// The seed with which a simulator says that its failure can be repeated.
fn seed_in(line: &str, simulator: Simulator) -> Option<u64> {
    let sign = match simulator {
        Simulator::Core => "SEED=",
        Simulator::World => "--seed ",
    };
    let (_, after) = line.split_once(sign)?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_found_in_what_the_simulators_say() {
        let core = "to repeat: SEED=17 cargo test -p raft --test simulation";
        let world = "repeat it: cargo run -p proof --bin simulate -- --seed 5 --chaos 300";
        assert_eq!(seed_in(core, Simulator::Core), Some(17));
        assert_eq!(seed_in(world, Simulator::World), Some(5));
        assert_eq!(seed_in(world, Simulator::Core), None);
        assert_eq!(seed_in("--seed none", Simulator::World), None);
    }
}
