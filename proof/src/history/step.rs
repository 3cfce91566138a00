//! What one operation does to its key, and whether its answer fits: the sequential model.

use super::value::Value;
use super::{Answer, Call};

/// An operation without its times, with its values in their compact form.
#[derive(Debug, Clone)]
pub(super) struct Step {
    effect: Effect,
    /// None: it is not known.
    seen: Option<Seen>,
}

#[derive(Debug, Clone)]
enum Effect {
    Put(Value),
    Append(Box<str>),
    Increment,
    CompareAndSet { expected: Value, new: Value },
    Delete,
    Get,
}

#[derive(Debug, Clone)]
enum Seen {
    Applied,
    Value(Value),
    Number(Value),
    Length(u64),
    Swapped,
    NotSwapped(Value),
    Removed(bool),
}

impl Step {
    pub(super) fn new(call: &Call, answer: Option<&Answer>) -> Self {
        let effect = match call {
            Call::Put(value) => Effect::Put(Value::of(Some(value))),
            Call::Append(text) => Effect::Append(text.as_str().into()),
            Call::Increment => Effect::Increment,
            Call::CompareAndSet { expected, new } => Effect::CompareAndSet {
                expected: Value::of(expected.as_deref()),
                new: Value::of(Some(new)),
            },
            Call::Delete => Effect::Delete,
            Call::Get => Effect::Get,
        };
        let seen = answer.map(|answer| match answer {
            Answer::Applied => Seen::Applied,
            Answer::Value(value) => Seen::Value(Value::of(value.as_deref())),
            Answer::Number(number) => Seen::Number(Value::number(*number)),
            Answer::Length(length) => Seen::Length(*length),
            Answer::Swapped => Seen::Swapped,
            Answer::NotSwapped(value) => Seen::NotSwapped(Value::of(value.as_deref())),
            Answer::Removed(removed) => Seen::Removed(*removed),
        });
        Self { effect, seen }
    }

    /// The value after it, if it can happen here and what was seen of it fits.
    pub(super) fn apply(&self, before: Value) -> Option<Value> {
        let after = self.after(before)?;
        self.fits(before, after).then_some(after)
    }

    /// None: the machine would refuse it.
    fn after(&self, before: Value) -> Option<Value> {
        Some(match &self.effect {
            Effect::Put(value) => *value,
            Effect::Append(text) => before.followed_by(text),
            Effect::Increment => Value::number(before.as_number()?.checked_add(1)?),
            Effect::CompareAndSet { expected, new } if before == *expected => *new,
            Effect::CompareAndSet { .. } | Effect::Get => before,
            Effect::Delete => Value::Absent,
        })
    }

    fn fits(&self, before: Value, after: Value) -> bool {
        match (&self.effect, &self.seen) {
            (_, None | Some(Seen::Applied)) => true,
            (Effect::Get, Some(Seen::Value(value))) => before == *value,
            (Effect::Increment, Some(Seen::Number(number))) => after == *number,
            (Effect::Append(_), Some(Seen::Length(length))) => after.length() == *length,
            (Effect::CompareAndSet { expected, .. }, Some(Seen::Swapped)) => before == *expected,
            (Effect::CompareAndSet { expected, .. }, Some(Seen::NotSwapped(value))) => {
                before == *value && before != *expected
            }
            (Effect::Delete, Some(Seen::Removed(removed))) => *removed == (before != Value::Absent),
            // An answer to another question.
            (_, Some(_)) => false,
        }
    }

    /// Whether it can happen anywhere, and leaves the same behind everywhere.
    pub(super) fn overwrites(&self) -> bool {
        matches!(
            (&self.effect, &self.seen),
            (Effect::Put(_) | Effect::Delete, None | Some(Seen::Applied))
        )
    }

    /// Whether what was seen of it says that it changed nothing.
    pub(super) fn changed_nothing(&self) -> bool {
        matches!(
            (&self.effect, &self.seen),
            (Effect::Get, _)
                | (Effect::CompareAndSet { .. }, Some(Seen::NotSwapped(_)))
                | (Effect::Delete, Some(Seen::Removed(false)))
        )
    }

    pub(super) fn appends(&self) -> bool {
        matches!(self.effect, Effect::Append(_))
    }

    pub(super) fn reads_only(&self) -> bool {
        matches!(self.effect, Effect::Get)
    }
}
