//! Runs whole clusters in simulated worlds, each from its seed, and says what went wrong and what was seen.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool speaks there")]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use proof::world::coverage::Coverage;
use proof::world::scenarios;
use proof::world::{Plan, Report, SECOND, run};

/// Runs seeds, all of a number or all that fit into a time.
#[derive(Debug, Parser)]
struct Options {
    /// Run this seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Run so many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run as many seeds as fit into so many minutes instead.
    #[arg(long)]
    minutes: Option<u64>,
    /// Seeds beside each other.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// How long things go wrong in each, in simulated seconds.
    #[arg(long, default_value_t = 300)]
    chaos: u64,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
    /// Least number of seeds, else the run is thin.
    #[arg(long, default_value_t = 0)]
    floor_seeds: u64,
    /// Least number of simulated hours that count, else the run is thin.
    #[arg(long, default_value_t = 0)]
    floor_hours: u64,
}

#[derive(Default)]
struct Tally {
    seeds: u64,
    counted: u64,
    simulated_us: u64,
    counted_us: u64,
    answered: u64,
    unknown: u64,
    committed: u64,
    terms: u64,
    coverage: Coverage,
    lines: BTreeSet<&'static str>,
    failed: Vec<u64>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let begun = Instant::now();
    let tally = Mutex::new(Tally::default());
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let total = if options.seed.is_some() { 1 } else { options.seeds };
    let first = options.seed.unwrap_or(options.from);
    let limit = options.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let over = match limit {
                        Some(limit) => begun.elapsed() >= limit,
                        None => number >= total,
                    };
                    if over || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = first + number;
                    let end = run(seed, &Plan::of(seed, options.chaos), options.trace);
                    let mut tally = tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    match end {
                        Ok(report) => tally.add(&report),
                        Err(failure) => {
                            println!("seed {seed} failed: {}", failure.what);
                            println!("repeat it: {}", repeat(seed, options.chaos));
                            tally.failed.push(seed);
                            stop.store(tally.failed.len() >= 10, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    tally.print(begun.elapsed());
    tally.verdict(&options)
}

fn repeat(seed: u64, chaos: u64) -> String {
    format!("cargo run --release -p proof --bin simulate -- --seed {seed} --chaos {chaos}")
}

impl Tally {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.simulated_us += report.simulated;
        if report.counts() {
            self.counted += 1;
            self.counted_us += report.simulated;
        }
        self.answered += report.answered;
        self.unknown += report.unknown as u64;
        self.committed += report.committed;
        self.terms += report.terms as u64;
        self.coverage.add(&report.coverage);
        self.lines.extend(scenarios::met(&report.coverage));
        if self.seeds == 1 {
            println!("trace of the first seed that ended: {:016x}", report.trace);
        }
    }

    fn print(&self, took: Duration) {
        let seconds = self.simulated_us / SECOND;
        let speed = seconds * 1_000 / u64::try_from(took.as_millis().max(1)).unwrap_or(u64::MAX);
        println!("{}", self.coverage);
        let (met, missed): (Vec<_>, Vec<_>) =
            scenarios::all().partition(|line| self.lines.contains(line));
        println!(
            "lines of docs/scenarios.md that happened within one world: {}; {} more can: {}",
            met.join(" "),
            missed.len(),
            missed.join(" "),
        );
        println!(
            "{} seeds, {} failed, {} events, in {} s: {} simulated s, {speed} times real time",
            self.seeds,
            self.failed.len(),
            self.coverage.steps,
            took.as_secs(),
            seconds,
        );
        println!(
            "{} operations answered ({} a simulated s), {} unknown; {} entries committed, {} terms",
            self.answered,
            self.answered / seconds.max(1),
            self.unknown,
            self.committed,
            self.terms,
        );
        println!(
            "{} seeds count, {}.{:02} cluster-hours with at least 20 operations a second and a fault each 10 s",
            self.counted,
            self.counted_us / SECOND / 3_600,
            self.counted_us / SECOND % 3_600 / 36,
        );
    }

    fn verdict(&self, options: &Options) -> ExitCode {
        if !self.failed.is_empty() {
            println!("FAILED: seeds {:?}", self.failed);
            return ExitCode::FAILURE;
        }
        let hours = self.counted_us / SECOND / 3_600;
        let missing = self.coverage.missing();
        let is_long = options.minutes.is_some() || self.seeds >= 100;
        if self.seeds < options.floor_seeds.max(1)
            || hours < options.floor_hours
            || is_long && !missing.is_empty()
            || self.counted * 4 < self.seeds * 3
        {
            println!(
                "THIN: {} seeds, {hours} hours that count, never seen: {missing:?}",
                self.seeds
            );
            return ExitCode::FAILURE;
        }
        println!("held");
        ExitCode::SUCCESS
    }
}
