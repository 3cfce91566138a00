//! Whether the operations of one key have an order: the search of Wing and Gong, memoized, in Lowe's just-in-time form.
//!
//! A [`State`] is a way in which the key may be: its value, which operations have taken effect before their answer came, and which of
//! unknown outcome were needed so far. Time is walked from answer to answer: when one comes, its operation must have taken effect, after
//! any open ones that it needs. A state from which that cannot be is left for another one; no state left: no order.
//!
//! Few states are looked at, because of four rules none of which loses an order:
//! - Of two states that differ only in that one needed more of unknown outcome, the other one can do all that it can.
//! - Equal calls of unknown outcome are exchangeable, so that the oldest is taken first.
//! - What overwrites everything hides what came just before it; nothing of unknown outcome is needed there.
//! - What is known to have changed nothing, and fits here, is taken here: later it could do no more.

use std::collections::{BTreeMap, HashMap};

use super::step::Step;
use super::value::{Hash, Value};
use super::{Answer, Call, Operation, Outcome};

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// An order exists.
    Order,
    /// None exists: of those answers that come up to the one of this operation (its place in the slice), one fits nowhere.
    NoOrder { at: usize },
    /// Too many states.
    OutOfBudget,
}

/// Looks for an order of the operations of one key, which is absent at first.
pub(super) fn search(operations: &[&Operation], budget: &mut u64) -> Found {
    let search = Search::new(operations);
    let mut seen: Vec<Seen> = search.turns.iter().map(|_turn| Seen::default()).collect();
    let mut last = 0;
    let mut ways = vec![];
    let mut next = Some(Way::first());
    loop {
        if let Some(mut way) = next {
            search.answer_what_is_ahead(&mut way);
            let Some(seen) = seen.get_mut(way.turn) else { return Found::Order };
            last = last.max(way.turn);
            if !search.is_too_long(&way) && seen.add(&way.state) {
                let Some(left) = budget.checked_sub(way.state.cost()) else {
                    return Found::OutOfBudget;
                };
                *budget = left;
                ways.push(way);
            }
        }
        let Some(way) = ways.last_mut() else { break };
        next = search.go_on(way);
        if next.is_none() {
            ways.pop();
        }
    }
    Found::NoOrder { at: search.turns[last].operation }
}

/// A state that was come to, and how far it was tried to go on from it.
struct Way {
    /// Which answer comes next.
    turn: usize,
    state: State,
    /// The last to take effect was one of unknown outcome, and nothing was seen of it.
    behind_unknown: bool,
    /// So many ways on were tried.
    tried: usize,
}

impl Way {
    fn first() -> Self {
        let place = Place { value: Value::Absent, ahead: Vec::new() };
        Self::new(0, State { place, needed: Vec::new() }, false)
    }

    fn new(turn: usize, state: State, behind_unknown: bool) -> Self {
        Self { turn, state, behind_unknown, tried: 0 }
    }
}

/// Begin before end at the same time: what touches is taken as overlapping, which never accuses wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Invoked,
    Answered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    time: u64,
    what: What,
    operation: usize,
}

/// Reads without an answer and what was refused have no part in any order.
fn events(operations: &[&Operation]) -> Vec<Event> {
    let mut events = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        let event = |time, what| Event { time, what, operation: number };
        match &operation.outcome {
            Outcome::Ok { at, .. } => {
                events.push(event(operation.invoked, What::Invoked));
                events.push(event((*at).max(operation.invoked), What::Answered));
            }
            Outcome::Unknown if operation.call != Call::Get => {
                events.push(event(operation.invoked, What::Invoked));
            }
            Outcome::Unknown | Outcome::Refused { .. } => {}
        }
    }
    events.sort_unstable();
    events
}

/// One way in which the key may be.
#[derive(Debug, Clone)]
struct State {
    place: Place,
    needed: Needed,
}

impl State {
    /// What it takes of the budget, as of memory.
    fn cost(&self) -> u64 {
        1 + self.needed.len() as u64
    }
}

/// All of a state but what was needed for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    value: Value,
    /// Operations that took effect, and have their answer still to come; in order.
    ahead: Vec<usize>,
}

/// How many of each kind of unknown outcome took effect; by kind, none of them 0.
type Needed = Vec<(usize, usize)>;

/// Equal calls of unknown outcome.
#[derive(Debug)]
struct Kind {
    step: Step,
    /// How many answers came before each of them began.
    begins: Vec<usize>,
}

/// An answer, and what was open when it came.
struct Turn {
    operation: usize,
    /// Begun and not answered, this one included.
    open: Vec<usize>,
}

struct Search {
    steps: Vec<Step>,
    turns: Vec<Turn>,
    kinds: Vec<Kind>,
    /// Of a list, which only grows: what was read, as the hash of each of its beginnings.
    beginnings: Vec<Hash>,
    /// Of a list: how long it can be at each turn, by what was seen of operations that began later.
    longest: Vec<u64>,
    /// How long a list was when an operation took effect, if that was seen.
    lengths: Vec<Option<u64>>,
}

impl Search {
    fn new(operations: &[&Operation]) -> Self {
        let step = |operation: &&Operation| match &operation.outcome {
            Outcome::Ok { answer, .. } => Step::new(&operation.call, Some(answer)),
            Outcome::Refused { .. } | Outcome::Unknown => Step::new(&operation.call, None),
        };
        let steps: Vec<_> = operations.iter().map(step).collect();
        let (turns, kinds) = turns_and_kinds(operations, &steps);
        let lengths: Vec<_> = operations.iter().copied().map(length_seen).collect();
        let is_list = steps.iter().all(|step| step.appends() || step.reads_only());
        let (beginnings, longest) = if is_list {
            (beginnings_of_the_longest_read(operations), longest_at(&turns, &lengths))
        } else {
            (Vec::new(), Vec::new())
        };
        Self { steps, turns, kinds, beginnings, longest, lengths }
    }

    /// Passes all answers whose operations have taken effect.
    fn answer_what_is_ahead(&self, way: &mut Way) {
        while let Some(turn) = self.turns.get(way.turn) {
            if self.take_what_changes_nothing(turn, &mut way.state) {
                way.behind_unknown = false;
            }
            if !remove(&mut way.state.place.ahead, turn.operation) {
                return;
            }
            way.turn += 1;
            way.behind_unknown = false;
        }
    }

    fn take_what_changes_nothing(&self, turn: &Turn, state: &mut State) -> bool {
        let State { place: Place { value, ahead }, .. } = state;
        let before = ahead.len();
        for &operation in &turn.open {
            let step = &self.steps[operation];
            if step.changed_nothing() && step.apply(*value).is_some() {
                insert(ahead, operation);
            }
        }
        ahead.len() > before
    }

    /// The next way on that is possible: first the operation whose answer is to come, then what is open, then what is of unknown outcome.
    fn go_on(&self, way: &mut Way) -> Option<Way> {
        let Way { turn, state, behind_unknown, tried } = way;
        let Turn { operation, open } = &self.turns[*turn];
        loop {
            let at = *tried;
            *tried += 1;
            if at == 0 {
                if let Some(state) = self.follow(state, *operation, *behind_unknown) {
                    return Some(Way::new(*turn, state, false));
                }
            } else if let Some(other) = open.get(at - 1) {
                if let Some(state) = self.follow(state, *other, *behind_unknown) {
                    return Some(Way::new(*turn, state, false));
                }
            } else if at - 1 - open.len() < self.kinds.len() {
                let kind = at - 1 - open.len();
                if let Some(state) = self.follow_unknown(*turn, state, kind, *behind_unknown) {
                    return Some(Way::new(*turn, state, true));
                }
            } else {
                return None;
            }
        }
    }

    fn follow(&self, state: &State, operation: usize, behind_unknown: bool) -> Option<State> {
        let step = &self.steps[operation];
        if behind_unknown && step.overwrites() {
            return None;
        }
        let mut ahead = state.place.ahead.clone();
        if !insert(&mut ahead, operation) {
            return None;
        }
        let value = self.apply(step, state.place.value)?;
        Some(State { place: Place { value, ahead }, needed: state.needed.clone() })
    }

    fn follow_unknown(
        &self,
        turn: usize,
        state: &State,
        kind: usize,
        behind_unknown: bool,
    ) -> Option<State> {
        let Kind { step, begins } = &self.kinds[kind];
        if behind_unknown && step.overwrites() {
            return None;
        }
        let at = state.needed.binary_search_by_key(&kind, |(kind, _)| *kind);
        let next = at.map_or(0, |at| state.needed[at].1);
        if begins.get(next).is_none_or(|begin| *begin > turn) {
            return None;
        }
        let value = self.apply(step, state.place.value)?;
        if value == state.place.value {
            return None;
        }
        let mut needed = state.needed.clone();
        match at {
            Ok(at) => needed[at].1 += 1,
            Err(at) => needed.insert(at, (kind, 1)),
        }
        Some(State { place: Place { value, ahead: state.place.ahead.clone() }, needed })
    }

    /// A list that was read long was each of its beginnings before.
    fn apply(&self, step: &Step, before: Value) -> Option<Value> {
        let after = step.apply(before)?;
        let length = usize::try_from(after.length()).expect("a length in memory");
        let is_beginning = self.beginnings.get(length).is_none_or(|hash| *hash == after.hash());
        is_beginning.then_some(after)
    }

    /// A list that is longer than it is seen by what has yet to take effect, cannot be.
    fn is_too_long(&self, way: &Way) -> bool {
        let Some(longest) = self.longest.get(way.turn) else { return false };
        let Place { value, ahead } = &way.state.place;
        let open = self.turns[way.turn].open.iter();
        let still_open = open.filter(|operation| ahead.binary_search(operation).is_err());
        let seen = still_open.filter_map(|operation| self.lengths[*operation]);
        value.length() > seen.fold(*longest, u64::min)
    }
}

fn turns_and_kinds(operations: &[&Operation], steps: &[Step]) -> (Vec<Turn>, Vec<Kind>) {
    let mut turns = Vec::new();
    let mut kinds: Vec<Kind> = Vec::new();
    let mut kind_of: BTreeMap<&Call, usize> = BTreeMap::new();
    let mut open = Vec::new();
    for Event { what, operation, .. } in events(operations) {
        match what {
            What::Answered => {
                turns.push(Turn { operation, open: open.clone() });
                remove(&mut open, operation);
            }
            What::Invoked if operations[operation].outcome != Outcome::Unknown => {
                open.push(operation);
            }
            What::Invoked => {
                let kind = *kind_of.entry(&operations[operation].call).or_insert(kinds.len());
                if kind == kinds.len() {
                    kinds.push(Kind { step: steps[operation].clone(), begins: Vec::new() });
                }
                kinds[kind].begins.push(turns.len());
            }
        }
    }
    (turns, kinds)
}

fn beginnings_of_the_longest_read(operations: &[&Operation]) -> Vec<Hash> {
    let reads = operations.iter().filter_map(|operation| match &operation.outcome {
        Outcome::Ok { answer: Answer::Value(Some(text)), .. } => Some(text.as_str()),
        Outcome::Ok { .. } | Outcome::Refused { .. } | Outcome::Unknown => None,
    });
    let longest = reads.max_by_key(|text| text.len()).unwrap_or_default();
    let mut hashes = vec![Hash::default()];
    for byte in longest.bytes() {
        hashes.push(hashes[hashes.len() - 1].followed_by(&[byte]));
    }
    hashes
}

fn longest_at(turns: &[Turn], lengths: &[Option<u64>]) -> Vec<u64> {
    let mut longest = u64::MAX;
    let mut at = vec![u64::MAX; turns.len()];
    for (turn, Turn { open, .. }) in turns.iter().enumerate().rev() {
        at[turn] = longest;
        // What is open here and was not before, began after the answer before.
        let before = turn.checked_sub(1).map_or(&[][..], |before| &turns[before].open);
        let begun = open.iter().filter(|operation| !before.contains(operation));
        longest = begun.filter_map(|operation| lengths[*operation]).fold(longest, u64::min);
    }
    at
}

fn length_seen(operation: &Operation) -> Option<u64> {
    let Outcome::Ok { answer, .. } = &operation.outcome else { return None };
    match answer {
        Answer::Value(value) => Some(value.as_ref().map_or(0, |value| value.len() as u64)),
        Answer::Length(length) => Some(*length),
        Answer::Applied
        | Answer::Number(_)
        | Answer::Swapped
        | Answer::NotSwapped(_)
        | Answer::Removed(_) => None,
    }
}

/// States that were looked at, without those that another one makes unnecessary.
#[derive(Default)]
struct Seen(HashMap<Place, Vec<Needed>>);

impl Seen {
    /// False: a state that is there already can do all that this one can.
    fn add(&mut self, state: &State) -> bool {
        let State { place, needed } = state;
        let Some(others) = self.0.get_mut(place) else {
            self.0.insert(place.clone(), vec![needed.clone()]);
            return true;
        };
        if others.iter().any(|other| is_within(other, needed)) {
            return false;
        }
        others.retain(|other| !is_within(needed, other));
        others.push(needed.clone());
        true
    }
}

fn is_within(less: &Needed, more: &Needed) -> bool {
    less.len() <= more.len()
        && less.iter().all(|(kind, count)| {
            more.binary_search_by_key(kind, |(kind, _)| *kind).is_ok_and(|at| *count <= more[at].1)
        })
}

/// Whether it was not there.
fn insert(sorted: &mut Vec<usize>, operation: usize) -> bool {
    let place = sorted.binary_search(&operation);
    if let Err(at) = place {
        sorted.insert(at, operation);
    }
    place.is_err()
}

/// Whether it was there.
fn remove(operations: &mut Vec<usize>, operation: usize) -> bool {
    let place = operations.iter().position(|other| *other == operation);
    if let Some(at) = place {
        operations.remove(at);
    }
    place.is_some()
}
