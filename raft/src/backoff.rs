//! Pauses between attempts: doubling, bounded, and jittered so that many callers do not come back at once.

use std::time::Duration;

/// The next pause.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with about `first` and stays at or below `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The pause before the next attempt: between half of the present step and all of it.
    #[allow(clippy::should_implement_trait, reason = "an endless supply of pauses is no iterator")]
    pub fn next(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.most);
        step.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    /// It worked: the next failure starts anew.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_bound_and_starts_anew() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(10), ms(35));
        for step in [10, 20, 35, 35] {
            let pause = backoff.next();
            assert!(ms(step) / 2 <= pause && pause <= ms(step), "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= ms(10));
    }
}
