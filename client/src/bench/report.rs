//! What came of a run, for people and for programs.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::Kind;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// How long it was measured.
    pub measured: Duration,
    /// Writes that succeeded.
    pub puts: Latency,
    /// Reads that succeeded.
    pub gets: Latency,
    /// How many requests failed, by kind, each with the words of its first.
    pub errors: Vec<(Kind, u64, String)>,
    /// Second by second.
    pub seconds: Vec<Second>,
    /// All requests that succeeded, also those before and after the time measured: what the system had to do.
    pub total: u64,
}

/// Requests of one kind that succeeded, and how long they took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// Their mean, in microseconds; 0 when there is none, as the others.
    pub mean_us: f64,
    /// Half were at least as quick.
    pub p50_us: u64,
    /// 90 of 100 were.
    pub p90_us: u64,
    /// 99 of 100 were.
    pub p99_us: u64,
    /// 999 of 1000 were.
    pub p99_9_us: u64,
    /// The slowest.
    pub max_us: u64,
}

/// One second of a run; latencies are of all requests that succeeded in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Writes that succeeded.
    pub puts: u64,
    /// Reads that succeeded.
    pub gets: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Half were at least as quick; 0 when there is none, as the others.
    pub p50_us: u64,
    /// 99 of 100 were.
    pub p99_us: u64,
    /// The slowest.
    pub max_us: u64,
}

impl Latency {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            mean_us: histogram.mean(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p99_9_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }

    fn json(&self, measured: Duration) -> Value {
        json!({
            "count": self.count,
            "per_s": rate(self.count, measured),
            "mean_us": tenths(self.mean_us),
            "p50_us": self.p50_us,
            "p90_us": self.p90_us,
            "p99_us": self.p99_us,
            "p99_9_us": self.p99_9_us,
            "max_us": self.max_us,
        })
    }

    fn line(&self, name: &str, measured: Duration) -> String {
        let ms = [self.p50_us, self.p90_us, self.p99_us, self.p99_9_us, self.max_us].map(in_ms);
        format!(
            "{name:<5} {:>10} {:>10.0} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
            self.count,
            rate(self.count, measured),
            ms[0],
            ms[1],
            ms[2],
            ms[3],
            ms[4]
        )
    }
}

impl Report {
    /// Requests that failed.
    pub fn error_count(&self) -> u64 {
        self.errors.iter().map(|(_, count, _)| count).sum()
    }

    /// Whether anything succeeded.
    pub fn is_empty(&self) -> bool {
        self.puts.count + self.gets.count == 0
    }

    /// For programs. Times are whole microseconds.
    pub fn json(&self) -> Value {
        let errors: serde_json::Map<String, Value> = self
            .errors
            .iter()
            .map(|(kind, count, first)| {
                (kind.name().to_owned(), json!({ "count": count, "first": first }))
            })
            .collect();
        let seconds: Vec<Value> = self.seconds.iter().map(Second::json).collect();
        json!({
            "measured_s": self.measured.as_secs_f64(),
            "operations": self.puts.count + self.gets.count,
            "puts": self.puts.json(self.measured),
            "gets": self.gets.json(self.measured),
            "error_count": self.error_count(),
            "errors": errors,
            "seconds": seconds,
            "total_operations": self.total,
        })
    }

    /// For people; no line end at the end.
    pub fn text(&self) -> String {
        let mut text = String::from(
            "           count      per s    p50 ms    p90 ms    p99 ms  p99.9 ms    max ms\n",
        );
        for (name, latency) in [("put", &self.puts), ("get", &self.gets)] {
            if latency.count > 0 {
                text.push_str(&latency.line(name, self.measured));
            }
        }
        if self.errors.is_empty() {
            text.push_str("errors: none\n");
        }
        for (kind, count, first) in &self.errors {
            writeln!(text, "errors: {count} {}, the first: {first}", kind.name())
                .expect("a String takes everything");
        }
        text.push_str("\nsecond       puts       gets    errors    p50 ms    p99 ms    max ms");
        for (number, second) in (1..).zip(&self.seconds) {
            text.push_str(&second.line(number));
        }
        text
    }
}

impl Second {
    fn json(&self) -> Value {
        json!({
            "puts": self.puts,
            "gets": self.gets,
            "errors": self.errors,
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "max_us": self.max_us,
        })
    }

    fn line(&self, number: u32) -> String {
        format!(
            "\n{number:>6} {:>10} {:>10} {:>9} {:>9} {:>9} {:>9}",
            self.puts,
            self.gets,
            self.errors,
            in_ms(self.p50_us),
            in_ms(self.p99_us),
            in_ms(self.max_us)
        )
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn rate(count: u64, measured: Duration) -> f64 {
    if measured.is_zero() { 0.0 } else { tenths(count as f64 / measured.as_secs_f64()) }
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn in_ms(us: u64) -> String {
    format!("{}.{:03}", us / 1_000, us % 1_000)
}
