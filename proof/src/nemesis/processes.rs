//! Nodes as processes of this machine. For root, where that is allowed, each in a network of its own on one bridge; else all on loopback.

mod faults;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use raft::rpc::wire::Endpoint;
use rustix::process::Signal;

use super::Counts;
use super::clock;
use super::ends::{End, WRITE_FAILED, is_explained};
use super::failing::{self, FailingSyncs};
use super::fault::{Fault, Kind, Lacks, Need};
use super::network::Network;
use super::node::{Node, Place, Program};
use super::places::{make_bridge, make_network, places};
use super::site::Site;
use super::small_disk::fill;
use super::tools::run;

const RAFT_PORT: u16 = 4;
const INTRODUCER_PORT: u16 = 1;
/// Of the node whose disk can be full: a few segments of the log.
const SMALL_DISK: &str = "160m";

/// A cluster of processes.
pub struct Processes {
    nodes: Vec<Node>,
    networks: Vec<Network>,
    /// The node on the small disk.
    small: Option<usize>,
    lacks: Lacks,
    failing: Option<FailingSyncs>,
    /// From its begin until all is whole again.
    fault: Option<Fault>,
    /// Whether it was seen to do something.
    has_effect: bool,
    counts: Counts,
    wrong: Vec<String>,
}

impl Processes {
    /// Starts the nodes with these binaries, all that they write below `root`, whose path is short. Unless there is an obstacle to networks
    /// of their own, the caller is in network, mount and process namespaces, and root there. With clocks, a library is loaded into all
    /// processes where that can be had; without, they are as they are elsewhere.
    ///
    /// # Errors
    /// A node cannot be started.
    pub async fn start(
        nodes: usize,
        binaries: &Path,
        root: &Path,
        no_networks: Option<String>,
        with_clocks: bool,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!((2..=20).contains(&nodes), "between 2 and 20 nodes");
        let mut site = Self {
            nodes: Vec::new(),
            networks: Vec::new(),
            small: None,
            lacks: Lacks::new(),
            failing: None,
            fault: None,
            has_effect: false,
            counts: Counts::new(),
            wrong: Vec::new(),
        };
        if no_networks.is_none() {
            make_bridge().await?;
        }
        site.try_clock_and_trace(root, with_clocks).await;
        let places = places(nodes, root, no_networks.is_none())?;
        let seeds: Vec<_> = places
            .iter()
            .map(|place| format!("{}:{}", place.address, place.port_base + INTRODUCER_PORT))
            .collect();
        for (number, mut place) in places.into_iter().enumerate() {
            let others = seeds.iter().enumerate().filter(|(other, _)| *other != number);
            place.seeds = others.map(|(_, seed)| seed.clone()).collect();
            fs::create_dir_all(place.dir.join("data"))?;
            if let Some(namespace) = &place.namespace {
                site.networks.push(make_network(namespace, &place.address).await?);
            }
            place.clock = clock::library().filter(|_| !site.lacks.contains_key(&Need::Clock));
            let node = Node::new(place, binaries, number == 0);
            clock::set_right(&node.clock())?;
            site.nodes.push(node);
        }
        site.try_networks(no_networks).await;
        site.mend().await?;
        Ok(site)
    }

    async fn try_clock_and_trace(&mut self, root: &Path, with_clocks: bool) {
        let clock = if with_clocks {
            clock::obstacle(&root.join("clock")).await
        } else {
            Some("not wanted".to_owned())
        };
        let trace = failing::obstacle().await;
        let scale = Some("a wiped disk makes one node more and one less".to_owned());
        let whys = [(Need::Clock, clock), (Need::Trace, trace), (Need::Scale, scale)];
        self.lacks.extend(whys.into_iter().filter_map(|(need, why)| Some((need, why?))));
    }

    async fn try_networks(&mut self, no_networks: Option<String>) {
        if let Some(why) = no_networks {
            for need in [Need::Cut, Need::Loss, Need::Delay, Need::SmallDisk] {
                self.lacks.insert(need, why.clone());
            }
            return;
        }
        self.lacks.extend(self.networks[0].lacks().await);
        let last = self.nodes.len() - 1;
        let data = self.nodes[last].data();
        match run(&format!("mount -t tmpfs -o size={SMALL_DISK} tmpfs {}", data.display())).await {
            Ok(_) => self.small = Some(last),
            Err(why) => drop(self.lacks.insert(Need::SmallDisk, format!("{why:#}"))),
        }
    }

    /// Counts what the networks did meanwhile.
    async fn heal_networks(&mut self) -> anyhow::Result<()> {
        let Some(need) = self.fault.as_ref().and_then(|fault| fault.kind.need()) else {
            return Ok(());
        };
        let (slowed, cut) = (need == Need::Delay, [Need::Cut, Need::Loss].contains(&need));
        let mut touched = 0;
        for (number, network) in self.networks.iter().enumerate() {
            let slowed = slowed && self.fault.as_ref().is_some_and(|fault| fault.node == number);
            touched += network.heal(slowed, cut).await?;
        }
        if slowed || cut {
            self.has_effect = touched > 0;
            let what = if cut { "packets dropped" } else { "packets held back by a slow link" };
            *self.counts.entry(what.to_owned()).or_default() += touched;
        }
        Ok(())
    }

    fn filler(&self) -> Option<PathBuf> {
        Some(self.nodes[self.small?].data().join("filler"))
    }

    fn start_missing(&mut self, node: usize) -> anyhow::Result<()> {
        for (program, status) in self.nodes[node].start_missing()? {
            self.judge_end(node, program, status);
        }
        Ok(())
    }

    /// Of a process that nobody ended.
    fn judge_end(&mut self, node: usize, program: Program, status: ExitStatus) {
        let name = program.name();
        let (code, on_small_disk) = (status.code(), self.small == Some(node));
        let end = End { node, program, code, on_small_disk };
        if is_explained(end, self.fault.as_ref()) {
            self.count(&format!("{name} ended of its fault: {status}"));
            self.has_effect |= code == Some(WRITE_FAILED);
        } else {
            self.wrong.push(format!("{name} of node {node} ended: {status}"));
        }
    }

    fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }
}

impl Site for Processes {
    fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let places = self.nodes.iter().map(|node| &node.place);
        let raft = |place: &Place| {
            Endpoint::Tcp(format!("{}:{}", place.address, place.port_base + RAFT_PORT))
        };
        places.map(raft).collect()
    }

    fn node_at(&self, endpoint: &Endpoint) -> Option<usize> {
        self.endpoints().iter().position(|other| other == endpoint)
    }

    fn obstacle(&self, kind: Kind) -> Option<String> {
        self.lacks.get(&kind.need()?).cloned()
    }

    fn aim(&self, fault: Fault) -> Fault {
        fault
    }

    async fn begin(&mut self, fault: &Fault) -> anyhow::Result<()> {
        self.mend().await?;
        self.fault = Some(fault.clone());
        self.has_effect = false;
        match fault.kind {
            Kind::Wipe => self.wipe(fault.node).await,
            Kind::KillNode | Kind::KillRaft | Kind::KillMachine | Kind::KillMember => {
                self.kill(fault.node, fault.programs()).await
            }
            Kind::KillRafts | Kind::KillAll => self.kill_everywhere(fault.programs()).await,
            Kind::PauseNode | Kind::PauseRaft | Kind::PauseMachine => {
                self.pause(fault);
                Ok(())
            }
            Kind::RollingRestart => self.roll().await,
            Kind::Isolate | Kind::Deaf | Kind::Mute | Kind::PartialPartition | Kind::Split => {
                self.cut(fault).await
            }
            Kind::Lossy => self.networks[fault.node].lose().await,
            Kind::Slow => self.networks[fault.node].slow_down().await,
            Kind::FullDisk => {
                if let Some(filler) = self.filler() {
                    self.has_effect = fill(&filler)?;
                }
                Ok(())
            }
            Kind::FailingSync => self.fail_syncs(fault.node).await,
            Kind::ClockJump => self.jump_clock(fault).await,
            Kind::Scale => anyhow::bail!("not possible here"),
        }
    }

    async fn heal(&mut self) -> anyhow::Result<()> {
        if let Some(failing) = self.failing.take() {
            failing.let_go().await?;
        }
        self.heal_networks().await?;
        if let Some(filler) = self.filler().filter(|filler| filler.exists()) {
            fs::remove_file(filler)?;
        }
        for node in &self.nodes {
            node.signal_each(&Program::ALL, Signal::CONT);
            clock::set_right(&node.clock())?;
        }
        self.mend().await
    }

    async fn mend(&mut self) -> anyhow::Result<()> {
        (0..self.nodes.len()).try_for_each(|node| self.start_missing(node))
    }

    async fn review(&mut self) -> anyhow::Result<bool> {
        self.mend().await?;
        self.fault = None;
        Ok(self.has_effect)
    }

    async fn autopsy(&mut self) -> (Counts, Vec<String>) {
        let mut counts = self.counts.clone();
        let mut wrong = self.wrong.clone();
        for node in &self.nodes {
            for program in Program::ALL {
                let log = fs::read_to_string(node.log(program)).unwrap_or_default();
                let of = |text: &str| log.matches(text).count() as u64;
                *counts.entry("snapshot installs".to_owned()).or_default() +=
                    of("received a snapshot");
                *counts.entry("snapshots taken".to_owned()).or_default() += of("took a snapshot");
                if let Some(panic) = log.lines().find(|line| line.contains("panicked at")) {
                    wrong.push(format!("{} of {}: {panic}", program.name(), node.place.name));
                }
            }
        }
        (counts, wrong)
    }
}
