//! What is done to processes.

use std::fs;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::super::clock;
use super::super::ends::was_cut_short;
use super::super::failing::FailingSyncs;
use super::super::fault::Fault;
use super::super::node::{End, Program};
use super::Processes;

/// Between the nodes of a rolling restart.
const REST: Duration = Duration::from_millis(500);

impl Processes {
    pub(super) async fn kill(&mut self, node: usize, programs: &[Program]) -> anyhow::Result<()> {
        // All at once first, then the waiting.
        self.nodes[node].signal_each(programs, Signal::KILL);
        for program in programs {
            self.end(node, *program, Signal::KILL).await?;
        }
        Ok(())
    }

    pub(super) async fn kill_everywhere(&mut self, programs: &[Program]) -> anyhow::Result<()> {
        for node in &self.nodes {
            node.signal_each(programs, Signal::KILL);
        }
        for node in 0..self.nodes.len() {
            self.kill(node, programs).await?;
        }
        Ok(())
    }

    async fn end(&mut self, node: usize, program: Program, signal: Signal) -> anyhow::Result<()> {
        use std::os::unix::process::ExitStatusExt as _;

        let name = program.name();
        let log_bytes = self.nodes[node].log_bytes(program);
        match self.nodes[node].end(program, signal).await? {
            None => {}
            Some(End::ByItself(status) | End::BySignal(status))
                if status.signal() == Some(Signal::KILL.as_raw()) && signal == Signal::KILL =>
            {
                self.count(&format!("kill -9 of {name}"));
                self.has_effect = true;
            }
            Some(End::BySignal(status)) if status.success() => {
                self.count(&format!("{name} stopped in good order"));
                self.has_effect = true;
            }
            Some(End::BySignal(status))
                if self.was_cut_short(node, program, status, log_bytes)? =>
            {
                self.count("raft stopped before its last sync was done");
            }
            Some(End::ByItself(status)) => self.judge_end(node, program, status),
            Some(End::BySignal(status)) => {
                self.wrong.push(format!("{name} of node {node} was told to stop: {status}"));
            }
            Some(End::Forced) => {
                self.wrong.push(format!("{name} of node {node} was told to stop and did not"));
            }
        }
        Ok(())
    }

    fn was_cut_short(
        &self,
        node: usize,
        program: Program,
        status: ExitStatus,
        log_bytes: u64,
    ) -> anyhow::Result<bool> {
        let said = self.nodes[node].log_since(program, log_bytes)?;
        Ok(was_cut_short(program, status.code(), &said))
    }

    pub(super) async fn roll(&mut self) -> anyhow::Result<()> {
        for node in 0..self.nodes.len() {
            for program in [Program::Raft, Program::StateMachine, Program::Member] {
                self.end(node, program, Signal::TERM).await?;
            }
            self.start_missing(node)?;
            sleep(REST).await;
        }
        Ok(())
    }

    pub(super) async fn wipe(&mut self, node: usize) -> anyhow::Result<()> {
        self.kill(node, &Program::ALL).await?;
        for entry in fs::read_dir(self.nodes[node].data())? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        self.count("wiped disks");
        Ok(())
    }

    pub(super) fn pause(&mut self, fault: &Fault) {
        let paused = self.nodes[fault.node].signal_each(fault.programs(), Signal::STOP);
        self.has_effect = paused == fault.programs().len();
    }

    pub(super) async fn cut(&self, fault: &Fault) -> anyhow::Result<()> {
        for (deaf, other) in fault.deaf_pairs(self.nodes.len()) {
            self.networks[deaf].ignore(&self.nodes[other].place.address).await?;
        }
        Ok(())
    }

    pub(super) async fn fail_syncs(&mut self, node: usize) -> anyhow::Result<()> {
        let Some(pid) = self.nodes[node].pid(Program::Raft) else { return Ok(()) };
        let mut failing = FailingSyncs::of(pid).await?;
        failing.wait().await;
        self.failing = Some(failing);
        Ok(())
    }

    pub(super) async fn jump_clock(&mut self, fault: &Fault) -> anyhow::Result<()> {
        let node = &self.nodes[fault.node];
        let log_bytes = node.log_bytes(Program::Raft);
        clock::jump(&node.clock(), fault.other.is_multiple_of(2))?;
        node.signal_each(&[Program::Raft], Signal::HUP);
        let deadline = Instant::now() + clock::EVIDENCE;
        while !self.has_effect && Instant::now() < deadline {
            sleep(clock::LOOK).await;
            let written = node.log_since(Program::Raft, log_bytes)?;
            self.has_effect = written.lines().any(|line| clock::is_off(line, SystemTime::now()));
        }
        Ok(())
    }
}
