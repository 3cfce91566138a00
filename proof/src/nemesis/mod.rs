//! Faults on real processes and containers, under clients that note down all that they see.
//!
//! | module | what it knows |
//! |---|---|
//! | here | one run: load, faults in turn, healing, the last reads, the verdict |
//! | `fault` | the kinds of faults, and which come when, by seed |
//! | `site` | what faults are done to, as a trait |
//! | `processes`, `node` | nodes as processes of this machine, each in a network of its own where that can be had |
//! | `containers` | nodes as containers of the compose file |
//! | `network` | packets dropped, lost and slowed inside one node's network |
//! | `workload` | the clients, and what they note down |
//! | `watch` | what the nodes say of themselves meanwhile |
//! | `report` | the numbers, and what makes a run too thin to count |
//! | `tools` | other programs |

mod containers;
mod fault;
mod network;
mod node;
mod processes;
mod report;
mod site;
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
pub use processes::Processes;
pub use report::Report;
pub use site::Site;
pub use tools::has;

use crate::history::{History, Limit, check, check_appends};
use fault::{Deck, Fault};
use watch::Watch;
use workload::Workload;

/// Longest time from the end of a fault until every node is a voter again that has its machine and its member.
const SETTLE: Duration = Duration::from_secs(45);
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
/// The run itself could not be carried out. What is wrong with the cluster stands in the report.
pub async fn run<S: Site>(site: &mut S, plan: &Plan) -> anyhow::Result<(Report, History)> {
    let mut report = Report::new(plan);
    let watch = Watch::start(site.endpoints());
    settle(site, &watch).await.context("the cluster does not form")?;
    let workload = Workload::start(plan, &site.endpoints());
    let began = Instant::now();
    let mut chance = ChaCha12Rng::seed_from_u64(plan.seed);
    let mut deck = deal(site, plan, &mut report)?;
    while began.elapsed() < plan.length {
        let fault = {
            let leader = watch.leader().and_then(|endpoint| site.node_at(&endpoint));
            deck.next(&mut chance, site.nodes(), leader)
        };
        report.note(began.elapsed(), &fault.to_string());
        attack(site, &fault, &mut chance).await?;
        report.count(&fault);
        let healed = Instant::now();
        if let Err(why) = settle(site, &watch).await {
            report.wrong(format!("after {fault}: {why:#}"));
            break;
        }
        report.settled(healed.elapsed());
        sleep(Duration::from_millis(chance.random_range(200..1000))).await;
    }
    let (history, finals) = workload.finish().await?;
    if let Some(leaders) = watch.second_leader() {
        report.wrong(leaders);
    }
    report.seen(watch.stop(), site.autopsy().await);
    report.judge(&history, &check(&history, Limit::default()), check_appends(&history, &finals));
    Ok((report, history))
}

/// One fault from its begin to its end, and whatever else has to be mended.
async fn attack<S: Site>(
    site: &mut S,
    fault: &Fault,
    chance: &mut ChaCha12Rng,
) -> anyhow::Result<()> {
    site.begin(fault).await.with_context(|| format!("cannot begin: {fault}"))?;
    sleep(Duration::from_millis(chance.random_range(1500..4000))).await;
    site.heal().await.with_context(|| format!("cannot heal: {fault}"))
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
    Ok(Deck::new(possible))
}

/// Waits until the cluster is whole.
async fn settle<S: Site>(site: &mut S, watch: &Arc<Watch>) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETTLE;
    let since = watch.round();
    loop {
        site.mend().await?;
        // Two rounds later, all that is known was said after the healing.
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
