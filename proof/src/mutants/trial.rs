//! One mutant on trial: the test that is named for it, then random seeds.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
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
    /// The named test. One that goes on for ever with the mutant has noticed it.
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
            let Some(finding) = self.random_seeds(mutant, simulator)? else { continue };
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
        Ok(self.run_test(&mutant.test, Some(&mutant.name), &log)? != End::Passed)
    }

    /// Whether a seed that is known to find the mutant still does, and finds nothing without it.
    ///
    /// # Errors
    /// When it cannot be run, or this tree has not got the simulator.
    pub fn sample(&self, mutant: &Mutant, sample: Sample) -> Result<bool> {
        let Sample { simulator, seed } = sample;
        let run = |name: Option<&str>| -> Result<End> {
            let log = format!("{}-{simulator}-{seed}", name.unwrap_or("none"));
            let mut command = self.simulator(simulator).context("the simulator was not built")?;
            match simulator {
                Simulator::Core => command.env("SEED", seed.to_string()),
                Simulator::World => command.args(["--seed", &seed.to_string()]),
            };
            self.end(command, name, &log)
        };
        Ok(run(None)? == End::Passed && run(Some(&mutant.name))? != End::Passed)
    }

    /// None when this tree has not got the simulator.
    fn random_seeds(&self, mutant: &Mutant, simulator: Simulator) -> Result<Option<Finding>> {
        let Some(mut command) = self.simulator(simulator) else { return Ok(None) };
        match simulator {
            Simulator::Core => command.env("SEEDS", u32::MAX.to_string()),
            Simulator::World => {
                let minutes = self.limits.seeds.as_secs().div_ceil(60);
                command.args(["--jobs", "1", "--minutes", &minutes.to_string()])
            }
        };
        let log = format!("{}-{simulator}", mutant.name);
        let began = Instant::now();
        let end = self.end(command, Some(&mutant.name), &log)?;
        let seconds = began.elapsed().as_secs_f64();
        let seed = if end == End::Failed { self.seed_in(&log, simulator)? } else { None };
        Ok(Some(Finding { simulator, seed, seconds }))
    }

    /// The seed with which the simulator says that its failure can be repeated.
    fn seed_in(&self, log: &str, simulator: Simulator) -> Result<Option<u64>> {
        let said = std::fs::read_to_string(self.log(log))?;
        let sign = match simulator {
            Simulator::Core => "SEED=",
            Simulator::World => "--seed ",
        };
        let Some((_, after)) = said.split_once(sign) else { return Ok(None) };
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        Ok(digits.parse().ok())
    }

    fn simulator(&self, simulator: Simulator) -> Option<Command> {
        let program = self.programs.simulator(simulator)?;
        let mut command = self.program(program, self.limits.seeds);
        match simulator {
            Simulator::Core => {
                command.current_dir(self.layout.tree().join("raft"));
                command.args(["--exact", CORE_TEST]);
            }
            Simulator::World => drop(command.current_dir(self.layout.tree())),
        }
        Some(command)
    }

    fn run_test(&self, test: &NamedTest, mutant: Option<&str>, log: &str) -> Result<End> {
        let mut command = self.program(self.programs.test(test)?, self.limits.test);
        command.current_dir(self.layout.tree().join(&test.package));
        command.args(["--exact", &test.path]);
        let end = self.end(command, mutant, log)?;
        let said = std::fs::read_to_string(self.log(log))?;
        ensure!(said.contains("running 1 test"), "there is no test {test}");
        Ok(end)
    }

    /// A program that is ended when its time is up.
    fn program(&self, program: &Path, limit: Duration) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", &limit.as_secs().to_string()]).arg(program);
        command.env_remove("SEED").env_remove("SEEDS").env_remove("TRACE");
        command
    }

    fn end(&self, mut command: Command, mutant: Option<&str>, log: &str) -> Result<End> {
        match mutant {
            Some(name) => command.env("MUTANT", name),
            None => command.env_remove("MUTANT"),
        };
        std::fs::create_dir_all(self.layout.logs())?;
        let output = File::create(self.log(log))?;
        command.stdout(output.try_clone()?).stderr(output);
        match command.status().context("running a program of the copy")?.code() {
            Some(0) => Ok(End::Passed),
            Some(TIME_IS_UP | KILLED) => Ok(End::TimeIsUp),
            Some(UNKNOWN_MUTANT) => bail!("the copy is older than the list: prepare it anew"),
            Some(_) | None => Ok(End::Failed),
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.layout.logs().join(name)
    }
}
