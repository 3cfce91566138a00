//! Nodes as containers of the compose file, on one network of the engine.

mod faults;
mod healing;
mod judging;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use raft::rpc::wire::Endpoint;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::Counts;
use super::clock;
use super::ends::is_for_an_operator;
use super::engine::{Container, Logs, containers};
use super::failing::{self, FailingSyncs};
use super::fault::{Fault, Kind, Lacks, Need};
use super::network::Network;
use super::node::Program;
use super::site::Site;
use super::small_disk::fill;
use super::tools::{has, run};

const RAFT_PORT: u16 = 6004;
/// Addresses that the engine hands out on a small network: where clients try.
const ADDRESSES: std::ops::Range<u8> = 2..12;
/// Where a container's processes read by how much their clock is wrong, if they were started so.
const CLOCK: &str = "tmp/clock";
/// Between two looks for processes that are down.
const LOOK_FOR_GIVEN_UP: Duration = Duration::from_secs(12);

/// A compose project that is up.
pub struct Containers {
    project: String,
    compose: String,
    small_disk: Option<PathBuf>,
    /// Of the network, without the last number.
    prefix: String,
    nodes: Vec<Container>,
    lacks: Lacks,
    logs: Logs,
    stopped: Vec<Pid>,
    failing: Option<FailingSyncs>,
    /// How many workers there were before there were more.
    workers_before: Option<usize>,
    /// From its begin until all is whole again.
    fault: Option<Fault>,
    /// Whether it was seen to do something.
    has_effect: bool,
    looked_for_given_up: Instant,
    /// By container: how often it had ended by itself when that was looked at last.
    restarts: BTreeMap<String, u64>,
    counts: Counts,
    wrong: Vec<String>,
}

impl Containers {
    /// Takes a project that somebody has brought up, and will bring down.
    ///
    /// # Errors
    /// It is not there.
    pub async fn find(
        project: String,
        compose: String,
        small_disk: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let mut site = Self {
            project,
            compose,
            small_disk,
            prefix: String::new(),
            nodes: Vec::new(),
            lacks: Lacks::new(),
            logs: Logs::default(),
            stopped: Vec::new(),
            failing: None,
            workers_before: None,
            fault: None,
            has_effect: false,
            looked_for_given_up: Instant::now(),
            restarts: BTreeMap::new(),
            counts: Counts::new(),
            wrong: Vec::new(),
        };
        site.look().await?;
        let address = site.nodes.first().map(|node| node.address.clone()).unwrap_or_default();
        let (prefix, _) = address.rsplit_once('.').context("no container with an address")?;
        prefix.clone_into(&mut site.prefix);
        site.try_out().await;
        Ok(site)
    }

    /// What the engine says now; the introducer first.
    async fn look(&mut self) -> anyhow::Result<()> {
        self.nodes = containers(&self.project).await?;
        Ok(())
    }

    async fn try_out(&mut self) {
        if has("nsenter") {
            self.lacks = self.inside(0).lacks().await;
        } else {
            let why = "needs nsenter".to_owned();
            self.lacks =
                [Need::Cut, Need::Loss, Need::Delay].map(|need| (need, why.clone())).into();
        }
        if self.small_disk.is_none() {
            self.lacks.insert(Need::SmallDisk, "needs a small disk under a volume".to_owned());
        }
        self.lacks.extend(failing::obstacle().await.map(|why| (Need::Trace, why)));
        for node in 0..self.nodes.len() {
            // Without them nothing is known: they may have been started only just now.
            let _in_time = self.becomes_complete(node).await;
            let rafts = self.nodes[node].pids(&[Program::Raft]).await;
            if rafts.is_empty() || !rafts.iter().all(|(_, pid)| clock::is_in(*pid)) {
                let why = "needs a library in the containers (Debian: libfaketime)".to_owned();
                self.lacks.insert(Need::Clock, why);
            }
        }
    }

    async fn docker(&self, verb: &str, node: usize) -> anyhow::Result<()> {
        run(&format!("docker {verb} {}", self.nodes[node].id)).await.map(drop)
    }

    fn network(&self) -> String {
        format!("{}_default", self.project)
    }

    fn inside(&self, node: usize) -> Network {
        Network { enter: format!("nsenter --net --target {}", self.nodes[node].pid) }
    }

    /// The file that says by how much the clock of a container is wrong.
    fn clock(&self, node: usize) -> PathBuf {
        Path::new("/proc").join(&self.nodes[node].pid).join("root").join(CLOCK)
    }

    fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }
}

fn filler(disk: &Path) -> PathBuf {
    disk.join("filler")
}

impl Site for Containers {
    fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        ADDRESSES.map(|last| Endpoint::Tcp(format!("{}.{last}:{RAFT_PORT}", self.prefix))).collect()
    }

    fn node_at(&self, endpoint: &Endpoint) -> Option<usize> {
        let endpoint = endpoint.to_string();
        let (host, _) = endpoint.rsplit_once(':')?;
        self.nodes.iter().position(|node| node.address == host)
    }

    fn obstacle(&self, kind: Kind) -> Option<String> {
        self.lacks.get(&kind.need()?).cloned()
    }

    /// An introducer that is wiped would make another cluster.
    fn aim(&self, mut fault: Fault) -> Fault {
        if fault.kind == Kind::Wipe && self.nodes[fault.node].is_introducer() {
            fault.node = self.nodes.len() - 1;
        }
        fault
    }

    async fn begin(&mut self, fault: &Fault) -> anyhow::Result<()> {
        self.look().await?;
        self.read_logs().await?;
        self.fault = Some(fault.clone());
        self.has_effect = false;
        let all: Vec<_> = (0..self.nodes.len()).collect();
        let node = fault.node.min(self.nodes.len() - 1);
        match fault.kind {
            Kind::Wipe => self.wipe(node).await?,
            Kind::KillNode => self.kill_nodes(&[node]).await?,
            Kind::KillAll => self.kill_nodes(&all).await?,
            Kind::KillRafts => self.kill_programs(&all, fault.programs()).await,
            Kind::KillRaft | Kind::KillMachine | Kind::KillMember => {
                self.kill_programs(&[node], fault.programs()).await;
            }
            Kind::PauseNode => {
                self.docker("pause", node).await?;
                self.has_effect = true;
            }
            Kind::PauseRaft | Kind::PauseMachine => {
                self.pause_programs(node, fault.programs()).await;
            }
            Kind::RollingRestart => {
                self.roll().await?;
                self.has_effect = true;
            }
            Kind::Isolate => {
                self.disconnect(node).await?;
                self.has_effect = true;
            }
            Kind::Deaf | Kind::Mute | Kind::PartialPartition | Kind::Split => {
                self.cut(fault).await?;
            }
            Kind::Lossy => self.inside(node).lose().await?,
            Kind::Slow => self.inside(node).slow_down().await?,
            Kind::FullDisk => {
                if let Some(disk) = &self.small_disk {
                    self.has_effect = fill(&filler(disk))?;
                }
            }
            Kind::FailingSync => self.fail_syncs(node).await?,
            Kind::Scale => {
                let before = self.nodes.len();
                let workers = before - 1;
                self.workers_before = Some(workers);
                self.scale(workers + 1).await?;
                self.look().await?;
                self.has_effect = self.nodes.len() > before;
            }
            Kind::ClockJump => self.jump_clock(fault, node).await?,
        }
        Ok(())
    }

    async fn heal(&mut self) -> anyhow::Result<()> {
        if let Some(failing) = self.failing.take() {
            failing.let_go().await?;
        }
        for pid in std::mem::take(&mut self.stopped) {
            // It may have been killed with its container.
            let _gone = kill_process(pid, Signal::CONT);
        }
        if let Some(filler) =
            self.small_disk.as_deref().map(filler).filter(|filler| filler.exists())
        {
            fs::remove_file(filler)?;
        }
        self.look().await?;
        if let Some(workers) = self.workers_before.take() {
            // With a container its log goes.
            self.read_logs().await?;
            self.scale(workers).await?;
            self.look().await?;
        }
        for node in 0..self.nodes.len() {
            self.revive(node).await?;
        }
        self.look().await?;
        self.heal_networks().await?;
        if self.fault.as_ref().is_some_and(|fault| fault.kind == Kind::ClockJump) {
            (0..self.nodes.len()).try_for_each(|node| clock::set_right(&self.clock(node)))?;
        }
        self.start_given_up().await
    }

    /// A disk that was full may have been the end of a process only just now.
    async fn mend(&mut self) -> anyhow::Result<()> {
        let is_due = self.looked_for_given_up.elapsed() > LOOK_FOR_GIVEN_UP;
        if is_due && is_for_an_operator(self.fault.as_ref()) {
            self.start_given_up().await?;
        }
        Ok(())
    }

    async fn review(&mut self) -> anyhow::Result<bool> {
        self.look().await?;
        self.read_logs().await?;
        for node in &self.nodes {
            clock::sweep_container(&node.pid);
        }
        self.fault = None;
        Ok(self.has_effect)
    }

    async fn autopsy(&mut self) -> (Counts, Vec<String>) {
        let looked = self.look().await;
        let read = if looked.is_ok() { self.read_logs().await } else { looked };
        if let Err(why) = read {
            self.wrong.push(format!("the logs cannot be read: {why:#}"));
        }
        (self.counts.clone(), self.wrong.clone())
    }
}
