//! What the logs of containers say of their processes.

use super::super::ends::{End, KILLED, WRITE_FAILED, is_explained};
use super::super::engine::{Container, end_in};
use super::super::node::Program;
use super::Containers;

impl Containers {
    /// What the containers have written since, and which of their processes have ended.
    pub(super) async fn read_logs(&mut self) -> anyhow::Result<()> {
        for (node, container) in self.nodes.clone().into_iter().enumerate() {
            for line in self.logs.fresh(&container.id).await? {
                self.judge_line(node, &container, &line);
            }
            let known = self.restarts.insert(container.id.clone(), container.restarts);
            if container.restarts > known.unwrap_or_default() {
                self.wrong.push(format!("container {} ended by itself", named(&container)));
            }
        }
        Ok(())
    }

    pub(super) fn judge_line(&mut self, node: usize, container: &Container, line: &str) {
        for (text, what) in
            [("received a snapshot", "snapshot installs"), ("took a snapshot", "snapshots taken")]
        {
            if line.contains(text) {
                self.count(what);
            }
        }
        if is_bad(line) {
            self.wrong.push(format!("a process of {}: {line}", named(container)));
        }
        if let Some((program, code)) = end_in(line) {
            self.judge_end(node, container, program, code);
        }
    }

    /// Of a process that its container survived.
    pub(super) fn judge_end(
        &mut self,
        node: usize,
        container: &Container,
        program: Program,
        code: i32,
    ) {
        let fault = self.fault.as_ref();
        let was_killed = code == KILLED && fault.is_some_and(|fault| fault.kills(program));
        let on_small_disk = container.is_introducer() && self.small_disk.is_some();
        let end = End { node, program, code: Some(code), on_small_disk };
        if is_explained(end, fault) {
            self.count(&format!("{} ended of its fault: exit code {code}", program.name()));
            self.has_effect |= code == WRITE_FAILED;
        } else if !was_killed {
            let (name, of) = (program.name(), named(container));
            self.wrong.push(format!("{name} of {of} ended: exit code {code}"));
        }
    }
}

/// What nobody may have to write: of a panic; and of a process that did not listen to SIGTERM and was killed, while its container stopped as
/// if all were well.
fn is_bad(line: &str) -> bool {
    ["panicked at", "did not stop within"].into_iter().any(|text| line.contains(text))
}

pub(super) fn named(container: &Container) -> String {
    format!("{} {}", container.service, container.id.get(..12).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_did_not_stop_is_no_good_restart() {
        assert!(is_bad("node.sh: raft (pid 12) did not stop within 17 s: killed"));
        assert!(is_bad("thread 'main' panicked at raft/src/main.rs:1:1:"));
        assert!(!is_bad("2026-03-01T10:00:00+0000 node: stopped"));
    }
}
