//! Where to join: host names and ports, resolved anew for each attempt.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::rpc::MAX_SEEDS;
use crate::swim::member::MAX_ADDRESS_BYTES;
use crate::wire::net::lookup_host;

/// How long a name may take to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// `host:port` of a member or introducer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seed(String);

/// Why a text is not a [`Seed`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is not usable: {reason}; write host:port, such as 10.0.0.5:6001")]
pub struct SeedError {
    /// The text, cut to a printable length.
    pub shown: String,
    /// What is wrong.
    pub reason: &'static str,
}

impl FromStr for Seed {
    type Err = SeedError;

    fn from_str(text: &str) -> Result<Self, SeedError> {
        let text = text.trim();
        let refuse = |reason| {
            let shown = text.chars().take(64).collect();
            Err(SeedError { shown, reason })
        };
        let Some((host, port)) = text.rsplit_once(':') else { return refuse("no port") };
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if text.len() > MAX_ADDRESS_BYTES {
            refuse("too long")
        } else if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            refuse("no host name")
        } else if host.contains(':') && !bracketed {
            refuse("an IPv6 address goes in brackets")
        } else if port.parse::<u16>().unwrap_or(0) == 0 {
            refuse("no port between 1 and 65535")
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What became of one attempt.
#[derive(Debug)]
pub struct Resolved {
    seed: Seed,
    outcome: Result<Vec<SocketAddr>, String>,
}

/// Resolves seeds beside the daemon's loop, which never waits for a name server.
#[derive(Debug)]
pub struct Resolver {
    seeds: Vec<Attempts>,
    results: mpsc::Receiver<Resolved>,
    sender: mpsc::Sender<Resolved>,
}

#[derive(Debug)]
struct Attempts {
    seed: Seed,
    under_way: bool,
    failing: bool,
}

/// More seeds than [`MAX_SEEDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySeeds {
    /// How many there would be.
    pub wanted: usize,
}

impl Resolver {
    /// For these seeds.
    pub fn new(seeds: Vec<Seed>) -> Self {
        let (sender, results) = mpsc::channel(MAX_SEEDS);
        let fresh = |seed| Attempts { seed, under_way: false, failing: false };
        Self { seeds: seeds.into_iter().map(fresh).collect(), results, sender }
    }

    /// Adds those that are new.
    ///
    /// # Errors
    /// When there would be more than [`MAX_SEEDS`]; nothing is added then.
    pub fn add(&mut self, seeds: Vec<Seed>) -> Result<(), TooManySeeds> {
        let mut new: Vec<Seed> = seeds
            .into_iter()
            .filter(|seed| self.seeds.iter().all(|known| known.seed != *seed))
            .collect();
        new.sort_unstable();
        new.dedup();
        let wanted = self.seeds.len() + new.len();
        if wanted > MAX_SEEDS {
            return Err(TooManySeeds { wanted });
        }
        let fresh = |seed| Attempts { seed, under_way: false, failing: false };
        self.seeds.extend(new.into_iter().map(fresh));
        Ok(())
    }

    /// Starts an attempt for each seed that has none under way.
    pub fn try_all(&mut self) {
        for attempts in self.seeds.iter_mut().filter(|attempts| !attempts.under_way) {
            attempts.under_way = true;
            let (seed, sender) = (attempts.seed.clone(), self.sender.clone());
            tokio::spawn(async move {
                let outcome = resolve(&seed).await;
                // The receiver is gone only when the process ends.
                let _ended = sender.send(Resolved { seed, outcome }).await;
            });
        }
    }

    /// Waits for the next result.
    pub async fn next(&mut self) -> Resolved {
        self.results.recv().await.expect("we hold a sender ourselves")
    }

    /// Takes a result in: the addresses to try, at most a few. Says so when a seed begins or ceases to fail.
    pub fn finish(&mut self, resolved: Resolved) -> Vec<SocketAddr> {
        let Resolved { seed, outcome } = resolved;
        let attempts = self.seeds.iter_mut().find(|attempts| attempts.seed == seed);
        let was_failing = attempts.is_some_and(|attempts| {
            attempts.under_way = false;
            std::mem::replace(&mut attempts.failing, outcome.is_err())
        });
        match outcome {
            Ok(addresses) => {
                if was_failing {
                    info!(%seed, "seed resolves again");
                }
                addresses
            }
            Err(reason) => {
                if !was_failing {
                    warn!(%seed, reason, "seed does not resolve; trying on");
                }
                Vec::new()
            }
        }
    }
}

async fn resolve(seed: &Seed) -> Result<Vec<SocketAddr>, String> {
    match timeout(RESOLVE_TIMEOUT, lookup_host(&seed.0)).await {
        Ok(Ok(addresses)) => Ok(addresses.take(MAX_ADDRESSES).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {} s", RESOLVE_TIMEOUT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_checked() {
        for (text, fine) in [
            ("localhost:6001", true),
            (" 10.0.0.1:65535 ", true),
            ("[::1]:1", true),
            ("::1:1", false),
            ("host", false),
            (":1", false),
            ("host:0", false),
            ("host:65536", false),
            ("ho st:1", false),
            ("host:", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<Seed>().is_ok(), fine, "{text:?}");
        }
        let long = format!("{}:1", "h".repeat(MAX_ADDRESS_BYTES));
        assert!(long.parse::<Seed>().unwrap_err().shown.len() <= 64);
    }

    fn seeds(ports: std::ops::Range<usize>) -> Vec<Seed> {
        ports.map(|port| format!("127.0.0.1:{port}").parse().unwrap()).collect()
    }

    #[test]
    fn seeds_are_added_once_and_bounded() {
        let mut resolver = Resolver::new(seeds(1..3));
        assert_eq!(resolver.add(seeds(1..MAX_SEEDS + 1)), Ok(()));
        let one_too_many = resolver.add(seeds(MAX_SEEDS + 1..MAX_SEEDS + 2));
        assert_eq!(one_too_many, Err(TooManySeeds { wanted: MAX_SEEDS + 1 }));
    }

    #[tokio::test]
    async fn every_seed_is_resolved_and_a_failure_is_no_end() {
        let seed = "name.invalid:1".parse().unwrap();
        let mut resolver = Resolver::new([vec![seed], seeds(7..8)].concat());
        for _ in 0..2 {
            resolver.try_all();
            resolver.try_all();
            let mut addresses = Vec::new();
            for _ in 0..2 {
                let resolved = resolver.next().await;
                addresses.extend(resolver.finish(resolved));
            }
            assert_eq!(addresses, [SocketAddr::from(([127, 0, 0, 1], 7))]);
        }
    }
}
