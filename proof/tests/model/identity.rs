//! When two replicas count as the same state: when they will behave alike, whatever comes.
//!
//! A replica's debug text names everything that it holds. Left out are chance and clocks, which the model decides for itself
//! ([`super::replicas::Event`]), and what only counts up: batches are numbered from the last durable one.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::support::node::Node;

/// Two hashes of 64 bits: so many replicas that two of them meet are never seen.
pub type Identity = (u64, u64);

/// Fields that decide nothing here: nobody's timer runs out by itself in the model, and no write is ever too old.
const CHANCE_AND_CLOCKS: [&str; 6] =
    ["rng", "seed", "incarnation", "timeout_ticks", "now", "handed_out_at"];

/// What `node` is, as far as its future behaviour goes.
pub fn identity(node: &Node) -> Identity {
    let mut text = format!("{node:?}");
    for field in CHANCE_AND_CLOCKS {
        text = without(&text, field);
    }
    let text = renumbered(&text, node.disk.durable_batch().0);
    (hash(&text, 1), hash(&text, 2))
}

/// The hash of anything that has a name.
pub fn hash(text: &str, salt: u8) -> u64 {
    let mut hasher = DefaultHasher::new();
    (salt, text).hash(&mut hasher);
    hasher.finish()
}

/// Cuts the values of all fields of this name.
fn without(text: &str, field: &str) -> String {
    let pattern = format!(" {field}: ");
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&pattern) {
        let value = at + pattern.len();
        kept.push_str(&rest[..value]);
        rest = &rest[value + value_length(&rest[value..])..];
    }
    kept + rest
}

/// How long the value is that `text` begins with: up to the next field, or to the end of what holds it.
fn value_length(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, character) in text.char_indices() {
        match character {
            '{' | '(' | '[' => depth += 1,
            ',' | '}' | ')' | ']' if depth == 0 => return at,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// Numbers batches from the last durable one.
fn renumbered(text: &str, durable: u64) -> String {
    const NAME: &str = "BatchNo(";
    let mut pieces = text.split(NAME);
    let mut made = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (number, rest) = piece.split_once(')').expect("a number in brackets");
        let number: u64 = number.parse().expect("batches are numbers");
        let ahead = number.checked_sub(durable).expect("nothing older than what is durable waits");
        made.push_str(NAME);
        made.push_str(&ahead.to_string());
        made.push(')');
        made.push_str(rest);
    }
    made
}

#[cfg(test)]
mod tests {
    use raft::consensus::{Input, NodeId};

    use super::*;
    use crate::support::{membership, quick_config};

    fn node(seed: u64) -> Node {
        let mut node = Node::new(quick_config(NodeId(1), seed));
        let _output = node.step(Input::Bootstrap(membership(&[1, 2, 3], &[])));
        node
    }

    #[test]
    fn chance_and_the_number_of_a_batch_make_no_difference() {
        assert_eq!(identity(&node(1)), identity(&node(2)));
        let mut restarted = node(1);
        restarted.sync(1).expect("a batch waits");
        let running = identity(&restarted);
        restarted.crash(0);
        restarted.start();
        let mut again = restarted.clone();
        again.crash(0);
        again.start();
        assert_eq!(identity(&restarted), identity(&again));
        assert_ne!(
            identity(&restarted),
            running,
            "a restart forgets, if only where the cache ends"
        );
    }

    #[test]
    fn what_is_not_durable_makes_a_difference() {
        let mut synced = node(1);
        synced.sync(1).expect("a batch waits");
        assert_ne!(identity(&node(1)), identity(&synced));
    }

    #[test]
    fn fields_are_cut_with_all_that_they_hold() {
        let text = "A { x: 1, rng: R { s: [1, 2] }, y: B { rng: 3 }, z: 4 }";
        assert_eq!(without(text, "rng"), "A { x: 1, rng: , y: B { rng: }, z: 4 }");
    }
}
