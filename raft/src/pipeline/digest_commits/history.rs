//! What is remembered of the committed log: the session table, how far it goes, and which entries must not be applied.

use std::collections::BTreeSet;

use bytes::Bytes;
use state_machine::entries::{EntryHeader, EntryKind};

use super::super::{SubmitOutcome, SubmitRefused};
use crate::command::{Command, Kind};
use crate::consensus::{Entry, Index, LogId, Payload, Term};
use crate::rpc::client::Outcome;
use crate::session::{Image, Name, Sessions, Verdict};

/// What is known to the caller of a committed entry.
#[derive(Debug)]
pub(super) enum Fate {
    /// All there is to know.
    Settled(SubmitOutcome),
    /// Its result comes from the machine, or came, when it applied this one.
    Awaits(Source),
}

/// The command whose result answers a caller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    /// Where it stands: for a repeated command, where it stood first.
    pub(super) first: Index,
    /// What its result is kept under.
    pub(super) name: Option<Name>,
}

/// An entry on its way to the state machine.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) id: LogId,
    pub(super) header: EntryHeader,
    pub(super) command: Bytes,
}

/// The memory.
#[derive(Debug, Default)]
pub(super) struct History {
    sessions: Sessions,
    folded: Index,
    /// Commands that are in the log but must not be applied: duplicates and refused ones. Few: they come of retries.
    passed_over: BTreeSet<Index>,
    /// Those up to here are forgotten, or were never known: the log began after it.
    passed_over_after: Index,
}

impl History {
    /// Begins after `folded`, of which nothing is remembered.
    pub(super) fn after(folded: Index) -> Self {
        Self { folded, passed_over_after: folded, ..Self::default() }
    }

    pub(super) fn from_image(image: Image) -> Self {
        let (folded, passed_over_after) = (image.folded(), image.passed_over_after());
        let (sessions, passed_over) = Sessions::from_image(image);
        Self { sessions, folded, passed_over, passed_over_after }
    }

    /// Everything up to here is in it.
    pub(super) fn folded(&self) -> Index {
        self.folded
    }

    pub(super) fn image(&self) -> Image {
        let image = self.sessions.image(self.folded, self.passed_over.clone());
        image.knowing_after(self.passed_over_after)
    }

    /// Takes the place that a snapshot brings, unless it knows more already: both are folds of one log.
    pub(super) fn install(&mut self, image: Image) {
        if image.folded() > self.folded {
            *self = Self::from_image(image);
        }
    }

    /// Entries up to `base` are in the log no more: nobody can ask for them.
    pub(super) fn compacted(&mut self, base: Index) {
        self.passed_over = self.passed_over.split_off(&base.next());
        self.passed_over_after = self.passed_over_after.max(base);
    }

    /// Folds an entry in, once. One that comes again changes nothing, but its caller may be new.
    ///
    /// # Panics
    /// When entries are missing: the table would be another one than elsewhere.
    pub(super) fn digest(&mut self, entry: &Entry) -> Fate {
        let index = entry.id.index;
        let is_new = index > self.folded;
        if is_new {
            assert_eq!(index, self.folded.next(), "committed entries come without gaps");
            self.folded = index;
        }
        let Payload::Command(payload) = &entry.payload else {
            return settled(index);
        };
        match Command::decode(payload) {
            Some(command) if is_new => self.fold(index, &command),
            Some(command) => self.recall(index, &command),
            None => {
                let reason = format!("entry {index} is not a command of this version");
                Fate::Settled(Err(SubmitRefused::Unknown { reason }))
            }
        }
    }

    fn fold(&mut self, index: Index, command: &Command) -> Fate {
        let verdict = self.sessions.fold(index, command);
        if command.kind == Kind::Apply && verdict != Verdict::Apply {
            self.passed_over.insert(index);
        }
        let name = Name::new(command.session, command.sequence);
        let refused = match verdict {
            Verdict::Apply => return Fate::Awaits(Source { first: index, name }),
            Verdict::Duplicate { first } => return Fate::Awaits(Source { first, name }),
            Verdict::Opened | Verdict::Renewed | Verdict::Closed => return settled(index),
            Verdict::Expired => SubmitRefused::SessionExpired,
            Verdict::OutsideWindow => SubmitRefused::OutsideWindow,
            Verdict::AlreadyAcknowledged => SubmitRefused::AlreadyAcknowledged,
        };
        Fate::Settled(Err(refused))
    }

    /// What is known of a command that another node has folded: the verdict came with a snapshot, in the table only.
    fn recall(&self, index: Index, command: &Command) -> Fate {
        let name = Name::new(command.session, command.sequence);
        match command.kind {
            Kind::OpenSession | Kind::CloseSession => settled(index),
            Kind::RenewSession if self.sessions.is_open(command.session) => settled(index),
            Kind::RenewSession => Fate::Settled(Err(SubmitRefused::SessionExpired)),
            Kind::Apply if !self.passed_over.contains(&index) => {
                Fate::Awaits(Source { first: index, name })
            }
            Kind::Apply => match name.and_then(|name| self.sessions.place(name)) {
                Some(first) => Fate::Awaits(Source { first, name }),
                None => Fate::Settled(Err(replaced())),
            },
        }
    }

    /// What is known of a command whose place in the log is not: a snapshot stands there now.
    pub(super) fn known_of(&self, name: Option<Name>) -> SubmitOutcome {
        let place = name.and_then(|name| self.sessions.place(name));
        let first = place.ok_or_else(replaced)?;
        Ok((first, self.result(Source { first, name })))
    }

    pub(super) fn result(&self, source: Source) -> Outcome {
        let kept = source.name.and_then(|name| self.sessions.result(name, source.first));
        kept.cloned().unwrap_or(Outcome::AlreadyApplied)
    }

    pub(super) fn keep_result(&mut self, name: Name, index: Index, outcome: &Outcome) {
        self.sessions.keep_result(name, index, outcome);
    }

    /// An entry as the machine gets it: a command that it is to apply, or one to skip.
    pub(super) fn prepare(&self, entry: &Entry) -> Prepared {
        let LogId { index, term: Term(term) } = entry.id;
        let command = match &entry.payload {
            Payload::Command(payload) if !self.passed_over.contains(&index) => {
                Command::decode(payload).filter(|command| command.kind == Kind::Apply)
            }
            Payload::Command(_) | Payload::Noop | Payload::Membership(_) => None,
        };
        let Some(Command { time_ms, session, sequence, body, .. }) = command else {
            let (kind, time_ms, session, sequence) = (EntryKind::Skip, 0, 0, 0);
            let header = EntryHeader { kind, term, time_ms, session, sequence };
            return Prepared { id: entry.id, header, command: Bytes::new() };
        };
        let header = EntryHeader { kind: EntryKind::Command, term, time_ms, session, sequence };
        Prepared { id: entry.id, header, command: body }
    }
}

fn settled(index: Index) -> Fate {
    Fate::Settled(Ok((index, Outcome::Done(Bytes::new()))))
}

/// Nothing is known: a snapshot from the leader took the entry's place.
pub(super) fn replaced() -> SubmitRefused {
    SubmitRefused::Unknown { reason: "replaced by a snapshot from the leader".to_owned() }
}
