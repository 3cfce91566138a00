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
    /// Requests that succeeded, at whatever time.
    total: u64,
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
            total: 0,
        }
    }

    /// Notes requests that succeeded, also those that are not measured.
    pub(super) fn note(&mut self, succeeded: u64) {
        self.total += succeeded;
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
        // Seconds without any request at the end are seconds, too.
        let whole = usize::try_from(measured.as_secs()).unwrap_or_default();
        self.seconds.resize(whole.max(self.seconds.len()), Second::default());
        Report {
            measured,
            puts: Latency::of(&self.puts),
            gets: Latency::of(&self.gets),
            errors: self.errors.into_iter().map(|(kind, (n, first))| (kind, n, first)).collect(),
            seconds: self.seconds,
            total: self.total,
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

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn failure(kind: Kind, message: &str) -> Result<(), Trouble> {
        Err(Trouble::new(kind, &message))
    }

    #[test]
    fn each_request_counts_in_its_second_and_once_in_all() {
        let begin = Instant::now();
        let mut tally = Tally::new(begin);
        for (request, at_ms, latency_ms, outcome) in [
            (Request::Put, 10, 4, Ok(())),
            (Request::Get, 999, 2, Ok(())),
            (Request::Put, 3_000, 900, Ok(())),
            (Request::Get, 3_500, 1, failure(Kind::Busy, "first")),
            (Request::Put, 3_600, 1, failure(Kind::Busy, "second")),
        ] {
            tally.count(request, begin + MS * at_ms, MS * latency_ms, outcome);
        }
        let report = tally.report(Some(Duration::from_secs(6)));
        assert_eq!((report.puts.count, report.gets.count), (2, 1));
        assert!((report.puts.max_us).abs_diff(900_000) < 1_000, "{:?}", report.puts);
        assert_eq!(report.errors, [(Kind::Busy, 2, "first".to_owned())]);
        let numbers = |second: &Second| (second.puts, second.gets, second.errors);
        let seconds: Vec<_> = report.seconds.iter().map(numbers).collect();
        assert_eq!(seconds, [(1, 1, 0), (0, 0, 0), (0, 0, 0), (1, 0, 2), (0, 0, 0), (0, 0, 0)]);
        assert_eq!(report.seconds[1], Second::default(), "a second without requests is all zero");
        let max_us = |second: usize| report.seconds[second].max_us / 1_000;
        assert_eq!((max_us(0), max_us(3)), (4, 900), "a second knows only its own");
    }

    #[test]
    fn the_longest_timeout_is_still_counted() {
        let begin = Instant::now();
        let mut tally = Tally::new(begin);
        tally.count(Request::Put, begin + MS, Duration::from_secs(100_000), Ok(()));
        let report = tally.report(None);
        assert!(report.puts.max_us >= MAX_LATENCY_US);
        assert_eq!(report.measured, MS);
    }
}
