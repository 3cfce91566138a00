//! Holds a stream of bytes to a rate, so that it leaves room for what is in a hurry.

use std::time::{Duration, Instant};

use tokio::time::sleep_until;

/// A rate, and how far it has been used up.
#[derive(Debug)]
pub struct Pace {
    bytes_per_s: Option<u64>,
    /// When the next bytes may go.
    next: Instant,
}

impl Pace {
    /// At most so many bytes per second; none, or zero, means no limit.
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        Self { bytes_per_s: bytes_per_s.filter(|rate| *rate > 0), next: Instant::now() }
    }

    /// These bytes have gone: waits until more may. Time that was not used is lost, so a pause is not followed by a rush.
    pub async fn spend(&mut self, bytes: usize) {
        if let Some(next) = self.after(bytes, Instant::now()) {
            sleep_until(next.into()).await;
        }
    }

    /// When more may go, if there is a limit.
    fn after(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        let cost_ns = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.bytes_per_s?);
        let cost = Duration::from_nanos(u64::try_from(cost_ns).unwrap_or(u64::MAX));
        self.next = self.next.max(now) + cost;
        Some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_and_a_pause_is_not_made_up_for() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut pace = Pace { bytes_per_s: Some(1_000), next: begun };
        assert_eq!(pace.after(1_000, begun), Some(at(1)));
        assert_eq!(pace.after(2_000, begun), Some(at(3)));
        assert_eq!(pace.after(1_000, at(60)), Some(at(61)));
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        assert_eq!(Pace::new(None).after(usize::MAX, Instant::now()), None);
        assert_eq!(Pace::new(Some(0)).after(1, Instant::now()), None);
    }
}
