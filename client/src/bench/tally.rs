//! Counting, while the load runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::report::{Latency, Report, Second};
use super::{Kind, Trouble};

/// Three digits hold an error below 0.1 %.
const DIGITS: u8 = 3;
/// The longest timeout there is, one hour.
const MAX_LATENCY_US: u64 = 3_600_000_000;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Put,
    Get,
}

/// What has been measured so far. Times must not go back from one call to the next.
#[derive(Debug)]
pub(super) struct Tally {
    /// When measuring began.
    begin: Instant,
    puts: Histogram<u64>,
    gets: Histogram<u64>,
    /// Of the second under way.
    recent: Histogram<u64>,
    seconds: Vec<Second>,
    errors: BTreeMap<Kind, (u64, String)>,
    /// When the last request ended.
    last: Instant,
}

impl Tally {
    pub(super) fn new(begin: Instant) -> Self {
        Self {
            begin,
            puts: histogram(),
            gets: histogram(),
            recent: histogram(),
            seconds: Vec::new(),
            errors: BTreeMap::new(),
            last: begin,
        }
    }

    /// Counts a request that ended at `now`.
    pub(super) fn count(
        &mut self,
        request: Request,
        now: Instant,
        latency: Duration,
        outcome: Result<(), Trouble>,
    ) {
        let second = self.second(now);
        match (&outcome, request) {
            (Ok(()), Request::Put) => second.puts += 1,
            (Ok(()), Request::Get) => second.gets += 1,
            (Err(_), _) => second.errors += 1,
        }
        match outcome {
            Ok(()) => {
                let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
                self.recent.saturating_record(latency_us);
                match request {
                    Request::Put => self.puts.saturating_record(latency_us),
                    Request::Get => self.gets.saturating_record(latency_us),
                }
            }
            Err(trouble) => {
                self.errors.entry(trouble.kind).or_insert((0, trouble.message)).0 += 1;
            }
        }
    }

    /// Everything, after `measured`; none = up to the end of the last request.
    pub(super) fn report(mut self, measured: Option<Duration>) -> Report {
        let measured = measured.unwrap_or(self.last - self.begin);
        self.close_second();
        Report {
            measured,
            puts: Latency::of(&self.puts),
            gets: Latency::of(&self.gets),
            errors: self.errors.into_iter().map(|(kind, (n, first))| (kind, n, first)).collect(),
            seconds: self.seconds,
        }
    }

    fn second(&mut self, now: Instant) -> &mut Second {
        self.last = now;
        let number = usize::try_from((now - self.begin).as_secs()).unwrap_or(usize::MAX);
        while self.seconds.len() <= number {
            self.close_second();
            self.seconds.push(Second::default());
        }
        &mut self.seconds[number]
    }

    fn close_second(&mut self) {
        if let Some(second) = self.seconds.last_mut() {
            second.p50_us = self.recent.value_at_quantile(0.5);
            second.p99_us = self.recent.value_at_quantile(0.99);
            second.max_us = self.recent.max();
        }
        self.recent.reset();
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_US, DIGITS).expect("these bounds are possible")
}
