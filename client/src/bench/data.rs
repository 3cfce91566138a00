//! What is written and read, made before the clock runs.

use std::fmt::Write;

use bytes::Bytes;
use rand::SeedableRng;
use rand::distr::{Alphanumeric, SampleString};
use rand::rngs::Xoshiro256PlusPlus;

use super::plan::Plan;

/// Length of each key.
pub(super) const KEY_BYTES: usize = 24;

/// Keys and the value of each. The same plan makes the same data.
#[derive(Clone, Debug)]
pub struct Data {
    /// 24 bytes each, all different.
    pub keys: Vec<Bytes>,
    /// As many; letters and digits at random, so that compression gains little.
    pub values: Vec<Bytes>,
}

impl Data {
    /// Makes them.
    pub fn new(plan: &Plan) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let key = |number| {
            let mut key = String::with_capacity(KEY_BYTES);
            write!(key, "bench/{number:018}").expect("a String takes everything");
            Bytes::from(key)
        };
        let value =
            |_number| Bytes::from(Alphanumeric.sample_string(&mut random, plan.value_bytes));
        Self {
            keys: (0..plan.key_count).map(key).collect(),
            values: (0..plan.key_count).map(value).collect(),
        }
    }
}
