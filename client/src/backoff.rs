//! How long to wait before a request is tried again.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Shortest pause. A failover takes some 50 to 100 ms, so a client that waited much longer at first would sleep through it.
const FIRST: Duration = Duration::from_millis(8);
/// Longest pause, before jitter.
const LONGEST: Duration = Duration::from_millis(500);

/// Growing pauses with jitter, so that the clients of a cluster do not come back all at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The pause before the next round: from half of the present step to all of it. Each step is half as long again as
    /// the one before: doubling would leave gaps as long as a whole failover.
    pub(crate) fn pause(&mut self, rng: &mut impl Rng) -> Duration {
        let step = self.next;
        self.next = (step * 3 / 2).min(LONGEST);
        step.mul_f64(rng.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn pauses_start_small_grow_and_stay_below_the_longest() {
        for seed in 0..100 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut backoff = Backoff::default();
            let pauses: Vec<_> = (0..20).map(|_| backoff.pause(&mut rng)).collect();
            assert!(pauses[0] >= FIRST / 2 && pauses[0] <= FIRST, "{:?}", pauses[0]);
            assert!(pauses[19] >= LONGEST / 2 && pauses[19] <= LONGEST, "{:?}", pauses[19]);
            let within_a_failover: Duration = pauses[..4].iter().sum();
            assert!(within_a_failover < Duration::from_millis(70), "{within_a_failover:?}");
        }
    }

    #[test]
    fn two_clients_do_not_keep_step() {
        let pause = |seed| Backoff::default().pause(&mut SmallRng::seed_from_u64(seed));
        assert_ne!(pause(1), pause(2));
    }
}
