//! Nodes as processes of this machine. For root, with the tools at hand, each in a network of its own on one bridge; else all on loopback.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use raft::rpc::wire::Endpoint;
use rustix::process::Signal;
use tokio::process::{Child, Command};

use super::Counts;
use super::fault::{Fault, Kind};
use super::network::Network;
use super::node::{Node, Place, Program};
use super::site::Site;
use super::tools::{has, run};

const RAFT_PORT: u16 = 4;
const INTRODUCER_PORT: u16 = 1;
/// Of the node whose disk can be full: a few segments of the log.
const SMALL_DISK: &str = "160m";
const FILL_BYTES: usize = 1 << 20;
/// What a process may end with when it was not killed: stopped, address in use, disk full, failed write.
const FINE_CODES: [i32; 4] = [0, 3, 4, 13];

/// A cluster of processes.
pub struct Processes {
    nodes: Vec<Node>,
    networks: Vec<Network>,
    /// The node on the small disk.
    small: Option<usize>,
    stracing: Vec<Child>,
    counts: Counts,
    wrong: Vec<String>,
}

impl Processes {
    /// Starts the nodes with these binaries, all that they write below `root`, whose path is short. With `namespaces` the caller is in
    /// network, mount and process namespaces of its own, and root there.
    ///
    /// # Errors
    /// A node cannot be started.
    pub async fn start(
        nodes: usize,
        binaries: &Path,
        root: &Path,
        namespaces: bool,
    ) -> anyhow::Result<Self> {
        let places: Vec<_> = (0..nodes).map(|number| place(number, root, namespaces)).collect();
        let mut site = Self {
            nodes: Vec::new(),
            networks: Vec::new(),
            small: None,
            stracing: Vec::new(),
            counts: Counts::new(),
            wrong: Vec::new(),
        };
        if namespaces {
            site.make_bridge().await?;
        }
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
            site.nodes.push(Node::new(place, binaries, number == 0));
        }
        if namespaces {
            let last = nodes - 1;
            let data = site.nodes[last].data();
            run(&format!("mount -t tmpfs -o size={SMALL_DISK} tmpfs {}", data.display())).await?;
            site.small = Some(last);
        }
        site.mend().await?;
        Ok(site)
    }

    async fn make_bridge(&self) -> anyhow::Result<()> {
        for command in [
            "ip link set lo up",
            "mount -t tmpfs tmpfs /run",
            "ip link add name bridge type bridge",
            "ip addr add 10.77.0.254/24 dev bridge",
            "ip link set bridge up",
        ] {
            run(command).await?;
        }
        Ok(())
    }

    async fn kill(&mut self, node: usize, programs: &[Program]) -> anyhow::Result<()> {
        // All at once first, then the waiting.
        self.nodes[node].signal_each(programs, Signal::KILL);
        for program in programs {
            self.nodes[node].end(*program, Signal::KILL).await?;
            self.count(&format!("kill -9 of {}", program.name()));
        }
        Ok(())
    }

    async fn kill_everywhere(&mut self, programs: &[Program]) -> anyhow::Result<()> {
        for node in &self.nodes {
            node.signal_each(programs, Signal::KILL);
        }
        for node in 0..self.nodes.len() {
            self.kill(node, programs).await?;
        }
        Ok(())
    }

    async fn roll(&mut self) -> anyhow::Result<()> {
        for node in 0..self.nodes.len() {
            for program in [Program::Raft, Program::StateMachine, Program::Member] {
                self.nodes[node].end(program, Signal::TERM).await?;
            }
            self.start_missing(node)?;
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        Ok(())
    }

    async fn wipe(&mut self, node: usize) -> anyhow::Result<()> {
        self.kill(node, &Program::ALL).await?;
        for entry in fs::read_dir(self.nodes[node].data())? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        Ok(())
    }

    fn pause(&self, fault: &Fault) {
        self.nodes[fault.node].signal_each(fault.programs(), Signal::STOP);
    }

    async fn cut(&self, fault: &Fault) -> anyhow::Result<()> {
        for (deaf, other) in fault.deaf_pairs(self.nodes.len()) {
            self.networks[deaf].ignore(&self.nodes[other].place.address).await?;
        }
        Ok(())
    }

    fn filler(&self) -> Option<PathBuf> {
        Some(self.nodes[self.small?].data().join("filler"))
    }

    fn fill_disk(&self) -> anyhow::Result<()> {
        let Some(filler) = self.filler() else { return Ok(()) };
        let mut file = File::create(filler)?;
        let piece = vec![0; FILL_BYTES];
        while file.write_all(&piece).is_ok() {}
        Ok(())
    }

    /// Every sync of the log fails from now on, until the process ends of it.
    fn fail_syncs(&mut self, node: usize) -> anyhow::Result<()> {
        let Some(pid) = self.nodes[node].pid(Program::Raft) else { return Ok(()) };
        let pid = pid.as_raw_nonzero().to_string();
        let inject = "inject=fsync,fdatasync:error=EIO:when=1+";
        let strace = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                "trace=fsync,fdatasync",
                "-e",
                inject,
                "-p",
                &pid,
            ])
            .kill_on_drop(true)
            .spawn()?;
        self.stracing.push(strace);
        Ok(())
    }

    fn start_missing(&mut self, node: usize) -> anyhow::Result<()> {
        for (program, status) in self.nodes[node].start_missing()? {
            self.judge_end(node, program, status);
        }
        Ok(())
    }

    /// Of a process that nobody killed.
    fn judge_end(&mut self, node: usize, program: Program, status: ExitStatus) {
        let name = program.name();
        self.count(&format!("{name} ended by itself: {status}"));
        // The gossip daemon and the machine may say anything when their disk is full.
        let is_full = self.small == Some(node) && status.code() == Some(1);
        if !is_full && !status.code().is_some_and(|code| FINE_CODES.contains(&code)) {
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

    #[allow(clippy::wildcard_enum_match_arm, reason = "a question about few of many kinds")]
    fn obstacle(&self, kind: Kind) -> Option<String> {
        let why = match kind {
            _ if kind.is_of_the_network() && self.networks.is_empty() => {
                "needs root, ip, iptables and unshare"
            }
            Kind::FullDisk if self.small.is_none() => "needs root, to mount a small disk",
            Kind::FailingSync if !has("strace") => "needs strace",
            Kind::ClockJump => {
                "needs a clock of the node's own: no library for that is preloaded here"
            }
            Kind::Scale => {
                "processes do not scale by themselves; a wiped disk makes one node more and one less"
            }
            _ => return None,
        };
        Some(why.to_owned())
    }

    async fn begin(&mut self, fault: &Fault) -> anyhow::Result<()> {
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
            Kind::FullDisk => self.fill_disk(),
            Kind::FailingSync => self.fail_syncs(fault.node),
            Kind::ClockJump | Kind::Scale => anyhow::bail!("not possible here"),
        }
    }

    async fn heal(&mut self) -> anyhow::Result<()> {
        for mut strace in std::mem::take(&mut self.stracing) {
            strace.start_kill()?;
            strace.wait().await?;
        }
        for network in &self.networks {
            network.heal().await?;
        }
        if let Some(filler) = self.filler().filter(|filler| filler.exists()) {
            fs::remove_file(filler)?;
        }
        for node in &self.nodes {
            node.signal_each(&Program::ALL, Signal::CONT);
        }
        self.mend().await
    }

    async fn mend(&mut self) -> anyhow::Result<()> {
        (0..self.nodes.len()).try_for_each(|node| self.start_missing(node))
    }

    async fn autopsy(&mut self) -> (Counts, Vec<String>) {
        let mut counts = self.counts.clone();
        let mut wrong = self.wrong.clone();
        for node in &self.nodes {
            for program in Program::ALL {
                let log = fs::read_to_string(node.log(program)).unwrap_or_default();
                let of = |text: &str| log.matches(text).count() as u64;
                *counts.entry("snapshot installs".to_owned()).or_default() +=
                    of("receiving a snapshot");
                *counts.entry("snapshots taken".to_owned()).or_default() += of("took a snapshot");
                if let Some(panic) = log.lines().find(|line| line.contains("panicked at")) {
                    wrong.push(format!("{} of {}: {panic}", program.name(), node.place.name));
                }
            }
        }
        (counts, wrong)
    }
}

fn place(number: usize, root: &Path, namespaces: bool) -> Place {
    let name = format!("n{number}");
    let dir = root.join(&name);
    let (address, port_base, namespace) = if namespaces {
        (format!("10.77.0.{}", number + 1), 6000, Some(name.clone()))
    } else {
        let first = 21_000 + u16::try_from(std::process::id() % 400).expect("below 400") * 100;
        ("127.0.0.1".to_owned(), first + u16::try_from(number * 10).expect("few nodes"), None)
    };
    Place { name, dir, address, port_base, namespace, seeds: Vec::new() }
}

async fn make_network(namespace: &str, address: &str) -> anyhow::Result<Network> {
    for command in [
        format!("ip netns add {namespace}"),
        format!("ip link add v{namespace} type veth peer name eth0 netns {namespace}"),
        format!("ip link set v{namespace} master bridge up"),
        format!("ip -n {namespace} link set lo up"),
        format!("ip -n {namespace} addr add {address}/24 dev eth0"),
        format!("ip -n {namespace} link set eth0 up"),
    ] {
        run(&command).await?;
    }
    Ok(Network { enter: format!("ip netns exec {namespace}") })
}
