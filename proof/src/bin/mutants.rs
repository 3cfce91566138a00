//! Puts known bugs into a copy of the tree and sees whether the tests notice: `scripts/mutants.sh`.

#![allow(clippy::print_stdout, reason = "what it finds is for people")]

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use proof::mutants::{
    Catalogue, Layout, Limits, Mutant, Pace, Programs, Report, Results, Trial, prepare, write_table,
};

/// Bugs that real systems had, put into a copy of ours.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Whether every edit still fits its file and every named test is there. Quick.
    Check,
    /// Brings the copy up to date.
    Prepare,
    /// Tries mutants: the named test, then random seeds.
    Run(Run),
    /// Tries a few with seeds that are known to find them: for every change.
    Ci,
    /// Writes the table of what is known.
    Table,
}

#[derive(Args, Clone, Debug)]
struct Run {
    /// Mutants; all of them when none is named. The table is written when all were run.
    names: Vec<String>,
    /// How long a simulator may search for one of them.
    #[arg(long, default_value_t = 600)]
    seeds_seconds: u64,
    /// Only those that no earlier run has caught.
    #[arg(long)]
    resume: bool,
    /// The named tests only.
    #[arg(long)]
    named_only: bool,
    /// Mutants at a time; as many as there are cores by default.
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
}

/// The longest that a named test may take.
const TEST_SECONDS: u64 = 300;

fn main() -> Result<ExitCode> {
    let layout = Layout::here()?;
    let catalogue = Catalogue::read(&layout.catalogue())?;
    let all_caught = match Cli::parse().command {
        Verb::Check => check(&layout, &catalogue)?,
        Verb::Prepare => {
            println!("{} files of the copy have changed", prepare(&layout, &catalogue)?);
            true
        }
        Verb::Run(run) => run_all(&layout, &catalogue, &run)?,
        Verb::Ci => run_samples(&layout, &catalogue)?,
        Verb::Table => {
            write_table(&layout.table(), &catalogue, &Results::read(&layout.results())?)?;
            true
        }
    };
    Ok(if all_caught { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check(layout: &Layout, catalogue: &Catalogue) -> Result<bool> {
    catalogue.edited(&layout.root)?;
    catalogue.check_tests(&layout.root)?;
    println!("{} mutants fit the sources", catalogue.mutants.len());
    Ok(true)
}

fn limits(seeds_seconds: u64) -> Limits {
    Limits { test: Duration::from_secs(TEST_SECONDS), seeds: Duration::from_secs(seeds_seconds) }
}

/// Brings the copy up to date and builds what these mutants need.
fn build(
    layout: &Layout,
    catalogue: &Catalogue,
    mutants: &[&Mutant],
    pace: Pace,
) -> Result<Programs> {
    catalogue.check_tests(&layout.root)?;
    prepare(layout, catalogue)?;
    let tests = mutants.iter().map(|mutant| &mutant.test).collect();
    let simulators = mutants.iter().flat_map(|mutant| mutant.simulators.iter().copied()).collect();
    Programs::build(layout, &tests, &simulators, pace)
}

fn run_all(layout: &Layout, catalogue: &Catalogue, run: &Run) -> Result<bool> {
    let known = Results::read(&layout.results())?;
    let mut mutants = catalogue.select(&run.names)?;
    if run.resume {
        mutants.retain(|mutant| !known.of(&mutant.name).is_some_and(Report::is_caught));
    }
    let programs = build(layout, catalogue, &mutants, Pace::Search)?;
    let trial = Trial { layout, programs: &programs, limits: limits(run.seeds_seconds) };
    expect_sound(&trial, &mutants)?;
    let results = Mutex::new(known);
    let missed = Mutex::new(Vec::new());
    side_by_side(mutants, run.jobs, |mutant| {
        let report = if run.named_only {
            Report { named: trial.named(mutant)?, seeds: Vec::new() }
        } else {
            trial.of(mutant)?
        };
        println!("{}", line(mutant, &report, run.named_only));
        let caught = if run.named_only { report.named } else { report.is_caught() };
        if !caught {
            lock(&missed).push(mutant.name.clone());
        }
        if run.named_only {
            Ok(())
        } else {
            lock(&results).keep(&mutant.name, report, &layout.results())
        }
    })?;
    if run.names.is_empty() && !run.named_only {
        write_table(&layout.table(), catalogue, &lock(&results))?;
    }
    let missed = lock(&missed);
    if !missed.is_empty() {
        println!("NOT CAUGHT: {}", missed.join(", "));
    }
    Ok(missed.is_empty())
}

/// Every named test has to pass without any mutant.
fn expect_sound(trial: &Trial<'_>, mutants: &[&Mutant]) -> Result<()> {
    let tests: BTreeSet<_> = mutants.iter().map(|mutant| &mutant.test).collect();
    let faults: Vec<String> = tests
        .into_iter()
        .filter_map(|test| trial.expect_sound(test).err())
        .map(|fault| fault.to_string())
        .collect();
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

fn line(mutant: &Mutant, report: &Report, named_only: bool) -> String {
    let named = if report.named { "caught by its test" } else { "MISSED by its test" };
    let seeds: Vec<String> = report
        .seeds
        .iter()
        .map(|finding| match finding.seed {
            Some(seed) => {
                format!("{} seed {seed} after {:.1} s", finding.simulator, finding.seconds)
            }
            None => format!("MISSED by {} in {:.0} s", finding.simulator, finding.seconds),
        })
        .collect();
    let seeds = match seeds.as_slice() {
        [] if named_only => String::new(),
        [] => ", no simulator for it".to_owned(),
        said => format!(", {}", said.join(", ")),
    };
    format!("{}: {named}{seeds}", mutant.name)
}

fn run_samples(layout: &Layout, catalogue: &Catalogue) -> Result<bool> {
    let mutants: Vec<&Mutant> =
        catalogue.mutants.iter().filter(|mutant| mutant.sample.is_some()).collect();
    let programs = build(layout, catalogue, &mutants, Pace::Build)?;
    let trial = Trial { layout, programs: &programs, limits: limits(TEST_SECONDS) };
    let missed = Mutex::new(0_u32);
    side_by_side(mutants, None, |mutant| {
        let Some(sample) = mutant.sample else { return Ok(()) };
        trial.expect_sound(&mutant.test)?;
        let (named, seed) = (trial.named(mutant)?, trial.sample(mutant, sample)?);
        let word = |caught: bool| if caught { "caught" } else { "MISSED" };
        println!(
            "{}: {} by {}, {} by seed {} of {}",
            mutant.name,
            word(named),
            mutant.test,
            word(seed),
            sample.seed,
            sample.simulator
        );
        *lock(&missed) += u32::from(!named || !seed);
        Ok(())
    })?;
    let missed = *lock(&missed);
    Ok(missed == 0)
}

/// Does something for each of them, a few at a time.
fn side_by_side(
    mutants: Vec<&Mutant>,
    jobs: Option<NonZero<usize>>,
    act: impl Fn(&Mutant) -> Result<()> + Sync,
) -> Result<()> {
    ensure!(!mutants.is_empty(), "there is no such mutant");
    let jobs = jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get);
    let queue = Mutex::new(VecDeque::from(mutants));
    let work = || -> Result<()> {
        loop {
            let Some(mutant) = lock(&queue).pop_front() else { return Ok(()) };
            act(mutant)?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(done) => done?,
                Err(_) => bail!("a worker panicked"),
            }
        }
        Ok(())
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
