//! What the container engine says of the containers of a project, and what their logs say of their processes.

use std::collections::BTreeMap;

use rustix::process::Pid;

use super::node::Program;
use super::tools::{output, run, run_words};

/// State, process id, restarts, address and service.
const FORMAT: &str = "{{.State.Status}}|{{.State.Pid}}|{{.RestartCount}}|\
                      {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}|\
                      {{index .Config.Labels \"com.docker.compose.service\"}}";
pub(super) const INTRODUCER: &str = "introducer";

/// As the engine described it last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) service: String,
    pub(super) state: String,
    pub(super) address: String,
    /// Of its first process, on this machine.
    pub(super) pid: String,
    /// How often the engine started it again because it had ended by itself.
    pub(super) restarts: u64,
}

impl Container {
    /// Whether this is the one whose volume may be a small disk.
    pub(super) fn is_introducer(&self) -> bool {
        self.service == INTRODUCER
    }

    /// Process ids, on this machine, of programs in it.
    pub(super) async fn pids(&self, programs: &[Program]) -> Vec<(Program, Pid)> {
        let top = run(&format!("docker top {} -eo pid,comm", self.id)).await;
        let top = top.unwrap_or_default();
        let processes = top.lines().filter_map(|line| {
            let (pid, name) = line.trim().split_once(' ')?;
            let program = programs.iter().find(|program| program.name() == name.trim())?;
            Some((*program, Pid::from_raw(pid.parse().ok()?)?))
        });
        processes.collect()
    }
}

/// All of a project; the introducer first.
pub(super) async fn containers(project: &str) -> anyhow::Result<Vec<Container>> {
    let label = format!("label=com.docker.compose.project={project}");
    let ids = run(&format!("docker ps --all --quiet --no-trunc --filter {label}")).await?;
    let mut containers = Vec::new();
    for id in ids.split_whitespace() {
        let said = inspect(id, FORMAT).await?;
        let mut parts = said.trim().split('|').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let (state, pid, restarts) = (next(), next(), next().parse()?);
        let (address, service) = (next(), next());
        containers.push(Container { id: id.to_owned(), service, state, address, pid, restarts });
    }
    containers.sort_by_key(|container| (!container.is_introducer(), container.id.clone()));
    Ok(containers)
}

/// The format may hold spaces.
pub(super) async fn inspect(id: &str, format: &str) -> anyhow::Result<String> {
    run_words(&["docker", "inspect", "--format", format, id]).await
}

/// Reads every line of every container's log once.
#[derive(Debug, Default)]
pub(super) struct Logs {
    /// By container: the time that the engine noted at its last line.
    read: BTreeMap<String, String>,
}

impl Logs {
    /// What a container has written since it was asked last, without the engine's times.
    pub(super) async fn fresh(&mut self, id: &str) -> anyhow::Result<Vec<String>> {
        let last = self.read.get(id).cloned().unwrap_or_default();
        let mut words = vec!["docker", "logs", "--timestamps"];
        if !last.is_empty() {
            words.extend(["--since", &last]);
        }
        words.push(id);
        let output = output(&words).await?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        // The engine gives the lines of that very moment once more.
        let lines = said.lines().filter_map(|line| line.split_once(' '));
        let fresh: Vec<_> = lines.filter(|(time, _)| **time > *last).collect();
        let newest = fresh.iter().map(|(time, _)| *time).max().unwrap_or(&last).to_owned();
        self.read.insert(id.to_owned(), newest);
        Ok(fresh.into_iter().map(|(_, line)| line.to_owned()).collect())
    }
}

/// What a line of the supervisor says of the end of a process: "TIME raft: exit code 13, …".
pub(super) fn end_in(line: &str) -> Option<(Program, i32)> {
    let (_, said) = line.split_once(' ')?;
    let (name, said) = said.split_once(": exit code ")?;
    let program = Program::ALL.into_iter().find(|program| program.name() == name)?;
    let (code, _) = said.split_once(',')?;
    Some((program, code.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_from_what_the_supervisor_writes() {
        let line = "2026-03-01T10:00:00+0000 state-machine: exit code 13, a write or sync of the log failed: not started again";
        assert_eq!(end_in(line), Some((Program::StateMachine, 13)));
        let line = "2026-03-01T10:00:00+0000 raft: exit code 137, killed by SIGKILL";
        assert_eq!(end_in(line), Some((Program::Raft, 137)));
        assert_eq!(end_in("2026-03-01T10:00:00+0000 raft: started, pid 12, in 100 ms"), None);
        assert_eq!(end_in("2026-03-01T10:00:00.000Z  INFO raft: role changed"), None);
    }
}
