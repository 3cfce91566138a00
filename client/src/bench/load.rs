//! The clients, and the clock over them.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::plan::Plan;
use super::report::Report;
use super::tally::{Request, Tally};
use super::{Target, Trouble};

/// Between a failed request and the client's next, so that a system without a leader is not flooded.
const PAUSE: Duration = Duration::from_millis(10);
/// A key that cannot be written so often in a row, while keys are written for reads, ends the run.
const MOST_TRIES: u32 = 100;

/// Makes the planned load with these clients, [`Plan::clients`] of them, and measures it. Ends when the time is over and
/// every client has its last answer; what ends after the time does not count.
///
/// # Errors
/// The keys to read could not be written.
pub async fn run<T: Target>(plan: &Plan, targets: Vec<T>) -> Result<Report, Trouble> {
    let targets = if plan.reads() { fill(plan.key_count, targets).await? } else { targets };
    let began = Instant::now();
    let begin = began + plan.warm_up();
    let end = plan.duration().map(|duration| begin + duration);
    let run = Arc::new(Run {
        key_count: plan.key_count,
        read_share: plan.read_share,
        begin,
        end,
        left: AtomicU64::new(plan.operations.unwrap_or(u64::MAX)),
        tally: Mutex::new(Tally::new(begin)),
    });
    let mut clients = JoinSet::new();
    for (number, target) in (0..).zip(targets) {
        let client = Client { run: Arc::clone(&run), target, random: seeded(number) };
        clients.spawn(client.work());
    }
    while let Some(ended) = clients.join_next().await {
        finished(ended);
    }
    let mut tally = run.tally.lock().unwrap_or_else(PoisonError::into_inner);
    let tally = std::mem::replace(&mut *tally, Tally::new(begin));
    Ok(tally.report(plan.duration()))
}

/// What all clients share.
struct Run {
    key_count: usize,
    read_share: f64,
    /// When measuring begins.
    begin: Instant,
    /// When it ends; none when requests are counted.
    end: Option<Instant>,
    /// Requests that are still to be begun.
    left: AtomicU64,
    tally: Mutex<Tally>,
}

impl Run {
    /// Whether another request is to be begun, and, if so, whether it is one of those to be counted.
    fn next(&self, now: Instant) -> Option<bool> {
        match self.end {
            Some(end) => (now < end).then_some(true),
            None if now < self.begin => Some(false),
            None => {
                let take = |left: u64| left.checked_sub(1);
                let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
                taken.is_ok().then_some(true)
            }
        }
    }

    fn count(&self, request: Request, began: Instant, outcome: Result<(), Trouble>) -> Instant {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: times must not go back.
        let now = Instant::now();
        if now >= self.begin && self.end.is_none_or(|end| now < end) {
            tally.count(request, now, now - began, outcome);
        }
        now
    }
}

struct Client<T> {
    run: Arc<Run>,
    target: T,
    random: Xoshiro256PlusPlus,
}

impl<T: Target> Client<T> {
    async fn work(mut self) {
        let mut now = Instant::now();
        while let Some(counts) = self.run.next(now) {
            let (request, outcome) = self.ask().await;
            let failed = outcome.is_err();
            now = if counts { self.run.count(request, now, outcome) } else { Instant::now() };
            if failed {
                sleep(PAUSE).await;
                now = Instant::now();
            }
        }
    }

    async fn ask(&mut self) -> (Request, Result<(), Trouble>) {
        let key = self.random.random_range(0..self.run.key_count);
        if self.run.read_share > 0.0 && self.random.random_bool(self.run.read_share) {
            (Request::Get, self.target.get(key).await)
        } else {
            (Request::Put, self.target.put(key).await)
        }
    }
}

/// Writes every key once; gives the clients back.
async fn fill<T: Target>(key_count: usize, targets: Vec<T>) -> Result<Vec<T>, Trouble> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for target in targets {
        clients.spawn(fill_some(target, key_count, Arc::clone(&next)));
    }
    let mut targets = Vec::new();
    while let Some(ended) = clients.join_next().await {
        targets.push(finished(ended)?);
    }
    Ok(targets)
}

async fn fill_some<T: Target>(
    mut target: T,
    key_count: usize,
    next: Arc<AtomicUsize>,
) -> Result<T, Trouble> {
    loop {
        let key = next.fetch_add(1, Ordering::Relaxed);
        if key >= key_count {
            return Ok(target);
        }
        let mut tries = 1;
        while let Err(trouble) = target.put(key).await {
            if tries == MOST_TRIES {
                return Err(trouble);
            }
            tries += 1;
            sleep(PAUSE).await;
        }
    }
}

/// No client is ever cancelled, so all that can go wrong with its task is a panic.
fn finished<T>(ended: Result<T, tokio::task::JoinError>) -> T {
    ended.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

fn seeded(client: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(client)
}
