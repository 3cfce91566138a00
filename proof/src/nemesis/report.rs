//! The numbers of a run, and what makes it red: something wrong, or too little done to show anything.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::fault::{Fault, Kind};
use super::{Counts, Plan};
use crate::history::{History, Tally, Verdict, Violation};

/// Least numbers of a run with all kinds of faults.
const ANSWERED_A_MINUTE: u64 = 10_000;
const LEADER_CHANGES: u64 = 5;
const KILLS: u64 = 3;
const MOST_UNKNOWN_PERCENT: usize = 20;
const LEAST_KINDS: usize = 4;

/// What a run did and found.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    length: Duration,
    is_mixed: bool,
    story: Vec<String>,
    faults: BTreeMap<Kind, u64>,
    skipped: Vec<String>,
    counts: Counts,
    tally: Tally,
    longest_settling: Duration,
    verdict: String,
    wrong: Vec<String>,
}

impl Report {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            seed: plan.seed,
            length: plan.length,
            is_mixed: plan.kinds.is_empty(),
            story: Vec::new(),
            faults: BTreeMap::new(),
            skipped: Vec::new(),
            counts: Counts::new(),
            tally: Tally::default(),
            longest_settling: Duration::ZERO,
            verdict: String::new(),
            wrong: Vec::new(),
        }
    }

    /// Whether nothing is wrong, and enough was done.
    pub fn is_green(&self) -> bool {
        self.wrong.is_empty() && self.thin().is_empty()
    }

    pub(super) fn note(&mut self, at: Duration, what: &str) {
        self.story.push(format!("{:6.1} s  {what}", at.as_secs_f64()));
    }

    pub(super) fn count(&mut self, fault: &Fault) {
        *self.faults.entry(fault.kind).or_default() += 1;
    }

    pub(super) fn skipped(&mut self, kind: Kind, why: &str) {
        self.skipped.push(format!("{}: {why}", kind.name()));
    }

    pub(super) fn settled(&mut self, took: Duration) {
        self.longest_settling = self.longest_settling.max(took);
    }

    pub(super) fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    pub(super) fn seen(&mut self, watched: Counts, (counted, wrong): (Counts, Vec<String>)) {
        self.counts.extend(watched);
        self.counts.extend(counted);
        self.wrong.extend(wrong);
    }

    pub(super) fn judge(
        &mut self,
        history: &History,
        verdict: &Verdict,
        appends: Result<(), Violation>,
    ) {
        self.tally = history.tally();
        match verdict {
            Verdict::Linearizable => self.verdict.push_str("linearizable"),
            Verdict::Violated(violation) => {
                self.wrong.push(format!("not linearizable: {violation}"));
            }
            Verdict::Undecided => self.wrong.push("the checker gave up on the history".to_owned()),
        }
        match appends {
            Ok(()) => self.verdict += ", exactly once, 0 lost",
            Err(violation) => self.wrong.push(format!("not exactly once: {violation}")),
        }
    }

    /// Why it shows too little.
    fn thin(&self) -> Vec<String> {
        let Tally { answered, refused, unknown } = self.tally;
        let mut thin = Vec::new();
        let mut least = |what: &str, number: u64, least: u64| {
            if number < least {
                thin.push(format!("thin: {number} {what}, at least {least} are wanted"));
            }
        };
        least(
            "answered operations",
            answered as u64,
            ANSWERED_A_MINUTE * self.length.as_secs() / 60,
        );
        if self.is_mixed {
            least("leader changes", self.counted("leader changes"), LEADER_CHANGES);
            least("kills", self.kills(), KILLS);
            least("snapshot installs", self.counted("snapshot installs"), 1);
            least("configuration changes", self.counted("configuration changes"), 1);
            least("kinds of faults", self.faults.len() as u64, LEAST_KINDS as u64);
        }
        if unknown * 100 > (answered + refused + unknown) * MOST_UNKNOWN_PERCENT {
            thin.push(format!("thin: more than {MOST_UNKNOWN_PERCENT} % unknown outcomes"));
        }
        thin
    }

    fn counted(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    fn kills(&self) -> u64 {
        let kills = self.counts.iter().filter(|(what, _)| what.starts_with("kill -9"));
        kills.map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {} s of faults", self.seed, self.length.as_secs())?;
        self.story.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        let Tally { answered, refused, unknown } = self.tally;
        writeln!(f, "operations: {answered} answered, {refused} refused, {unknown} unknown")?;
        writeln!(f, "faults: {} in all", self.faults.values().sum::<u64>())?;
        for (kind, count) in &self.faults {
            writeln!(f, "  {count:5} {}", kind.name())?;
        }
        writeln!(f, "seen:")?;
        for (what, count) in &self.counts {
            writeln!(f, "  {count:5} {what}")?;
        }
        writeln!(
            f,
            "longest way back to a whole cluster: {:.1} s",
            self.longest_settling.as_secs_f64()
        )?;
        self.skipped.iter().try_for_each(|line| writeln!(f, "skipped: {line}"))?;
        writeln!(f, "history: {}", self.verdict)?;
        self.wrong.iter().chain(&self.thin()).try_for_each(|line| writeln!(f, "RED: {line}"))?;
        write!(f, "{}", if self.is_green() { "green" } else { "red" })
    }
}
