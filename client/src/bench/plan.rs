//! What load to make.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use state_machine::kv::command::MAX_VALUE_BYTES;

use super::data::KEY_BYTES;

/// Keys and values are made beforehand, and take this much memory at most.
const MAX_DATA_BYTES: u64 = 256 * 1024 * 1024;

/// What load to make, as the command line says it.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Plan {
    /// Clients, each with one request under way at a time, 1–10000
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = within(1..=10_000))]
    pub clients: usize,
    /// Connections that the clients share, 1–1000; never more than clients
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = within(1..=1_000))]
    pub connections: usize,
    /// Size of a value, 0–1040384 bytes
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = within(0..=MAX_VALUE_BYTES as u64))]
    pub value_bytes: usize,
    /// How many keys there are, of 24 bytes each, 1–1000000; each request takes one at random
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = within(1..=1_000_000))]
    pub key_count: usize,
    /// Share of linearizable reads among the requests, 0–1; all keys are written first then
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub read_share: f64,
    /// How long the load runs before it is measured, 0–3600 s
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub warm_up_s: u64,
    /// How long it is measured, 1–86400 s
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub duration_s: u64,
    /// Measure so many requests instead of some time, 1–1000000000
    #[arg(long, value_name = "N", conflicts_with = "duration_s", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub operations: Option<u64>,
}

impl Plan {
    /// Checks what no single setting shows.
    ///
    /// # Errors
    /// What to change, for the user.
    pub fn check(&self) -> Result<(), String> {
        let bytes = (self.key_count as u64) * (KEY_BYTES + self.value_bytes) as u64;
        if bytes <= MAX_DATA_BYTES {
            return Ok(());
        }
        Err(format!(
            "{} keys with values of {} bytes are {} MiB, and at most {} MiB are prepared; lower --key-count or --value-bytes",
            self.key_count,
            self.value_bytes,
            bytes / (1024 * 1024),
            MAX_DATA_BYTES / (1024 * 1024)
        ))
    }

    /// How many connections there are: a client has no use for a second one.
    pub fn connections(&self) -> usize {
        self.connections.min(self.clients)
    }

    pub(super) fn warm_up(&self) -> Duration {
        Duration::from_secs(self.warm_up_s)
    }

    /// How long to measure; none when requests are counted.
    pub(super) fn duration(&self) -> Option<Duration> {
        self.operations.is_none().then(|| Duration::from_secs(self.duration_s))
    }

    pub(super) fn reads(&self) -> bool {
        self.read_share > 0.0
    }
}

fn within(range: RangeInclusive<u64>) -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser;
    RangedU64ValueParser::<u64>::new().range(range).try_map(usize::try_from)
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1".to_owned()),
    }
}
