//! `raft-client` as it is typed.

use std::path::Path;
use std::process::{Command, Stdio};

use raft_client::Endpoint;
use serde_json::Value;

/// What a run left.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// What it printed, as JSON.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{}{}", self.out, self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

/// Runs it in a directory.
pub(crate) fn client(directory: &Path, words: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raft-client"));
    command.env_clear().current_dir(directory).args(words).stdin(Stdio::null());
    let output = command.output().unwrap();
    Run {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs it against some nodes.
pub(crate) fn ask(endpoints: &[Endpoint], words: &[&str]) -> Run {
    let list: Vec<_> = endpoints.iter().map(Endpoint::to_string).collect();
    let list = format!("--endpoints={}", list.join(","));
    client(Path::new("/"), &[&[list.as_str()], words].concat())
}

/// Runs it and expects success; what it prints, without the line end.
pub(crate) fn say(endpoints: &[Endpoint], words: &[&str]) -> String {
    let run = ask(endpoints, words);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{words:?}: {}", run.out);
    run.out.strip_suffix('\n').unwrap().to_owned()
}
