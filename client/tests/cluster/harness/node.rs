//! A node: its directory, its three processes, and where they listen.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use raft::rpc::wire::Endpoint;
use rustix::process::Signal;

use super::process::{Addresses, Process};
use super::program::Program;

/// A supervisor's pause before it starts a dead process again.
pub(crate) const RESTART_DELAY: Duration = Duration::from_millis(100);
/// An address can be taken for a moment by somebody's outgoing connection while its owner is down.
const ADDRESS_IN_USE: i32 = 3;
/// Starts of a process whose address is in use, before giving up.
const MAX_STARTS: usize = 50;

/// What a node is told about its place in the cluster.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// Makes the cluster.
    Founder,
    /// Joins through this introducer.
    Joiner {
        /// `host:port`.
        seed: String,
    },
}

/// More flags for each process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags {
    /// For `member`.
    pub(crate) member: &'static [&'static str],
    /// For `raft`.
    pub(crate) raft: &'static [&'static str],
}

/// One node. Its ports are given by the system at the first start and kept from then on.
pub(crate) struct Node {
    name: String,
    dir: PathBuf,
    origin: Origin,
    flags: Flags,
    /// What its processes log, if not the usual.
    log_filter: Option<&'static str>,
    processes: BTreeMap<Program, Process>,
    addresses: BTreeMap<Program, Addresses>,
}

impl Node {
    /// A node with an empty directory below `root`; nothing runs yet.
    pub(crate) fn new(root: &Path, number: usize, origin: Origin, flags: Flags) -> Self {
        let name = format!("n{number}");
        let dir = root.join(&name);
        fs::create_dir(&dir).expect("the root is ours");
        let (processes, addresses) = (BTreeMap::new(), BTreeMap::new());
        Self { name, dir, origin, flags, log_filter: None, processes, addresses }
    }

    /// What its processes are started with from now on.
    pub(crate) fn set_flags(&mut self, flags: Flags) {
        self.flags = flags;
    }

    /// What its processes log when they are started from now on.
    pub(crate) fn set_log_filter(&mut self, filter: &'static str) {
        self.log_filter = Some(filter);
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Starts one process and waits until it serves.
    pub(crate) async fn start(&mut self, program: Program) {
        let ready_file = self.dir.join(format!("{}.json", program.name()));
        for _ in 0..MAX_STARTS {
            // Of an earlier run, if any.
            let _none = fs::remove_file(&ready_file);
            let mut command = self.command(program);
            command.arg("--ready-file").arg(&ready_file);
            let mut process = Process::spawn(&mut command, &self.log(program));
            match process.serving(&ready_file).await {
                Ok(addresses) => {
                    self.addresses.insert(program, addresses);
                    self.processes.insert(program, process);
                    return;
                }
                Err(status) if status.code() == Some(ADDRESS_IN_USE) => {
                    tokio::time::sleep(RESTART_DELAY).await;
                }
                Err(status) => panic!("{} of {} ended: {status}", program.name(), self.name),
            }
        }
        panic!("the address of {} of {} stays in use", program.name(), self.name);
    }

    /// Starts all three.
    pub(crate) async fn start_all(&mut self) {
        for program in Program::ALL {
            self.start(program).await;
        }
    }

    /// Starts a process that is expected to refuse; its exit code and what it says.
    pub(crate) async fn refusal(&self, program: Program) -> (Option<i32>, String) {
        Process::refusal(&mut self.command(program), &self.dir.join("refusal.log")).await
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, program: Program) {
        self.take(program).kill();
    }

    /// kill -9 of all three.
    pub(crate) fn kill_all(&mut self) {
        for process in std::mem::take(&mut self.processes).into_values() {
            process.kill();
        }
    }

    /// kill -9, and a supervisor that starts it again.
    pub(crate) async fn bounce(&mut self, program: Program) {
        self.signal(program, Signal::KILL);
        self.take(program).exit_code().await;
        tokio::time::sleep(RESTART_DELAY).await;
        self.start(program).await;
    }

    /// SIGTERM; the exit code.
    pub(crate) async fn terminate(&mut self, program: Program) -> Option<i32> {
        self.signal(program, Signal::TERM);
        self.take(program).exit_code().await
    }

    /// Waits until a process ends by itself; its exit code.
    pub(crate) async fn ended(&mut self, program: Program) -> Option<i32> {
        self.take(program).exit_code().await
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, program: Program, signal: Signal) {
        self.processes.get(&program).expect("it was started").signal(signal);
    }

    /// Whether a process still runs.
    pub(crate) fn runs(&mut self, program: Program) -> bool {
        self.processes.get_mut(&program).is_some_and(Process::runs)
    }

    /// An address out of a ready file.
    pub(crate) fn address(&self, program: Program, name: &str) -> String {
        let addresses = self.addresses.get(&program).expect("it was started");
        addresses[name].as_str().expect("it listens there").to_owned()
    }

    /// The raft port, for clients and peers.
    pub(crate) fn raft(&self) -> Endpoint {
        Endpoint::Tcp(self.address(Program::Raft, "raft"))
    }

    /// What a process has said so far.
    pub(crate) fn log_text(&self, program: Program) -> String {
        fs::read_to_string(self.log(program)).unwrap_or_default()
    }

    /// Prints the end of each log.
    pub(crate) fn print_logs(&self) {
        const LINES: usize = 25;
        for program in Program::ALL {
            let text = self.log_text(program);
            let lines: Vec<_> = text.lines().collect();
            eprintln!("--- {} of {}", program.name(), self.name);
            for line in &lines[lines.len().saturating_sub(LINES)..] {
                eprintln!("{line}");
            }
        }
    }

    fn take(&mut self, program: Program) -> Process {
        self.processes.remove(&program).expect("it was started")
    }

    fn log(&self, program: Program) -> PathBuf {
        self.dir.join(format!("{}.log", program.name()))
    }

    fn command(&self, program: Program) -> Command {
        let mut command = program.command(&self.data_dir());
        command.arg("--port-base=0").args(self.kept_ports(program));
        if let Some(filter) = self.log_filter {
            command.env("RUST_LOG", filter);
        }
        match program {
            Program::Member => {
                command.args(["--name", &self.name]).args(self.flags.member);
                match &self.origin {
                    Origin::Founder => command.arg("--introducer"),
                    Origin::Joiner { seed } => command.args(["--seed", seed]),
                };
            }
            Program::StateMachine => {}
            Program::Raft => {
                command.args(["--name", &self.name]).args(self.flags.raft);
                if matches!(self.origin, Origin::Founder) {
                    command.arg("--bootstrap=now");
                }
            }
        }
        command
    }

    /// Flags that bring a process back to where it listened before.
    fn kept_ports(&self, program: Program) -> Vec<String> {
        let names: &[(&str, &str)] = match program {
            Program::Member => &[
                ("gossip", "--gossip-port"),
                ("introducer", "--introducer-port"),
                ("rpc", "--rpc-port"),
            ],
            Program::StateMachine => &[("tcp", "--port")],
            Program::Raft => &[("raft", "--raft-port"), ("http", "--http-port")],
        };
        let Some(addresses) = self.addresses.get(&program) else { return Vec::new() };
        let kept = |(name, flag): &(&str, &str)| {
            let (_, port) = addresses[*name].as_str()?.rsplit_once(':')?;
            Some(format!("{flag}={port}"))
        };
        names.iter().filter_map(kept).collect()
    }
}
