//! The three programs of a node, as cargo built them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One of the processes of a node, in the order in which they are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Program {
    /// Gossip.
    Member,
    /// What is replicated.
    StateMachine,
    /// Consensus.
    Raft,
}

impl Program {
    /// All three.
    pub(crate) const ALL: [Self; 3] = [Self::Member, Self::StateMachine, Self::Raft];

    /// Name of the executable.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::StateMachine => "state-machine",
            Self::Raft => "raft",
        }
    }

    /// Its command line, with nothing of the caller's environment.
    pub(crate) fn command(self, data_dir: &Path) -> Command {
        let mut command = Command::new(self.executable());
        command.env_clear().env("RUST_LOG", "info,tarpc=off");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.arg("--data-dir").arg(data_dir);
        command
    }

    /// Runs one of its tools to its end, with nothing of the caller's environment: exit code and output.
    pub(crate) fn tool(self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(self.executable()).env_clear().args(arguments).output();
        let output = output.expect("it is there to be started");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    fn executable(self) -> PathBuf {
        let executable = binaries().join(self.name());
        assert!(
            executable.exists(),
            "{} is missing; build it: cargo build --workspace --bins{}",
            executable.display(),
            if cfg!(debug_assertions) { "" } else { " --release" },
        );
        executable
    }
}

/// `target/<profile>`: this executable is in `deps` or `examples` of it.
fn binaries() -> PathBuf {
    let this = std::env::current_exe().expect("the system knows what it runs");
    this.parent().and_then(Path::parent).expect("cargo puts it two levels deep").to_owned()
}
