//! Chance, in streams by name: what one part of the world draws does not change what another one draws.

use std::hash::Hasher;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::trace::Fnv;

/// A stream of chance.
pub type Rng = Xoshiro256PlusPlus;

/// The stream of this name in the run of this seed.
pub fn stream(seed: u64, name: &str) -> Rng {
    let mut mixed = Fnv::default();
    mixed.write(name.as_bytes());
    Rng::seed_from_u64(seed ^ mixed.finish())
}

/// One of these.
pub fn pick<T: Copy, const N: usize>(choices: [T; N], rng: &mut Rng) -> T {
    choices[rng.random_range(0..N)]
}
