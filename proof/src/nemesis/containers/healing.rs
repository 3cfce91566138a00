//! How containers come back.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::ends::is_for_an_operator;
use super::super::engine::inspect;
use super::super::fault::{Kind, Need};
use super::super::node::Program;
use super::Containers;
use super::judging::named;

/// The supervisor's longest delay, and as much again for a machine that is busy.
const RESTART: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(500);

impl Containers {
    /// Counts what the networks did meanwhile.
    pub(super) async fn heal_networks(&mut self) -> anyhow::Result<()> {
        let Some(fault) = self.fault.clone() else { return Ok(()) };
        let need = fault.kind.need();
        let slowed = need == Some(Need::Delay);
        // A container that was off the network has no rules.
        let cut =
            need == Some(Need::Loss) || (need == Some(Need::Cut) && fault.kind != Kind::Isolate);
        let mut touched = 0;
        for node in 0..self.nodes.len() {
            touched += self.inside(node).heal(slowed && node == fault.node, cut).await?;
        }
        if slowed || cut {
            self.has_effect = touched > 0;
            let what = if cut { "packets dropped" } else { "packets held back by a slow link" };
            *self.counts.entry(what.to_owned()).or_default() += touched;
        }
        Ok(())
    }

    /// Back on the network, running, with all its processes.
    pub(super) async fn revive(&mut self, node: usize) -> anyhow::Result<()> {
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

    /// The supervisor gives up on a raft whose disk failed; an operator would not. After every other fault it needs no operator.
    pub(super) async fn start_given_up(&mut self) -> anyhow::Result<()> {
        for node in 0..self.nodes.len() {
            if !self.becomes_complete(node).await {
                if !is_for_an_operator(self.fault.as_ref()) {
                    self.complain_of_given_up(node);
                }
                self.docker("restart --time 30", node).await?;
                self.count("restarts of a container whose supervisor had given up");
            }
        }
        self.looked_for_given_up = Instant::now();
        Ok(())
    }

    fn complain_of_given_up(&mut self, node: usize) {
        let fault = self.fault.as_ref().map(ToString::to_string).unwrap_or_default();
        let name = named(&self.nodes[node]);
        self.wrong.push(format!("{name}: not all of its processes came back after {fault}"));
    }

    /// A process may be about to be started again.
    pub(super) async fn becomes_complete(&self, node: usize) -> bool {
        let deadline = Instant::now() + RESTART;
        loop {
            if self.nodes[node].pids(&Program::ALL).await.len() >= Program::ALL.len() {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            sleep(LOOK).await;
        }
    }
}
