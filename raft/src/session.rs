//! Exactly-once: the table of sessions, a fold over the committed log (thesis §6.3).
//!
//! Every node folds the same entries in the same order, so every node gives the same [`Verdict`] on each of them.
//! Nothing else may enter a verdict: no clock, no answer of the state machine, no limit that differs between nodes.
//! Results are kept beside the verdicts while they can be; losing one changes an answer's wording, never a verdict.
//!
//! A duplicate is known by its exact number within a window, never by the highest number seen: commands of one session
//! may arrive in any order. Opening is an entry of its own and numbers are never used twice, so a late retry under a
//! session that was evicted is recognised as such instead of being applied as new.

use std::collections::BTreeMap;

use crate::command::{Command, Kind};
use crate::consensus::Index;
use crate::rpc::client::{Outcome, SESSION_WINDOW};

/// Sessions that are kept; one more evicts the least recently used one.
pub const MAX_SESSIONS: usize = 10_000;
/// Bytes of results that are kept for duplicates; beyond it the oldest results are forgotten.
pub const MAX_RESULT_BYTES: usize = 16 * 1024 * 1024;

/// What to do with a committed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Apply it.
    Apply,
    /// Its session, numbered by its index, is open now. Nothing to apply.
    Opened,
    /// Applied before.
    Duplicate {
        /// Where it stood first.
        first: Index,
    },
    /// The session is not known (any more).
    Expired,
    /// The number is below what the client declared answered.
    AlreadyAcknowledged,
    /// The number is too far ahead of `acked_below`.
    OutsideWindow,
}

/// The table. Bounded by [`MAX_SESSIONS`], `SESSION_WINDOW` and [`MAX_RESULT_BYTES`].
#[derive(Debug, Default)]
pub struct Sessions {
    open: BTreeMap<u64, Session>,
    /// When each session was last used, for eviction: unique, because an index uses one session.
    last_used: BTreeMap<Index, u64>,
    results: Results,
}

#[derive(Debug, Default)]
struct Session {
    last_used: Index,
    acked_below: u64,
    /// Where each command stands that is not acknowledged yet, by its number.
    applied: BTreeMap<u64, Index>,
}

impl Sessions {
    /// Folds one committed command in. To be called for each, once, in log order.
    pub fn fold(&mut self, index: Index, command: &Command) -> Verdict {
        match command.kind {
            Kind::OpenSession => {
                self.open_at(index);
                Verdict::Opened
            }
            Kind::Apply if command.session == 0 => Verdict::Apply,
            Kind::Apply => self.fold_numbered(index, command),
        }
    }

    /// Keeps the result of the command at `index`, for its duplicates.
    pub fn keep_result(&mut self, index: Index, outcome: &Outcome) {
        self.results.keep(index, outcome);
    }

    /// The result of the command at `index`; none when it is no longer (or not yet) kept.
    pub fn result(&self, index: Index) -> Option<&Outcome> {
        self.results.by_index.get(&index)
    }

    fn open_at(&mut self, index: Index) {
        if self.open.len() == MAX_SESSIONS
            && let Some((_, evicted)) = self.last_used.pop_first()
            && let Some(session) = self.open.remove(&evicted)
        {
            session.applied.into_values().for_each(|index| self.results.forget(index));
        }
        self.open.insert(index.0, Session { last_used: index, ..Session::default() });
        self.last_used.insert(index, index.0);
    }

    fn fold_numbered(&mut self, index: Index, command: &Command) -> Verdict {
        let Some(session) = self.open.get_mut(&command.session) else {
            return Verdict::Expired;
        };
        self.last_used.remove(&session.last_used);
        self.last_used.insert(index, command.session);
        session.last_used = index;
        for index in session.acknowledge(command.acked_below) {
            self.results.forget(index);
        }
        session.judge(index, command.sequence)
    }
}

impl Session {
    /// Forgets what the client declared answered; returns where those commands stood.
    fn acknowledge(&mut self, acked_below: u64) -> Vec<Index> {
        if acked_below <= self.acked_below {
            return Vec::new();
        }
        self.acked_below = acked_below;
        let open = self.applied.split_off(&acked_below);
        std::mem::replace(&mut self.applied, open).into_values().collect()
    }

    fn judge(&mut self, index: Index, sequence: u64) -> Verdict {
        if let Some(first) = self.applied.get(&sequence) {
            return Verdict::Duplicate { first: *first };
        }
        if sequence < self.acked_below {
            return Verdict::AlreadyAcknowledged;
        }
        if sequence - self.acked_below >= SESSION_WINDOW {
            return Verdict::OutsideWindow;
        }
        self.applied.insert(sequence, index);
        Verdict::Apply
    }
}

/// Results of applied commands by their place in the log; the oldest are forgotten first.
#[derive(Debug, Default)]
struct Results {
    by_index: BTreeMap<Index, Outcome>,
    bytes: usize,
}

impl Results {
    fn keep(&mut self, index: Index, outcome: &Outcome) {
        self.forget(index);
        self.bytes += weight_bytes(outcome);
        self.by_index.insert(index, outcome.clone());
        while self.bytes > MAX_RESULT_BYTES
            && let Some((_, oldest)) = self.by_index.pop_first()
        {
            self.bytes -= weight_bytes(&oldest);
        }
    }

    fn forget(&mut self, index: Index) {
        if let Some(outcome) = self.by_index.remove(&index) {
            self.bytes -= weight_bytes(&outcome);
        }
    }
}

fn weight_bytes(outcome: &Outcome) -> usize {
    const OVERHEAD_BYTES: usize = 64;
    OVERHEAD_BYTES
        + match outcome {
            Outcome::Done(result) | Outcome::Refused(result) => result.len(),
            Outcome::AlreadyApplied => 0,
        }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn open() -> Command {
        Command { kind: Kind::OpenSession, ..command(0, 0, 0) }
    }

    fn command(session: u64, sequence: u64, acked_below: u64) -> Command {
        let body = Bytes::from_static(b"x");
        Command { kind: Kind::Apply, time_ms: 0, session, sequence, acked_below, body }
    }

    fn with_session_at_1() -> Sessions {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.fold(Index(1), &open()), Verdict::Opened);
        sessions
    }

    #[test]
    fn a_number_applies_once_in_any_order_of_arrival() {
        let mut sessions = with_session_at_1();
        assert_eq!(sessions.fold(Index(2), &command(1, 5, 1)), Verdict::Apply);
        assert_eq!(sessions.fold(Index(3), &command(1, 3, 1)), Verdict::Apply);
        let again = sessions.fold(Index(4), &command(1, 5, 1));
        assert_eq!(again, Verdict::Duplicate { first: Index(2) });
        let again = sessions.fold(Index(5), &command(1, 3, 1));
        assert_eq!(again, Verdict::Duplicate { first: Index(3) });
    }

    #[test]
    fn without_a_session_everything_applies() {
        let mut sessions = Sessions::default();
        for index in 1..4 {
            assert_eq!(sessions.fold(Index(index), &command(0, 1, 0)), Verdict::Apply);
        }
    }

    #[test]
    fn unknown_session_is_never_applied() {
        let mut sessions = with_session_at_1();
        assert_eq!(sessions.fold(Index(2), &command(9, 1, 0)), Verdict::Expired);
    }

    #[test]
    fn window_is_half_open() {
        let mut sessions = with_session_at_1();
        let cases = [
            (9, Verdict::AlreadyAcknowledged),
            (10, Verdict::Apply),
            (10 + SESSION_WINDOW - 1, Verdict::Apply),
            (10 + SESSION_WINDOW, Verdict::OutsideWindow),
        ];
        for (index, (sequence, verdict)) in (2..).zip(cases) {
            assert_eq!(
                sessions.fold(Index(index), &command(1, sequence, 10)),
                verdict,
                "{sequence}"
            );
        }
        assert_eq!(
            sessions.fold(Index(9), &command(1, 10, 5)),
            Verdict::Duplicate { first: Index(3) },
            "a delayed, lower acked_below takes nothing back"
        );
    }

    #[test]
    fn least_recently_used_session_goes_first() {
        let mut sessions = Sessions::default();
        let full = MAX_SESSIONS as u64;
        for index in 1..=full {
            sessions.fold(Index(index), &open());
        }
        assert_eq!(sessions.fold(Index(full + 1), &command(1, 1, 0)), Verdict::Apply);
        sessions.fold(Index(full + 2), &open());
        assert_eq!(sessions.fold(Index(full + 3), &command(2, 1, 0)), Verdict::Expired);
        assert_eq!(sessions.fold(Index(full + 4), &command(1, 2, 0)), Verdict::Apply);
        assert_eq!(sessions.open.len(), MAX_SESSIONS);
        assert_eq!(sessions.last_used.len(), MAX_SESSIONS);
    }

    #[test]
    fn results_are_kept_until_acknowledged() {
        let mut sessions = with_session_at_1();
        sessions.fold(Index(2), &command(1, 1, 1));
        let outcome = Outcome::Done(Bytes::from_static(b"41"));
        sessions.keep_result(Index(2), &outcome);
        assert_eq!(sessions.result(Index(2)), Some(&outcome));
        sessions.fold(Index(3), &command(1, 2, 2));
        assert_eq!(sessions.result(Index(2)), None);
        assert_eq!(sessions.results.bytes, 0);
    }

    #[test]
    fn results_stay_within_their_budget() {
        let mut sessions = Sessions::default();
        let outcome = Outcome::Done(Bytes::from(vec![0; 1024 * 1024]));
        for index in 1..100 {
            sessions.keep_result(Index(index), &outcome);
            assert!(sessions.results.bytes <= MAX_RESULT_BYTES);
        }
        assert_eq!(sessions.result(Index(1)), None);
        assert_eq!(sessions.result(Index(99)), Some(&outcome));
    }
}
