//! A node: its directory and its three processes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::clock;

/// Snapshots often, so that who was away gets one; voters given up soon, so that configurations change.
const RAFT_FLAGS: &[&str] = &[
    "--segment-mib=16",
    "--log-cache-mib=8",
    "--snapshot-floor-mib=1",
    "--snapshot-ratio-percent=0",
    "--keep-trailing-mib=0",
    "--promote-after-ms=300",
    "--dead-after-ms=3000",
];
const MEMBER_FLAGS: &[&str] =
    &["--probe-interval-ms=200", "--probe-timeout-ms=90", "--rejoin-interval-ms=1000"];

/// For a process to end in. Raft gives itself 10 s after TERM.
const END: Duration = Duration::from_secs(30);

/// One of a node's processes, by the name of its binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Program {
    Member,
    StateMachine,
    Raft,
}

impl Program {
    pub(super) const ALL: [Self; 3] = [Self::Member, Self::StateMachine, Self::Raft];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::StateMachine => "state-machine",
            Self::Raft => "raft",
        }
    }
}

/// Where a node is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    pub(super) address: String,
    pub(super) port_base: u16,
    /// The network to start its processes in.
    pub(super) namespace: Option<String>,
    /// `host:port` of the other nodes' introducers.
    pub(super) seeds: Vec<String>,
    /// What gives its processes a clock of their own.
    pub(super) clock: Option<PathBuf>,
}

/// How a process came to its end.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// Nobody had told it to.
    ByItself(ExitStatus),
    /// The signal that it was sent.
    BySignal(ExitStatus),
    /// It did not listen to the signal, and was killed.
    Forced,
}

pub(super) struct Node {
    pub(super) place: Place,
    binaries: PathBuf,
    processes: BTreeMap<Program, Child>,
    /// To make the cluster at its next start.
    founds: bool,
}

impl Node {
    pub(super) fn new(place: Place, binaries: &Path, founds: bool) -> Self {
        Self { place, binaries: binaries.to_owned(), processes: BTreeMap::new(), founds }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.place.dir.join("data")
    }

    pub(super) fn log(&self, program: Program) -> PathBuf {
        self.place.dir.join(format!("{}.log", program.name()))
    }

    /// How long it is by now.
    pub(super) fn log_bytes(&self, program: Program) -> u64 {
        fs::metadata(self.log(program)).map_or(0, |metadata| metadata.len())
    }

    /// What was written since it had that length.
    pub(super) fn log_since(&self, program: Program, bytes: u64) -> anyhow::Result<String> {
        let log = fs::read(self.log(program))?;
        let since = log.get(usize::try_from(bytes)?..).unwrap_or_default();
        Ok(String::from_utf8_lossy(since).into_owned())
    }

    /// Starts what does not run; what the others had ended with.
    pub(super) fn start_missing(&mut self) -> anyhow::Result<Vec<(Program, ExitStatus)>> {
        let mut ends = Vec::new();
        for program in Program::ALL {
            if let Some(child) = self.processes.get_mut(&program) {
                let pid = pid_of(child);
                let Some(status) = child.try_wait()? else { continue };
                pid.into_iter().for_each(clock::sweep);
                ends.push((program, status));
            }
            let child = self.spawn(program)?;
            self.processes.insert(program, child);
        }
        Ok(ends)
    }

    /// To those of them that run; how many.
    pub(super) fn signal_each(&self, programs: &[Program], signal: Signal) -> usize {
        let pids = programs.iter().filter_map(|program| self.pid(*program));
        // One may have ended by itself just now.
        pids.filter(|pid| kill_process(*pid, signal).is_ok()).count()
    }

    /// Sends a signal that ends it, and waits for the end, after which it is as if it had never run. None: it does not run.
    pub(super) async fn end(
        &mut self,
        program: Program,
        signal: Signal,
    ) -> anyhow::Result<Option<End>> {
        let Some(mut child) = self.processes.remove(&program) else { return Ok(None) };
        let pid = pid_of(&child);
        let ended = if let Some(status) = child.try_wait()? {
            End::ByItself(status)
        } else {
            if let Some(pid) = pid {
                let _gone = kill_process(pid, signal);
            }
            match timeout(END, child.wait()).await {
                Ok(status) => End::BySignal(status?),
                Err(_elapsed) => {
                    timeout(END, child.kill()).await.context("a killed process stays")??;
                    End::Forced
                }
            }
        };
        pid.into_iter().for_each(clock::sweep);
        Ok(Some(ended))
    }

    /// None: it has ended.
    pub(super) fn pid(&self, program: Program) -> Option<Pid> {
        pid_of(self.processes.get(&program)?)
    }

    /// What its clock is set by.
    pub(super) fn clock(&self) -> PathBuf {
        self.place.dir.join("clock")
    }

    fn spawn(&mut self, program: Program) -> anyhow::Result<Child> {
        let log = File::options().create(true).append(true).open(self.log(program))?;
        fs::create_dir_all(self.data())?;
        let binary = self.binaries.join(program.name());
        let mut command = match &self.place.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        if let Some(library) = &self.place.clock {
            command.envs(clock::environment(library, &self.clock()));
        }
        command.args(self.arguments(program)).env("NO_COLOR", "1").kill_on_drop(true);
        command.stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("cannot start {}", program.name()))
    }

    fn arguments(&mut self, program: Program) -> Vec<String> {
        let place = &self.place;
        let bind = match program {
            Program::StateMachine => "127.0.0.1",
            Program::Member | Program::Raft => place.address.as_str(),
        };
        let data = self.data();
        let mut arguments = vec![
            format!("--data-dir={}", data.display()),
            format!("--port-base={}", place.port_base),
            format!("--bind={bind}"),
        ];
        let named = [format!("--advertise={}", place.address), format!("--name={}", place.name)];
        match program {
            Program::StateMachine => {}
            Program::Member => {
                arguments.extend(named);
                arguments.push("--introducer".to_owned());
                arguments.extend(place.seeds.iter().map(|seed| format!("--seed={seed}")));
                arguments.extend(MEMBER_FLAGS.iter().map(|&flag| flag.to_owned()));
            }
            Program::Raft => {
                arguments.extend(named);
                arguments.extend(RAFT_FLAGS.iter().map(|&flag| flag.to_owned()));
                if std::mem::take(&mut self.founds) {
                    arguments.push("--bootstrap=now".to_owned());
                }
            }
        }
        arguments
    }
}

/// Its processes are killed with it.
impl Drop for Node {
    fn drop(&mut self) {
        self.processes.values().filter_map(pid_of).for_each(clock::sweep);
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}
