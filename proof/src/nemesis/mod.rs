//! Faults on real processes and containers, under clients that note down all that they see.
//!
//! | module | what it knows |
//! |---|---|
//! | here | one run: load, faults in turn, healing, the last reads, the verdict |
//! | `fault` | the kinds of faults, and which come when, by seed |
//! | `site` | what faults are done to, as a trait |
//! | `processes`, `node` | nodes as processes of this machine |
//! | `places` | where they are: each in a network of its own where that can be had |
//! | `containers`, `engine` | nodes as containers of the compose file; what the engine says of them |
//! | `ends` | which ends of processes belong to a fault |
//! | `network` | packets dropped, lost and slowed inside one node's network |
//! | `failing`, `small_disk`, `clock` | syncs that fail, a disk that is full, a clock that jumps |
//! | `workload` | the clients, and what they note down |
//! | `watch` | what the nodes say of themselves meanwhile |
//! | `report` | the numbers, and what makes a run too thin to count |
//! | `tools` | other programs |

mod clock;
mod containers;
mod ends;
mod engine;
mod failing;
mod fault;
mod network;
mod node;
mod places;
mod processes;
mod report;
mod site;
mod small_disk;
mod tools;
mod watch;
mod workload;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rand::rngs::ChaCha12Rng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

pub use containers::Containers;
pub use fault::Kind;
pub use places::{in_namespaces, obstacle_to_networks};
pub use processes::Processes;
pub use report::Report;
pub use site::Site;

use crate::history::{History, Limit, check, check_appends};
use fault::{Deck, Fault, Scene};
use watch::Watch;
use workload::Workload;

/// Longest time from the end of a fault until every node is a voter again that has its machine and its member. Of a machine that is busy with others.
const SETTLE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(100);

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long faults are done.
    pub length: Duration,
    /// Of the schedule, and of what clients want.
    pub seed: u64,
    /// Which faults; empty = all that are possible here.
    pub kinds: Vec<Kind>,
    /// Each with one operation under way.
    pub clients: u64,
}

/// One run, on a site whose nodes are up.
///
/// # Errors
/// The run could not even begin. What is wrong with the cluster, or with a fault, stands in the report, with all that the clients saw.
pub async fn run<S: Site>(site: &mut S, plan: &Plan) -> anyhow::Result<(Report, History)> {
    let mut report = Report::new(plan);
    let watch = Watch::start(site.endpoints());
    let deck = deal(site, plan, &mut report)?;
    settle(site, &watch).await.context("the cluster does not form")?;
    let workload = Workload::start(plan, &site.endpoints());
    watch.begin_counting();
    let nemesis =
        Nemesis { site: &mut *site, plan, watch: &watch, workload: &workload, report: &mut report };
    if let Err(why) = nemesis.rage(deck).await {
        report.wrong(format!("{why:#}"));
    }
    let ended = workload.finish().await;
    ended.wrong.into_iter().for_each(|what| report.wrong(what));
    if let Some(leaders) = watch.second_leader() {
        report.wrong(leaders);
    }
    report.seen(watch.counts(), site.autopsy().await);
    let verdict = check(&ended.history, Limit::default());
    report.judge(&ended.history, &verdict, check_appends(&ended.history, &ended.finals));
    Ok((report, ended.history))
}

/// One run under way.
struct Nemesis<'a, S> {
    site: &'a mut S,
    plan: &'a Plan,
    watch: &'a Arc<Watch>,
    workload: &'a Workload,
    report: &'a mut Report,
}

impl<S: Site> Nemesis<'_, S> {
    /// One fault after another.
    async fn rage(mut self, mut deck: Deck) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut chance = ChaCha12Rng::seed_from_u64(self.plan.seed);
        while !self.is_over(began.elapsed()).await {
            let leader = self.watch.leader().and_then(|endpoint| self.site.node_at(&endpoint));
            let (nodes, is_compacted) = (self.site.nodes(), self.watch.is_compacted());
            let fault = deck.next(&mut chance, Scene { nodes, leader, is_compacted });
            let fault = self.site.aim(fault);
            self.report.note(began.elapsed(), &fault.to_string());
            self.attack(&fault, &mut chance).await?;
            let healed = Instant::now();
            settle(self.site, self.watch).await.with_context(|| format!("after {fault}"))?;
            self.report.settled(healed.elapsed());
            let has_effect = self.site.review().await?;
            self.report.count(&fault, has_effect);
            sleep(Duration::from_millis(chance.random_range(200..1000))).await;
        }
        Ok(())
    }

    /// A slow machine gets as much time again to show something.
    async fn is_over(&mut self, elapsed: Duration) -> bool {
        if elapsed < self.plan.length {
            return false;
        }
        let (mut counts, wrong) = self.site.autopsy().await;
        counts.extend(self.watch.counts());
        let is_enough = self.report.is_enough(self.workload.answered(), &counts);
        is_enough || !wrong.is_empty() || elapsed >= self.plan.length * 2
    }

    /// One fault from its begin to its end, and whatever else has to be mended.
    async fn attack(&mut self, fault: &Fault, chance: &mut ChaCha12Rng) -> anyhow::Result<()> {
        self.site.begin(fault).await.with_context(|| format!("cannot begin: {fault}"))?;
        sleep(Duration::from_millis(chance.random_range(1500..4000))).await;
        self.site.heal().await.with_context(|| format!("cannot heal: {fault}"))
    }
}

fn deal<S: Site>(site: &S, plan: &Plan, report: &mut Report) -> anyhow::Result<Deck> {
    let wanted = if plan.kinds.is_empty() { Kind::ALL.to_vec() } else { plan.kinds.clone() };
    let mut possible = Vec::new();
    for kind in wanted {
        match site.obstacle(kind) {
            None => possible.push(kind),
            Some(why) => report.skipped(kind, &why),
        }
    }
    anyhow::ensure!(!possible.is_empty(), "none of the wanted faults is possible here");
    report.dealt(&possible);
    Ok(Deck::new(possible))
}

/// Waits until the cluster is whole.
async fn settle<S: Site>(site: &mut S, watch: &Arc<Watch>) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETTLE;
    let since = watch.round();
    loop {
        site.mend().await?;
        // Two rounds later all that is known was said after the healing.
        if watch.round() >= since + 2 && watch.missing(site.nodes()).is_none() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let missing = watch.missing(site.nodes()).unwrap_or_default();
            anyhow::bail!("not whole after {} s: {missing}", SETTLE.as_secs());
        }
        sleep(LOOK).await;
    }
}

/// How often each thing happened.
type Counts = BTreeMap<String, u64>;
