//! Exactly-once: the table of sessions, a fold over the committed log (thesis §6.3).
//!
//! Every node folds the same entries in the same order, so every node gives the same [`Verdict`] on each of them.
//! Nothing else may enter a verdict: no clock, no answer of the state machine, no limit that differs between nodes.
//! Results are kept beside the verdicts while they can be; losing one changes an answer's wording, never a verdict.
//!
//! A duplicate is known by its exact number within a window, never by the highest number seen: commands of one session
//! may arrive in any order. Opening is an entry of its own and numbers are never used twice, so a late retry under a
//! session that is gone is recognised as such instead of being applied as new.
//!
//! A session that is not used for longer than its time to live is expired when the next command is folded. Time is *log
//! time*: the highest stamp of the commands so far. An idle cluster forgets nobody.
//!
//! The table travels with snapshots as an [`Image`].

mod image;
mod results;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use self::image::{Image, ImageError, Outline};

use self::results::Results;
use self::window::{Applied, Session};
use crate::command::{Command, Kind};
use crate::consensus::Index;
use crate::rpc::client::Outcome;

/// Sessions that are kept; one more evicts the least recently used one.
pub const MAX_SESSIONS: usize = 10_000;
/// Commands that all sessions together remember because they are not acknowledged; one more evicts the least recently
/// used session.
pub const MAX_REMEMBERED_COMMANDS: usize = 1024 * 1024;
/// Bytes of results that are kept for duplicates; beyond it the oldest results are forgotten.
pub const MAX_RESULT_BYTES: usize = 16 * 1024 * 1024;
/// How long a session lives unused if its client did not say: an hour, in milliseconds of log time.
pub const DEFAULT_TTL_MS: u64 = 60 * 60 * 1000;
/// The longest that a session may live unused: a day, in milliseconds of log time.
pub const MAX_TTL_MS: u64 = 24 * DEFAULT_TTL_MS;

/// The time to live that a session gets whose client asks for `asked_ttl_ms`; zero asks for the default. The same on
/// every node.
pub fn granted_ttl_ms(asked_ttl_ms: u64) -> u64 {
    if asked_ttl_ms == 0 { DEFAULT_TTL_MS } else { asked_ttl_ms.min(MAX_TTL_MS) }
}

/// What to do with a committed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Apply it.
    Apply,
    /// Its session, numbered by its index, is open now. Nothing to apply.
    Opened,
    /// Its session counts as used. Nothing to apply.
    Renewed,
    /// Its session is no longer, or was not. Nothing to apply.
    Closed,
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

/// The name of a command: each is applied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The session, never zero.
    pub session: u64,
    /// The number within it.
    pub sequence: u64,
}

impl Name {
    /// None for a command without a session.
    pub fn new(session: u64, sequence: u64) -> Option<Self> {
        (session != 0).then_some(Self { session, sequence })
    }
}

/// The table. Bounded by [`MAX_SESSIONS`], [`MAX_REMEMBERED_COMMANDS`] and [`MAX_RESULT_BYTES`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// Log time.
    time_ms: u64,
    /// Shared with the images that were made of them: one that is changed is copied first.
    open: BTreeMap<u64, Arc<Session>>,
    /// When each session was last used, for eviction: unique, because an index uses one session.
    last_used: BTreeMap<Index, u64>,
    /// When each session expires, in log time.
    deadlines: BTreeSet<(u64, u64)>,
    /// Commands that the sessions remember.
    remembered: usize,
    results: Results,
}

impl Sessions {
    /// Folds one committed command in. To be called for each, once, in log order.
    pub fn fold(&mut self, index: Index, command: &Command) -> Verdict {
        self.pass_time(command.time_ms);
        match command.kind {
            Kind::OpenSession => {
                self.open_at(index, granted_ttl_ms(command.asked_ttl_ms()));
                Verdict::Opened
            }
            Kind::RenewSession if self.touch(index, command.session).is_some() => Verdict::Renewed,
            Kind::RenewSession => Verdict::Expired,
            Kind::CloseSession => {
                self.remove(command.session);
                Verdict::Closed
            }
            Kind::Apply if command.session == 0 => Verdict::Apply,
            Kind::Apply => self.fold_numbered(index, command),
        }
    }

    /// Whether a session is open.
    pub fn is_open(&self, session: u64) -> bool {
        self.open.contains_key(&session)
    }

    /// Where the command `name` stands, if it is applied, or about to be, and not acknowledged.
    pub fn place(&self, name: Name) -> Option<Index> {
        self.applied(name).map(|applied| applied.index)
    }

    /// Keeps the result of the command `name` at `index`, for its duplicates.
    pub fn keep_result(&mut self, name: Name, index: Index, outcome: &Outcome) {
        // Not a word on the result: a machine that applied it before says so, whatever it said then.
        if *outcome == Outcome::AlreadyApplied || self.place(name) != Some(index) {
            return;
        }
        self.forget_result(name);
        self.results.add(index, name, outcome);
        if let Some(applied) = self.applied_mut(name) {
            applied.result = Some(outcome.clone());
        }
        self.trim_results();
    }

    /// The result of the command `name` at `index`; none when it is no longer (or not yet) kept.
    pub fn result(&self, name: Name, index: Index) -> Option<&Outcome> {
        self.applied(name).filter(|applied| applied.index == index)?.result.as_ref()
    }

    fn applied(&self, name: Name) -> Option<&Applied> {
        self.open.get(&name.session)?.applied.get(&name.sequence)
    }

    fn applied_mut(&mut self, name: Name) -> Option<&mut Applied> {
        Arc::make_mut(self.open.get_mut(&name.session)?).applied.get_mut(&name.sequence)
    }

    fn forget_result(&mut self, name: Name) {
        let is_kept = self.applied(name).is_some_and(|applied| applied.result.is_some());
        if is_kept
            && let Some(applied) = self.applied_mut(name)
            && let Some(outcome) = applied.result.take()
        {
            let index = applied.index;
            self.results.forget(index, &outcome);
        }
    }

    fn trim_results(&mut self) {
        while let Some(oldest) = self.results.oldest_beyond(MAX_RESULT_BYTES) {
            self.forget_result(oldest);
        }
    }

    fn pass_time(&mut self, time_ms: u64) {
        self.time_ms = self.time_ms.max(time_ms);
        while let Some((deadline_ms, session)) = self.deadlines.first().copied()
            && deadline_ms < self.time_ms
        {
            self.remove(session);
        }
    }

    fn open_at(&mut self, index: Index, ttl_ms: u64) {
        if self.open.len() == MAX_SESSIONS {
            self.evict();
        }
        self.enter(index.0, Arc::new(Session::open(index, self.time_ms, ttl_ms)));
    }

    /// Adds a session with all that is known of it.
    fn enter(&mut self, number: u64, session: Arc<Session>) {
        self.last_used.insert(session.last_used, number);
        self.deadlines.insert((session.deadline_ms(), number));
        self.remembered += session.applied.len();
        for (sequence, applied) in &session.applied {
            if let Some(outcome) = &applied.result {
                let name = Name { session: number, sequence: *sequence };
                self.results.add(applied.index, name, outcome);
            }
        }
        self.open.insert(number, session);
    }

    fn evict(&mut self) {
        if let Some(least) = self.last_used.first_key_value().map(|(_, number)| *number) {
            self.remove(least);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(session) = self.open.remove(&number) else { return };
        self.last_used.remove(&session.last_used);
        self.deadlines.remove(&(session.deadline_ms(), number));
        self.forget(session.applied.values());
    }

    fn forget<'a>(&mut self, commands: impl IntoIterator<Item = &'a Applied>) {
        for Applied { index, result } in commands {
            self.remembered -= 1;
            if let Some(outcome) = result {
                self.results.forget(*index, outcome);
            }
        }
    }

    /// Notes that `index` uses a session; none when it is not open.
    fn touch(&mut self, index: Index, number: u64) -> Option<&mut Session> {
        let session = Arc::make_mut(self.open.get_mut(&number)?);
        self.last_used.remove(&session.last_used);
        self.deadlines.remove(&(session.deadline_ms(), number));
        (session.last_used, session.last_used_ms) = (index, self.time_ms);
        self.last_used.insert(index, number);
        self.deadlines.insert((session.deadline_ms(), number));
        Some(session)
    }

    fn fold_numbered(&mut self, index: Index, command: &Command) -> Verdict {
        let Some(session) = self.touch(index, command.session) else {
            return Verdict::Expired;
        };
        let acknowledged = session.acknowledge(command.acked_below);
        let verdict = session.judge(index, command.sequence);
        self.forget(&acknowledged);
        if verdict == Verdict::Apply {
            self.remembered += 1;
            // The session used least recently may remember nothing; this one was used last, so it stays.
            while self.remembered > MAX_REMEMBERED_COMMANDS {
                self.evict();
            }
        }
        verdict
    }
}
