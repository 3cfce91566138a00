//! The numbers of a run, and what makes it red: something wrong, or too little done to show anything.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::fault::{Fault, Kind};
use super::{Counts, Plan};
use crate::history::{History, Tally, Verdict, Violation};

/// Least numbers of a run with all kinds of faults. A run goes on until it has them, for as long again as was wanted.
const ANSWERED: u64 = 10_000;
/// A run that is longer than this needs no more answers; a shorter one, fewer.
const ANSWERED_IN: Duration = Duration::from_mins(1);
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
    /// What there was to choose from.
    dealt: Vec<Kind>,
    story: Vec<String>,
    /// That were seen to do something.
    faults: BTreeMap<Kind, u64>,
    /// That were begun, and nothing came of it.
    in_vain: BTreeMap<Kind, u64>,
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
            dealt: Vec::new(),
            story: Vec::new(),
            faults: BTreeMap::new(),
            in_vain: BTreeMap::new(),
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

    /// Whether nothing is wrong so far, and enough is done, with so many answers and these counts.
    pub(super) fn is_enough(&self, answered: u64, counts: &Counts) -> bool {
        self.missing(answered, counts).is_empty()
    }

    pub(super) fn dealt(&mut self, kinds: &[Kind]) {
        kinds.clone_into(&mut self.dealt);
    }

    pub(super) fn note(&mut self, at: Duration, what: &str) {
        self.story.push(format!("{:6.1} s  {what}", at.as_secs_f64()));
    }

    pub(super) fn count(&mut self, fault: &Fault, has_effect: bool) {
        let faults = if has_effect { &mut self.faults } else { &mut self.in_vain };
        *faults.entry(fault.kind).or_default() += 1;
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
        let mut thin = self.missing(answered as u64, &self.counts);
        if unknown * 100 > (answered + refused + unknown) * MOST_UNKNOWN_PERCENT {
            thin.push(format!("thin: more than {MOST_UNKNOWN_PERCENT} % unknown outcomes"));
        }
        thin
    }

    fn missing(&self, answered: u64, counts: &Counts) -> Vec<String> {
        let mut missing = Vec::new();
        let mut least = |what: &str, number: u64, least: u64| {
            if number < least {
                missing.push(format!("thin: {number} {what}, at least {least} are wanted"));
            }
        };
        let counted = |what: &str| counts.get(what).copied().unwrap_or_default();
        let share = self.length.min(ANSWERED_IN).as_secs();
        least("answered operations", answered, ANSWERED * share / ANSWERED_IN.as_secs());
        if self.is_mixed {
            let kills = counts.iter().filter(|(what, _)| what.starts_with("kill -9"));
            least("kills", kills.map(|(_, count)| count).sum(), KILLS);
            for (what, number) in [
                ("leader changes", LEADER_CHANGES),
                ("snapshot installs", 1),
                ("configuration changes", 1),
            ] {
                least(what, counted(what), number);
            }
            least("kinds of faults", self.faults.len() as u64, LEAST_KINDS as u64);
        } else {
            // Who chooses wants to see each of them; as there is at least one, a run without any fault is thin too.
            for kind in &self.dealt {
                let seen = self.faults.get(kind).copied().unwrap_or_default();
                least(&format!("effects of {}", kind.name()), seen, 1);
            }
        }
        missing
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
        for (kind, count) in &self.in_vain {
            writeln!(f, "  {count:5} {}, without effect and not counted", kind.name())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(chosen: &[Kind], length: Duration) -> Report {
        let plan = Plan { length, seed: 1, kinds: chosen.to_vec(), clients: 1 };
        let mut report = Report::new(&plan);
        report.dealt(if chosen.is_empty() { &Kind::ALL } else { chosen });
        report
    }

    #[test]
    fn every_chosen_fault_must_have_had_an_effect() {
        let mut report = report(&[Kind::Slow, Kind::Deaf], ANSWERED_IN);
        let fault = |kind| Fault { kind, node: 0, other: 1 };
        report.count(&fault(Kind::Slow), true);
        report.count(&fault(Kind::Deaf), false);
        let missing = report.missing(ANSWERED, &Counts::new());
        assert_eq!(missing, ["thin: 0 effects of deaf, at least 1 are wanted"]);
        report.count(&fault(Kind::Deaf), true);
        assert!(report.is_enough(ANSWERED, &Counts::new()));
    }

    #[test]
    fn a_run_without_any_fault_is_thin() {
        for chosen in [vec![], vec![Kind::KillRaft]] {
            let report = report(&chosen, Duration::ZERO);
            assert!(!report.is_enough(ANSWERED, &Counts::new()), "{chosen:?}");
        }
    }
}
