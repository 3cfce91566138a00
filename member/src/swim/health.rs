//! Local health (Lifeguard §IV-A): whoever seems to be in trouble itself is slower to accuse others.

/// A count of recent signs that the trouble is ours: 0 is healthy.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    score: u32,
    max: u32,
}

impl Health {
    /// Healthy; the score never exceeds `max`.
    pub fn new(max: u32) -> Self {
        Self { score: 0, max }
    }

    /// So many signs of trouble: a probe failed and helpers did not even say "no", or we had to refute.
    pub fn worsen(&mut self, signs: usize) {
        let signs = u32::try_from(signs).unwrap_or(u32::MAX);
        self.score = self.score.saturating_add(signs).min(self.max);
    }

    /// A probe was answered.
    pub fn improve(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    /// Stretches a duration of the probing.
    pub fn stretch(self, ms: u64) -> u64 {
        ms * u64::from(self.score + 1)
    }

    /// 0 (healthy) to the maximum.
    pub fn score(self) -> u32 {
        self.score
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn score_stays_in_its_bounds() {
        let mut health = Health::new(8);
        health.improve();
        assert_eq!((health.score(), health.stretch(200)), (0, 200));
        health.worsen(3);
        health.improve();
        assert_eq!((health.score(), health.stretch(200)), (2, 600));
        health.worsen(usize::MAX);
        assert_eq!((health.score(), health.stretch(200)), (8, 1_800));
    }
}
