//! Holds a stream of bytes to a rate, so that it leaves room for what is in a hurry.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A rate, and how far it has been used up.
#[derive(Debug)]
pub struct Pace {
    bytes_per_s: Option<u64>,
    /// When the next bytes may go.
    next: Instant,
}

impl Pace {
    /// At most so many bytes per second; none means no limit.
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        Self { bytes_per_s, next: Instant::now() }
    }

    /// These bytes have gone: waits until more may. Time that was not used is lost, so a pause is not followed by a rush.
    pub async fn spend(&mut self, bytes: usize) {
        let Some(bytes_per_s) = self.bytes_per_s.filter(|rate| *rate > 0) else { return };
        let cost = u128::from(bytes as u64) * 1_000_000_000 / u128::from(bytes_per_s);
        let cost = Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX));
        self.next = self.next.max(Instant::now()) + cost;
        sleep_until(self.next).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_take_their_time_and_a_pause_is_not_made_up_for() {
        let begun = Instant::now();
        let mut pace = Pace::new(Some(1_000));
        pace.spend(500).await;
        pace.spend(500).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(60)).await;
        pace.spend(1_000).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(62));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_waits() {
        let begun = Instant::now();
        Pace::new(None).spend(usize::MAX).await;
        Pace::new(Some(0)).spend(usize::MAX).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
