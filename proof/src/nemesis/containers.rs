//! Nodes as containers of the compose file, on one network of the engine.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use raft::rpc::wire::Endpoint;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::Counts;
use super::fault::{Fault, Kind};
use super::network::Network;
use super::node::Program;
use super::site::Site;
use super::tools::{has, run};

const RAFT_PORT: u16 = 6004;
/// Addresses that the engine hands out on a small network: where clients try.
const ADDRESSES: std::ops::Range<u8> = 2..12;
const FILL_BYTES: usize = 1 << 20;
/// State, process id, address and service.
const FORMAT: &str = "{{.State.Status}}|{{.State.Pid}}|{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}|\
                      {{index .Config.Labels \"com.docker.compose.service\"}}";
const INTRODUCER: &str = "introducer";

/// A compose project that is up.
pub struct Containers {
    project: String,
    compose: String,
    small_disk: Option<PathBuf>,
    /// Of the network, without the last number.
    prefix: String,
    nodes: Vec<Container>,
    stopped: Vec<Pid>,
    stracing: Vec<Child>,
    scaled: bool,
    counts: Counts,
    wrong: Vec<String>,
}

/// As the engine described it last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Container {
    id: String,
    service: String,
    state: String,
    address: String,
    /// Of its first process, on this machine.
    pid: String,
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
            stopped: Vec::new(),
            stracing: Vec::new(),
            scaled: false,
            counts: Counts::new(),
            wrong: Vec::new(),
        };
        site.look().await?;
        let address = site.nodes.first().map(|node| node.address.clone()).unwrap_or_default();
        let (prefix, _) = address.rsplit_once('.').context("no container with an address")?;
        prefix.clone_into(&mut site.prefix);
        Ok(site)
    }

    /// What the engine says now; the introducer first.
    async fn look(&mut self) -> anyhow::Result<()> {
        let label = format!("label=com.docker.compose.project={}", self.project);
        let ids = run(&format!("docker ps --all --quiet --no-trunc --filter {label}")).await?;
        let mut nodes = Vec::new();
        for id in ids.split_whitespace() {
            let said = inspect(id, FORMAT).await?;
            let mut parts = said.trim().split('|').map(str::to_owned);
            let mut next = || parts.next().unwrap_or_default();
            let (state, pid, address, service) = (next(), next(), next(), next());
            nodes.push(Container { id: id.to_owned(), service, state, address, pid });
        }
        nodes.sort_by_key(|node| (node.service != INTRODUCER, node.id.clone()));
        self.nodes = nodes;
        Ok(())
    }

    async fn docker(&self, verb: &str, node: usize) -> anyhow::Result<()> {
        run(&format!("docker {verb} {}", self.nodes[node].id)).await.map(drop)
    }

    /// Process ids, on this machine, of programs in a container.
    async fn pids(&self, node: usize, programs: &[Program]) -> Vec<(Program, Pid)> {
        let top = run(&format!("docker top {} -eo pid,comm", self.nodes[node].id)).await;
        let top = top.unwrap_or_default();
        let processes = top.lines().filter_map(|line| {
            let (pid, name) = line.trim().split_once(' ')?;
            let program = programs.iter().find(|program| program.name() == name.trim())?;
            Some((*program, Pid::from_raw(pid.parse().ok()?)?))
        });
        processes.collect()
    }

    async fn kill_programs(&mut self, nodes: &[usize], programs: &[Program]) {
        let mut targets = Vec::new();
        for node in nodes {
            targets.extend(self.pids(*node, programs).await);
        }
        for (program, pid) in targets {
            if kill_process(pid, Signal::KILL).is_ok() {
                self.count(&format!("kill -9 of {}", program.name()));
            }
        }
    }

    async fn kill_nodes(&mut self, nodes: &[usize]) -> anyhow::Result<()> {
        let ids: Vec<_> = nodes.iter().map(|node| self.nodes[*node].id.as_str()).collect();
        run(&format!("docker kill {}", ids.join(" "))).await?;
        for _ in nodes {
            self.count("kill -9 of a container");
        }
        Ok(())
    }

    async fn pause_programs(&mut self, node: usize, programs: &[Program]) {
        for (_, pid) in self.pids(node, programs).await {
            if kill_process(pid, Signal::STOP).is_ok() {
                self.stopped.push(pid);
            }
        }
    }

    async fn disconnect(&self, node: usize) -> anyhow::Result<()> {
        self.docker(&format!("network disconnect {}", self.network()), node).await
    }

    fn network(&self) -> String {
        format!("{}_default", self.project)
    }

    fn inside(&self, node: usize) -> Network {
        Network { enter: format!("nsenter --net --target {}", self.nodes[node].pid) }
    }

    async fn cut(&self, fault: &Fault) -> anyhow::Result<()> {
        for (deaf, other) in fault.deaf_pairs(self.nodes.len()) {
            self.inside(deaf).ignore(&self.nodes[other].address).await?;
        }
        Ok(())
    }

    async fn roll(&self) -> anyhow::Result<()> {
        for node in 0..self.nodes.len() {
            self.docker("restart --time 30", node).await?;
            sleep(Duration::from_secs(2)).await;
        }
        Ok(())
    }

    /// A worker's directory in the volume that all of them share says whose it is.
    async fn wipe(&mut self, node: usize) -> anyhow::Result<()> {
        // The introducer would make another cluster.
        let node = if self.nodes[node].service == INTRODUCER { self.nodes.len() - 1 } else { node };
        let volume =
            format!("docker volume inspect -f {{{{.Mountpoint}}}} {}_worker-data", self.project);
        let volume = run(&volume).await?;
        self.kill_nodes(&[node]).await?;
        for slot in fs::read_dir(volume.trim())? {
            let slot = slot?.path();
            let owner = fs::read_to_string(slot.join("slot")).unwrap_or_default();
            if !owner.trim().is_empty() && self.nodes[node].id.starts_with(owner.trim()) {
                fs::remove_dir_all(&slot)?;
                self.count("wiped disks");
            }
        }
        Ok(())
    }

    fn fill_disk(&self) -> anyhow::Result<()> {
        let Some(disk) = &self.small_disk else { return Ok(()) };
        let mut file = File::create(filler(disk))?;
        let piece = vec![0; FILL_BYTES];
        while file.write_all(&piece).is_ok() {}
        Ok(())
    }

    async fn fail_syncs(&mut self, node: usize) -> anyhow::Result<()> {
        for (_, pid) in self.pids(node, &[Program::Raft]).await {
            let inject = "inject=fsync,fdatasync:error=EIO:when=1+";
            let strace = Command::new("strace")
                .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", inject])
                .args(["-p", &pid.as_raw_nonzero().to_string()])
                .kill_on_drop(true)
                .spawn()?;
            self.stracing.push(strace);
        }
        Ok(())
    }

    async fn scale(&self, workers: usize) -> anyhow::Result<()> {
        let words = format!("{} up --detach --scale worker={workers} --no-recreate", self.compose);
        run(&words).await.map(drop)
    }

    /// Back on the network, running, with all its processes.
    async fn revive(&mut self, node: usize) -> anyhow::Result<()> {
        let container = self.nodes[node].clone();
        match container.state.as_str() {
            "paused" => self.docker("unpause", node).await?,
            "exited" | "created" => self.docker("start", node).await?,
            _ => {}
        }
        let networks = inspect(&container.id, "{{json .NetworkSettings.Networks}}").await?;
        if !networks.contains(&self.network()) {
            let words = format!("network connect --alias {} {}", container.service, self.network());
            self.docker(&words, node).await?;
        }
        Ok(())
    }

    /// The supervisor gives up on a raft whose disk failed; an operator would not.
    async fn start_given_up(&mut self) -> anyhow::Result<()> {
        for node in 0..self.nodes.len() {
            let running = self.pids(node, &Program::ALL).await.len();
            if running < Program::ALL.len() {
                // It may be about to be started again.
                sleep(Duration::from_secs(6)).await;
                if self.pids(node, &Program::ALL).await.len() < Program::ALL.len() {
                    self.docker("restart --time 30", node).await?;
                    self.count("restarts of a container whose supervisor had given up");
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }
}

fn filler(disk: &Path) -> PathBuf {
    disk.join("filler")
}

/// The format may hold spaces.
async fn inspect(id: &str, format: &str) -> anyhow::Result<String> {
    let output = Command::new("docker").args(["inspect", "--format", format, id]).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "docker inspect {id}: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
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

    #[allow(clippy::wildcard_enum_match_arm, reason = "a question about few of many kinds")]
    fn obstacle(&self, kind: Kind) -> Option<String> {
        let why = match kind {
            _ if kind.is_of_the_network() && !(has("nsenter") && has("iptables") && has("tc")) => {
                "needs nsenter, iptables and tc"
            }
            Kind::FullDisk if self.small_disk.is_none() => "needs a small disk under a volume",
            Kind::FailingSync if !has("strace") => "needs strace",
            Kind::ClockJump => {
                "needs a clock of the container's own: no library for that is in the image"
            }
            _ => return None,
        };
        Some(why.to_owned())
    }

    async fn begin(&mut self, fault: &Fault) -> anyhow::Result<()> {
        self.look().await?;
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
            Kind::PauseNode => self.docker("pause", node).await?,
            Kind::PauseRaft | Kind::PauseMachine => {
                self.pause_programs(node, fault.programs()).await;
            }
            Kind::RollingRestart => self.roll().await?,
            Kind::Isolate => self.disconnect(node).await?,
            Kind::Deaf | Kind::Mute | Kind::PartialPartition | Kind::Split => {
                self.cut(fault).await?;
            }
            Kind::Lossy => self.inside(node).lose().await?,
            Kind::Slow => self.inside(node).slow_down().await?,
            Kind::FullDisk => self.fill_disk()?,
            Kind::FailingSync => self.fail_syncs(node).await?,
            Kind::Scale => {
                self.scale(self.nodes.len()).await?;
                self.scaled = true;
            }
            Kind::ClockJump => anyhow::bail!("not possible here"),
        }
        Ok(())
    }

    async fn heal(&mut self) -> anyhow::Result<()> {
        for mut strace in std::mem::take(&mut self.stracing) {
            strace.start_kill()?;
            strace.wait().await?;
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
        if std::mem::take(&mut self.scaled) {
            self.scale(self.nodes.len() - 2).await?;
            self.look().await?;
        }
        for node in 0..self.nodes.len() {
            self.revive(node).await?;
        }
        self.look().await?;
        for node in 0..self.nodes.len() {
            self.inside(node).heal().await?;
        }
        self.start_given_up().await
    }

    async fn mend(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    async fn autopsy(&mut self) -> (Counts, Vec<String>) {
        let (mut counts, mut wrong) = (self.counts.clone(), self.wrong.clone());
        for node in &self.nodes {
            let output = Command::new("docker").args(["logs", &node.id]).output().await;
            let Ok(output) = output else { continue };
            let log =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            let of = |text: &str| log.matches(text).count() as u64;
            *counts.entry("snapshot installs".to_owned()).or_default() +=
                of("receiving a snapshot");
            *counts.entry("snapshots taken".to_owned()).or_default() += of("took a snapshot");
            if let Some(panic) = log.lines().find(|line| line.contains("panicked at")) {
                wrong.push(format!("a process of {} {}: {panic}", node.service, node.id));
            }
        }
        (counts, wrong)
    }
}
