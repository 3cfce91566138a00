//! The three processes of a node, each on a host of its own, so that each can be crashed and cut off alone.

use std::path::PathBuf;

use member::daemon::Daemon;
use raft::config::Config;
use raft::keeper::Schedule;
use raft::process::Wish;
use state_machine::startup;
use tokio::sync::watch;

/// First port of every node; hosts are told apart by their names.
const RAFT_PORT: u16 = 6004;
const HTTP_PORT: u16 = 6003;
const MEMBER_PORT: u16 = 6002;
const INTRODUCER_PORT: u16 = 6001;
const GOSSIP_PORT: u16 = 6000;
const MACHINE_PORT: u16 = 6005;

/// Short logs, so that nodes fall behind them within seconds.
const SEGMENT_BYTES: u64 = 64 << 10;
const SNAPSHOT_EVERY_BYTES: u64 = 128 << 10;

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// Gossip.
    Member,
    /// The replicated program.
    Machine,
    /// Consensus.
    Raft,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Member, Self::Machine, Self::Raft];
}

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Node {
    /// Which, from 1.
    pub number: usize,
    /// The number in its hosts' names: its own, until it moves.
    pub address: usize,
    /// Its directory.
    pub directory: PathBuf,
    /// Whether it listens for joins, and makes the cluster if there is none.
    pub introducer: bool,
    /// Whom it joins.
    pub seeds: Vec<String>,
    /// The number in the name of the machine's host: its own.
    pub machine: usize,
}

impl Node {
    /// The name of a process's host.
    pub fn host(&self, program: Program) -> String {
        host(self.address, program)
    }

    /// Where clients find its raft.
    pub fn endpoint(&self) -> String {
        format!("{}:{RAFT_PORT}", self.host(Program::Raft))
    }

    /// Where it speaks HTTP.
    pub fn http_endpoint(&self) -> String {
        format!("{}:{HTTP_PORT}", self.host(Program::Raft))
    }

    /// Where others join it.
    pub fn seed(&self) -> String {
        let port = if self.introducer { INTRODUCER_PORT } else { GOSSIP_PORT };
        format!("{}:{port}", self.host(Program::Member))
    }

    /// Where its machine answers.
    pub fn machine_endpoint(&self) -> String {
        format!("{}:{MACHINE_PORT}", host(self.machine, Program::Machine))
    }

    /// Runs one of its processes until it is dropped, as a killed process is.
    pub async fn run(self, program: Program) -> turmoil::Result {
        match program {
            Program::Member => self.member().await,
            Program::Machine => self.machine().await,
            Program::Raft => self.raft().await,
        }
    }

    async fn member(self) -> turmoil::Result {
        let mut flags = self.flags(Program::Member);
        if self.introducer {
            flags.push("--introducer".to_owned());
        }
        flags.extend(self.seeds.iter().map(|seed| format!("--seed={seed}")));
        let loaded = member::startup::load::<member::config::Flags>(command_line(flags))?;
        Ok(Daemon::start(loaded.config).await?.run(std::future::pending()).await?)
    }

    async fn machine(self) -> turmoil::Result {
        let mut flags = self.flags(Program::Machine);
        flags.retain(|flag| !flag.starts_with("--advertise") && !flag.starts_with("--name"));
        // In the end all machines must hold the same, whatever keeps it.
        let machine = if self.number == 2 { "kv" } else { "memory-kv" };
        flags.push(format!("--machine={machine}"));
        let loaded = startup::load::<state_machine::config::Flags>(command_line(flags))?;
        Ok(state_machine::daemon::run(loaded.config, std::future::pending()).await?)
    }

    async fn raft(self) -> turmoil::Result {
        let mut flags = self.flags(Program::Raft);
        flags.push(format!("--member={}:{MEMBER_PORT}", self.host(Program::Member)));
        flags.push(format!("--state-machine={}", self.machine_endpoint()));
        if self.introducer {
            flags.push("--bootstrap".to_owned());
        }
        let loaded = startup::load::<raft::config::Settings>(command_line(flags))?;
        let config = Config {
            segment_bytes: SEGMENT_BYTES,
            snapshot_schedule: Schedule { floor_bytes: SNAPSHOT_EVERY_BYTES, ratio_percent: 0 },
            keep_trailing_bytes: 0,
            ..loaded.config
        };
        let (_never, wishes) = watch::channel(Wish::Run);
        Ok(raft::process::run(config, wishes).await?)
    }

    fn flags(&self, program: Program) -> Vec<String> {
        vec![
            format!("--data-dir={}", self.directory.display()),
            format!("--name=node-{}", self.number),
            "--bind=0.0.0.0".to_owned(),
            format!("--advertise={}", self.host(program)),
            format!("--port-base={GOSSIP_PORT}"),
        ]
    }
}

/// The name of a process's host.
pub fn host(number: usize, program: Program) -> String {
    let program = match program {
        Program::Member => "member",
        Program::Machine => "machine",
        Program::Raft => "raft",
    };
    format!("{program}-{number}")
}

fn command_line(flags: Vec<String>) -> impl Iterator<Item = String> {
    std::iter::once("outrigger".to_owned()).chain(flags)
}
