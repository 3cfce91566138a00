//! One correct register per key, used by clients whose operations overlap at random: every history of it is in order.

use std::collections::BTreeMap;

use proof::history::{Answer, Call, History, Key, Operation, Outcome};

/// A small generator of our own, so that a seed means the same for ever.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What goes on in a run.
pub(crate) struct Workload {
    pub(crate) clients: u64,
    pub(crate) keys: u64,
    pub(crate) operations: u64,
    pub(crate) unknown_percent: u64,
    pub(crate) refused_percent: u64,
}

/// A history, and the values in the end.
pub(crate) fn run(workload: &Workload, seed: u64) -> (History, BTreeMap<Key, String>) {
    let mut chance = Chance::new(seed);
    let mut values: BTreeMap<Key, String> = BTreeMap::new();
    let mut history = History::default();
    let mut free_at = vec![0; usize::try_from(workload.clients).unwrap()];
    // What takes effect later than its client waited for it.
    let mut late: Vec<(u64, Key, Call)> = Vec::new();
    for number in 0..workload.operations {
        // Effects happen at 100, 200, …; an operation begins before its effect and ends after it.
        let effect = (number + 1) * 100;
        for (_, key, call) in late.extract_if(.., |(at, ..)| *at < effect) {
            apply(&mut values, &key, &call);
        }
        let Some(client) = (0..workload.clients)
            .map(|first| (first + chance.below(workload.clients)) % workload.clients)
            .find(|client| free_at[usize::try_from(*client).unwrap()] < effect)
        else {
            continue;
        };
        let free = &mut free_at[usize::try_from(client).unwrap()];
        let invoked = (*free + 1).max(effect.saturating_sub(chance.below(700)));
        let ended = effect + chance.below(700);
        *free = ended;
        let key = format!("key{}", chance.below(workload.keys));
        let call = any_call(&mut chance, &key, client, number);
        let outcome = if chance.percent(workload.refused_percent) {
            Outcome::Refused { at: ended }
        } else if chance.percent(workload.unknown_percent) {
            match chance.below(3) {
                0 => {}
                1 => drop(apply(&mut values, &key, &call)),
                _ => late.push((effect + chance.below(100_000), key.clone(), call.clone())),
            }
            Outcome::Unknown
        } else {
            match apply(&mut values, &key, &call) {
                Some(answer) => Outcome::Ok { at: ended, answer },
                None => Outcome::Refused { at: ended },
            }
        };
        history.push(Operation { client, key, call, invoked, outcome });
    }
    (history, values)
}

/// A third of the keys are lists, a third counters, a third registers.
fn any_call(chance: &mut Chance, key: &str, client: u64, number: u64) -> Call {
    let role = key.bytes().last().unwrap_or_default() % 3;
    match (role, chance.below(10)) {
        (0, 0) | (1 | 2, 0..3) => Call::Get,
        (0, _) => Call::Append(format!("{client}.{number};")),
        (1, _) => Call::Increment,
        (_, 3..6) => Call::Put(number.to_string()),
        (_, 6) => Call::Delete,
        (..) => {
            let recent = number.saturating_sub(chance.below(6)).to_string();
            let expected = (!chance.percent(20)).then_some(recent);
            Call::CompareAndSet { expected, new: number.to_string() }
        }
    }
}

/// None: refused.
fn apply(values: &mut BTreeMap<Key, String>, key: &Key, call: &Call) -> Option<Answer> {
    let present = values.get(key).cloned();
    Some(match call {
        Call::Put(value) => {
            values.insert(key.clone(), value.clone());
            Answer::Applied
        }
        Call::Append(text) => {
            let value = values.entry(key.clone()).or_default();
            value.push_str(text);
            Answer::Length(value.len() as u64)
        }
        Call::Increment => {
            let number = present.map_or(Some(0), |text| text.parse::<i64>().ok())? + 1;
            values.insert(key.clone(), number.to_string());
            Answer::Number(number)
        }
        Call::CompareAndSet { expected, new } if *expected == present => {
            values.insert(key.clone(), new.clone());
            Answer::Swapped
        }
        Call::CompareAndSet { .. } => Answer::NotSwapped(present),
        Call::Delete => Answer::Removed(values.remove(key).is_some()),
        Call::Get => Answer::Value(present),
    })
}
