//! How long a suspect has time to refute (Lifeguard §IV-B).

use std::collections::BTreeSet;

use super::member::MemberId;
use super::settings::{Settings, scaled};

/// A running suspicion: it ends with a refutation or with death at its deadline.
///
/// One accuser may be wrong because its own network is; so the first accusation alone gives the suspect the longest
/// time, and each independent confirmation shortens it:
///
/// timeout = max − (max − min) · ln(c + 1) / ln(k + 1)
///
/// with c confirmations of k that are wanted. k is no more than there are other members to confirm.
///
/// Nobody is buried on hearsay alone: in the last period before the end, which our own poor health stretches, we call
/// the suspect ourselves, twice, and tell it what is held against it. Whoever missed the refutation, because it was
/// stopped itself or its buffer was full, learns of it by the answer.
#[derive(Clone, Debug)]
pub struct Suspicion {
    started_ms: u64,
    accusers: BTreeSet<MemberId>,
    wanted: usize,
    min_ms: u64,
    max_ms: u64,
    calls: Calls,
}

/// Our own calls to the suspect.
#[derive(Clone, Copy, Debug)]
enum Calls {
    None,
    Once { again_ms: u64, until_ms: u64 },
    Twice { until_ms: u64 },
}

/// What a suspicion wants now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuspicionStep {
    /// Nothing yet.
    Wait,
    /// Call the suspect.
    Call,
    /// The time to refute is over.
    Bury,
}

impl Suspicion {
    /// Starts at `now_ms` among `members` that are not dead, the suspect and ourselves included.
    pub fn start(now_ms: u64, accuser: MemberId, members: usize, settings: &Settings) -> Self {
        let other_witnesses = members.saturating_sub(2);
        Self {
            started_ms: now_ms,
            accusers: BTreeSet::from([accuser]),
            wanted: settings.suspicion_confirmations.min(other_witnesses),
            min_ms: settings.suspicion_min_ms(members),
            max_ms: settings.suspicion_max_ms(members),
            calls: Calls::None,
        }
    }

    /// What to do at `now_ms`; `patience_ms` is how long the suspect may take to answer our calls.
    pub fn step(&mut self, now_ms: u64, patience_ms: u64) -> SuspicionStep {
        if now_ms < self.wakeup_ms(patience_ms) {
            return SuspicionStep::Wait;
        }
        match self.calls {
            Calls::None => {
                let until_ms = now_ms + patience_ms;
                self.calls = Calls::Once { again_ms: now_ms + patience_ms / 2, until_ms };
                SuspicionStep::Call
            }
            Calls::Once { until_ms, .. } => {
                self.calls = Calls::Twice { until_ms };
                SuspicionStep::Call
            }
            Calls::Twice { .. } => SuspicionStep::Bury,
        }
    }

    /// When [`Suspicion::step`] has something to say.
    pub fn wakeup_ms(&self, patience_ms: u64) -> u64 {
        match self.calls {
            Calls::None => self.deadline_ms().saturating_sub(patience_ms),
            Calls::Once { again_ms, .. } => again_ms,
            Calls::Twice { until_ms } => self.deadline_ms().max(until_ms),
        }
    }

    /// Adds an accuser. Tells whether it is new and still wanted, so that it is worth passing on.
    pub fn confirm(&mut self, accuser: MemberId) -> bool {
        self.accusers.len() <= self.wanted && self.accusers.insert(accuser)
    }

    /// The first by id of those that stand behind it.
    pub fn first_accuser(&self) -> MemberId {
        *self.accusers.first().expect("a suspicion starts with an accuser")
    }

    /// Whether `member` has accused.
    pub fn is_accused_by(&self, member: MemberId) -> bool {
        self.accusers.contains(&member)
    }

    /// When the suspect is dead unless it refutes, or a little later if it was not called in time.
    fn deadline_ms(&self) -> u64 {
        self.started_ms + self.timeout_ms()
    }

    /// We were away for so long: the suspect could not reach us.
    pub fn put_off(&mut self, away_ms: u64) {
        self.started_ms += away_ms;
        self.calls = Calls::None;
    }

    fn timeout_ms(&self) -> u64 {
        let confirmations = (self.accusers.len() - 1).min(self.wanted);
        if confirmations == self.wanted {
            return self.min_ms;
        }
        let logarithm = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX)).ln();
        let share = logarithm(confirmations + 1) / logarithm(self.wanted + 1);
        self.max_ms - scaled(self.max_ms - self.min_ms, share)
    }
}

#[cfg(test)]
mod tests {
    use super::SuspicionStep::{Bury, Call, Wait};
    use super::*;

    fn timeouts(members: usize) -> Vec<u64> {
        let mut suspicion = Suspicion::start(100, MemberId(1), members, &Settings::default());
        let mut timeouts = vec![suspicion.deadline_ms() - 100];
        for accuser in 2..5 {
            suspicion.confirm(MemberId(accuser));
            timeouts.push(suspicion.deadline_ms() - 100);
        }
        timeouts
    }

    #[test]
    fn confirmations_shorten_the_timeout_along_the_formula() {
        for (members, expected) in [
            (2, [2_000, 2_000, 2_000, 2_000]),
            (3, [12_000, 2_000, 2_000, 2_000]),
            (4, [12_000, 5_691, 2_000, 2_000]),
            (100, [24_000, 11_381, 4_000, 4_000]),
        ] {
            assert_eq!(timeouts(members), expected, "{members} members");
        }
    }

    #[test]
    fn one_accuser_counts_once_and_none_counts_after_the_last_wanted() {
        let mut suspicion = Suspicion::start(0, MemberId(1), 9, &Settings::default());
        let confirmed = [1, 2, 2, 3, 4].map(|accuser| suspicion.confirm(MemberId(accuser)));
        assert_eq!(confirmed, [false, true, false, true, false]);
        assert!(suspicion.is_accused_by(MemberId(3)) && !suspicion.is_accused_by(MemberId(4)));
    }

    #[test]
    fn our_own_absence_is_not_held_against_the_suspect() {
        let mut suspicion = Suspicion::start(0, MemberId(1), 2, &Settings::default());
        suspicion.put_off(5_000);
        assert_eq!(suspicion.deadline_ms(), 7_000);
    }

    #[test]
    fn the_suspect_is_called_twice_before_it_is_buried() {
        let mut suspicion = Suspicion::start(0, MemberId(1), 2, &Settings::default());
        let steps = [1_499, 1_500, 1_749, 1_750, 1_999, 2_000].map(|ms| suspicion.step(ms, 500));
        assert_eq!(steps, [Wait, Call, Wait, Call, Wait, Bury]);
        assert_eq!(suspicion.wakeup_ms(500), 2_000);
    }

    #[test]
    fn whoever_is_late_to_call_still_waits_for_the_answer() {
        let mut suspicion = Suspicion::start(0, MemberId(1), 3, &Settings::default());
        assert_eq!(suspicion.step(9_000, 1_000), Wait);
        suspicion.confirm(MemberId(2));
        let steps = [9_000, 9_500, 9_999, 10_000].map(|ms| suspicion.step(ms, 1_000));
        assert_eq!(steps, [Call, Call, Wait, Bury]);
    }

    #[test]
    fn after_an_absence_the_suspect_is_called_anew() {
        let mut suspicion = Suspicion::start(0, MemberId(1), 2, &Settings::default());
        suspicion.step(1_500, 500);
        suspicion.step(1_750, 500);
        suspicion.put_off(60_000);
        assert_eq!(suspicion.wakeup_ms(500), 61_500);
        assert_eq!(suspicion.step(62_000, 500), Call);
    }
}
