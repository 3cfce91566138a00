//! What may happen at most in one course of a world, and worlds in words.

use crate::replicas::Disk;
use crate::world::{Start, World};

/// Everything that has no bound here is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Nobody goes beyond this term. The first election is that of term 2.
    pub terms: u64,
    /// How often somebody may turn against its leader, or campaign again.
    pub campaigns: u8,
    pub proposals: u8,
    pub reads: u8,
    pub crashes: u8,
    /// How many messages arrive a second time, some time later.
    pub copies: u8,
    /// Ticks of all replicas together, beside those in which somebody waits in vain.
    pub ticks: u8,
    /// Changes of the configuration: the last voter is replaced by a fourth replica.
    pub changes: u8,
}

impl Bounds {
    /// Nothing may happen.
    const NONE: Self = Self {
        terms: 2,
        campaigns: 0,
        proposals: 0,
        reads: 0,
        crashes: 0,
        copies: 0,
        ticks: 0,
        changes: 0,
    };
}

impl World {
    /// A world in words, such as `led terms=3 campaigns=1 proposals=2`.
    ///
    /// # Panics
    /// When a word is unknown: it is written in a test or by whoever waits for the answer.
    pub fn of(words: &str, disk: Disk) -> Self {
        let (mut start, mut bounds) = (Start::Cold, Bounds::NONE);
        for word in words.split_whitespace() {
            let (name, number) = word.split_once('=').unwrap_or((word, "1"));
            let number: u8 = number.parse().expect("a bound is a small number");
            match name {
                "cold" => start = Start::Cold,
                "led" => start = Start::Led,
                "terms" => bounds.terms = number.into(),
                "campaigns" => bounds.campaigns = number,
                "proposals" => bounds.proposals = number,
                "reads" => bounds.reads = number,
                "crashes" => bounds.crashes = number,
                "copies" => bounds.copies = number,
                "ticks" => bounds.ticks = number,
                "changes" => bounds.changes = number,
                unknown => panic!("{unknown} is no word for a world"),
            }
        }
        Self::new(start, bounds, disk)
    }
}

#[test]
fn words_are_read_as_they_are_meant() {
    let world = World::of("led terms=3 proposals=2 changes=1", Disk::Sound);
    let expected = Bounds { terms: 3, proposals: 2, changes: 1, ..Bounds::NONE };
    assert_eq!((world.start, world.bounds), (Start::Led, expected));
}
