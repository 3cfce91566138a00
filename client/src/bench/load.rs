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
    let filled = if plan.reads() { plan.key_count } else { 0 };
    let targets = if plan.reads() { fill(filled, targets).await? } else { targets };
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
    let mut tally = std::mem::replace(&mut *tally, Tally::new(begin));
    tally.note(filled as u64);
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

    /// A request ended. Returns when.
    fn ended(
        &self,
        request: Request,
        began: Instant,
        outcome: Result<(), Trouble>,
        counts: bool,
    ) -> Instant {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: times must not go back.
        let now = Instant::now();
        tally.note(u64::from(outcome.is_ok()));
        if counts && now >= self.begin && self.end.is_none_or(|end| now < end) {
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
            now = self.run.ended(request, now, outcome, counts);
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Kind;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        plan: Plan,
    }

    fn plan(words: &[&str]) -> Plan {
        Line::parse_from([&["test"], words].concat()).plan
    }

    /// Has keys only once they are written, and fails each tenth request.
    struct Fake {
        asked: Arc<AtomicU64>,
        written: Arc<Mutex<std::collections::BTreeSet<usize>>>,
    }

    impl Fake {
        async fn answer(&self) -> Result<(), Trouble> {
            tokio::task::yield_now().await;
            match self.asked.fetch_add(1, Ordering::Relaxed) % 10 {
                9 => Err(Trouble::new(Kind::Busy, &"the tenth")),
                _ => Ok(()),
            }
        }
    }

    impl Target for Fake {
        async fn put(&mut self, key: usize) -> Result<(), Trouble> {
            self.answer().await?;
            self.written.lock().unwrap().insert(key);
            Ok(())
        }

        async fn get(&mut self, key: usize) -> Result<(), Trouble> {
            assert!(self.written.lock().unwrap().contains(&key), "read before it was written");
            self.answer().await
        }
    }

    #[tokio::test]
    async fn so_many_requests_are_made_as_were_asked_for() {
        for (words, reads) in [(&["--read-share=0.5"][..], true), (&[], false)] {
            let counted = ["--warm-up-s=0", "--operations=500", "--clients=7", "--key-count=30"];
            let plan = plan(&[&counted[..], words].concat());
            let (asked, written) = (Arc::default(), Arc::default());
            let fake = |_| Fake { asked: Arc::clone(&asked), written: Arc::clone(&written) };
            let report = run(&plan, (0..plan.clients).map(fake).collect()).await.unwrap();
            let succeeded = report.puts.count + report.gets.count;
            assert_eq!(succeeded + report.error_count(), 500);
            assert_eq!(report.gets.count > 0, reads);
            assert!(report.error_count().abs_diff(50) <= 5, "{report:?}");
            assert_eq!(report.total, succeeded + if reads { 30 } else { 0 });
        }
    }

    #[tokio::test]
    async fn reads_of_keys_that_cannot_be_written_are_not_measured() {
        struct Deaf;
        impl Target for Deaf {
            async fn put(&mut self, _key: usize) -> Result<(), Trouble> {
                Err(Trouble::new(Kind::Refused, &"never"))
            }

            async fn get(&mut self, _key: usize) -> Result<(), Trouble> {
                panic!("nothing to read");
            }
        }
        let plan = plan(&["--read-share=1", "--clients=1"]);
        let trouble = run(&plan, vec![Deaf]).await.unwrap_err();
        assert_eq!(trouble, Trouble::new(Kind::Refused, &"never"));
    }
}
