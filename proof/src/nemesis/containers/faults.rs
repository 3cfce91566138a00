//! What is done to containers.

use std::fs;
use std::time::{Duration, SystemTime};

use rustix::process::{Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::super::clock;
use super::super::failing::FailingSyncs;
use super::super::fault::Fault;
use super::super::node::Program;
use super::super::tools::run;
use super::Containers;

/// Between the containers of a rolling restart.
const REST: Duration = Duration::from_secs(2);

impl Containers {
    pub(super) async fn kill_programs(&mut self, nodes: &[usize], programs: &[Program]) {
        let mut targets = Vec::new();
        for node in nodes {
            targets.extend(self.nodes[*node].pids(programs).await);
        }
        for (program, pid) in targets {
            if kill_process(pid, Signal::KILL).is_ok() {
                self.count(&format!("kill -9 of {}", program.name()));
                self.has_effect = true;
            }
        }
    }

    pub(super) async fn kill_nodes(&mut self, nodes: &[usize]) -> anyhow::Result<()> {
        let ids: Vec<_> = nodes.iter().map(|node| self.nodes[*node].id.as_str()).collect();
        run(&format!("docker kill {}", ids.join(" "))).await?;
        for _ in nodes {
            self.count("kill -9 of a container");
        }
        self.has_effect = true;
        Ok(())
    }

    pub(super) async fn pause_programs(&mut self, node: usize, programs: &[Program]) {
        for (_, pid) in self.nodes[node].pids(programs).await {
            if kill_process(pid, Signal::STOP).is_ok() {
                self.stopped.push(pid);
                self.has_effect = true;
            }
        }
    }

    pub(super) async fn disconnect(&self, node: usize) -> anyhow::Result<()> {
        self.docker(&format!("network disconnect {}", self.network()), node).await
    }

    pub(super) async fn cut(&self, fault: &Fault) -> anyhow::Result<()> {
        for (deaf, other) in fault.deaf_pairs(self.nodes.len()) {
            self.inside(deaf).ignore(&self.nodes[other].address).await?;
        }
        Ok(())
    }

    pub(super) async fn roll(&self) -> anyhow::Result<()> {
        for node in 0..self.nodes.len() {
            self.docker("restart --time 30", node).await?;
            sleep(REST).await;
        }
        Ok(())
    }

    /// A worker's directory in the volume that all of them share says whose it is.
    pub(super) async fn wipe(&mut self, node: usize) -> anyhow::Result<()> {
        let volume =
            format!("docker volume inspect -f {{{{.Mountpoint}}}} {}_worker-data", self.project);
        let volume = run(&volume).await?;
        self.kill_nodes(&[node]).await?;
        self.has_effect = false;
        for slot in fs::read_dir(volume.trim())? {
            let slot = slot?.path();
            let owner = fs::read_to_string(slot.join("slot")).unwrap_or_default();
            if !owner.trim().is_empty() && self.nodes[node].id.starts_with(owner.trim()) {
                fs::remove_dir_all(&slot)?;
                self.count("wiped disks");
                self.has_effect = true;
            }
        }
        Ok(())
    }

    pub(super) async fn fail_syncs(&mut self, node: usize) -> anyhow::Result<()> {
        let pids = self.nodes[node].pids(&[Program::Raft]).await;
        let Some((_, pid)) = pids.first() else { return Ok(()) };
        let mut failing = FailingSyncs::of(*pid).await?;
        failing.wait().await;
        self.failing = Some(failing);
        Ok(())
    }

    pub(super) async fn jump_clock(&mut self, fault: &Fault, node: usize) -> anyhow::Result<()> {
        let container = self.nodes[node].clone();
        clock::jump(&self.clock(node), fault.other.is_multiple_of(2))?;
        for (_, pid) in container.pids(&[Program::Raft]).await {
            // It may have ended by itself just now.
            let _gone = kill_process(pid, Signal::HUP);
        }
        let deadline = Instant::now() + clock::EVIDENCE;
        while !self.has_effect && Instant::now() < deadline {
            sleep(clock::LOOK).await;
            // All that was there before the jump has been read.
            for line in self.logs.fresh(&container.id).await? {
                self.has_effect |= clock::is_off(&line, SystemTime::now());
                self.judge_line(node, &container, &line);
            }
        }
        Ok(())
    }

    pub(super) async fn scale(&self, workers: usize) -> anyhow::Result<()> {
        let words = format!("{} up --detach --scale worker={workers} --no-recreate", self.compose);
        run(&words).await.map(drop)
    }
}
