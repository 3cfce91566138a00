//! Starts the process, connects to it, and builds batches.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use state_machine::entries::{EntryBlob, EntryBlobBuilder, EntryHeader, EntryKind};
use state_machine::kv::command::{Command as KvCommand, decode_value};
use state_machine::rpc::{
    self, Applied, Apply, ApplyError, Attach, BeginRestore, BeginSnapshot, CONTRACT_VERSION,
    CommandResult, FinishRestore, Info, Query, ReadSnapshot, RestoreError, SnapshotChunk,
    SnapshotError, SnapshotInfo, StateMachineServiceClient, WriteRestore,
};
use state_machine::wire::Endpoint;
use tarpc::client::RpcError;
use tarpc::context;
use tempfile::TempDir;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);

pub(crate) const CLUSTER: u128 = 0x00c0_ffee;
pub(crate) const NODE: u64 = 7;

/// What the ready file says.
#[derive(Debug, Deserialize)]
pub(crate) struct Ready {
    pub(crate) pid: u32,
    pub(crate) machine: String,
    pub(crate) tcp: SocketAddr,
    pub(crate) unix: Option<PathBuf>,
}

/// The command line of a process on that data directory, with any port.
pub(crate) fn command(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_state-machine"));
    command.arg("--data-dir").arg(data_dir).args(["--port-base", "0"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Runs a process that is expected to refuse to start.
pub(crate) fn refusal(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// A running process; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) ready: Ready,
}

impl Daemon {
    /// Starts a process and waits until it serves.
    pub(crate) async fn start(data_dir: &TempDir, arguments: &[&str]) -> Daemon {
        Daemon::start_command(command(data_dir.path(), arguments), data_dir).await
    }

    /// The same, with a system that refuses to write beyond the first 512 KiB of a file.
    pub(crate) async fn start_with_small_files(data_dir: &TempDir, arguments: &[&str]) -> Daemon {
        let plain = command(data_dir.path(), arguments);
        let mut limited = Command::new("sh");
        let script = "trap '' XFSZ; ulimit -f 1024; exec \"$0\" \"$@\"";
        limited.args(["-c", script]).arg(plain.get_program()).args(plain.get_args());
        Daemon::start_command(limited, data_dir).await
    }

    async fn start_command(mut command: Command, data_dir: &TempDir) -> Daemon {
        let ready_file = data_dir.path().join("ready.json");
        drop(fs::remove_file(&ready_file));
        command.arg("--ready-file").arg(&ready_file);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let ready = loop {
            if let Ok(json) = fs::read(&ready_file) {
                break serde_json::from_slice(&json).unwrap();
            }
            assert!(child.try_wait().unwrap().is_none(), "it ended instead of serving");
            assert!(Instant::now() < deadline, "it does not serve");
            tokio::time::sleep(POLL).await;
        };
        Daemon { child, ready }
    }

    pub(crate) fn tcp(&self) -> Endpoint {
        Endpoint::Tcp(self.ready.tcp.to_string())
    }

    pub(crate) fn unix(&self) -> Endpoint {
        Endpoint::Unix(self.ready.unix.clone().unwrap())
    }

    /// kill -9, and wait until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and wait for the exit code.
    pub(crate) async fn terminate(self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.wait().await
    }

    /// Waits until it ends by itself.
    pub(crate) async fn wait(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A connection of boot `boot` of the usual node.
#[derive(Clone)]
pub(crate) struct Raft {
    pub(crate) client: StateMachineServiceClient,
    pub(crate) boot: u64,
}

pub(crate) fn attach_request(boot: u64) -> Attach {
    Attach { contract: CONTRACT_VERSION, cluster: CLUSTER, node: NODE, boot }
}

impl Raft {
    /// Says hello and no more.
    pub(crate) async fn connect(endpoint: &Endpoint, boot: u64) -> Raft {
        let connection = rpc::connect(endpoint, CLUSTER, NODE, boot, PATIENCE).await.unwrap();
        Raft { client: connection.client, boot }
    }

    pub(crate) async fn attach(endpoint: &Endpoint, boot: u64) -> (Raft, Info) {
        let raft = Raft::connect(endpoint, boot).await;
        let info = raft.client.attach(context::current(), attach_request(boot)).await;
        (raft, info.unwrap().unwrap())
    }

    pub(crate) async fn try_apply(
        &self,
        first_index: u64,
        entries: EntryBlob,
    ) -> Result<Result<Applied, ApplyError>, RpcError> {
        let request = Apply { boot: self.boot, first_index, entries };
        let mut context = context::current();
        context.deadline = Instant::now() + PATIENCE;
        self.client.apply(context, request).await
    }

    /// Applies a batch of lines.
    pub(crate) async fn apply(&self, first_index: u64, commands: &[&str]) -> Applied {
        self.try_apply(first_index, blob(commands)).await.unwrap().unwrap()
    }

    pub(crate) async fn get(&self, key: &str) -> Option<String> {
        let query = KvCommand::Get { key: Bytes::copy_from_slice(key.as_bytes()) }.encode();
        let request = Query { boot: self.boot, min_applied_index: 0, query: query.unwrap() };
        match self.client.query(context::current(), request).await.unwrap().unwrap() {
            CommandResult::Done(answer) => decode_value(&answer)
                .unwrap()
                .map(|value| String::from_utf8(value.to_vec()).unwrap()),
            other @ (CommandResult::Refused(_) | CommandResult::Skipped) => panic!("{other:?}"),
        }
    }
}

/// Snapshots, each call as a raft makes it.
impl Raft {
    pub(crate) async fn begin_snapshot(&self) -> SnapshotInfo {
        let request = BeginSnapshot { boot: self.boot };
        self.client.begin_snapshot(context::current(), request).await.unwrap().unwrap()
    }

    pub(crate) async fn read_snapshot(
        &self,
        snapshot: u64,
        offset: u64,
    ) -> Result<SnapshotChunk, SnapshotError> {
        let request = ReadSnapshot { boot: self.boot, snapshot, offset };
        self.client.read_snapshot(context::current(), request).await.unwrap()
    }

    /// A snapshot of the present state.
    pub(crate) async fn snapshot(&self) -> (SnapshotInfo, Vec<SnapshotChunk>) {
        let info = self.begin_snapshot().await;
        let mut pieces: Vec<SnapshotChunk> = Vec::new();
        while !pieces.last().is_some_and(|piece| piece.last) {
            let offset = pieces.iter().map(|piece| piece.bytes.len() as u64).sum();
            pieces.push(self.read_snapshot(info.snapshot, offset).await.unwrap());
        }
        (info, pieces)
    }

    /// Loads a snapshot.
    pub(crate) async fn restore(
        &self,
        info: &SnapshotInfo,
        pieces: Vec<SnapshotChunk>,
    ) -> Result<Info, RestoreError> {
        let (boot, now) = (self.boot, context::current);
        let SnapshotInfo { applied_term, applied_index, .. } = *info;
        let begin = BeginRestore { boot, applied_term, applied_index };
        let mut state = self.client.begin_restore(now(), begin).await.unwrap()?;
        let restore = state.restore;
        for SnapshotChunk { offset, bytes, checksum, .. } in pieces {
            let write = WriteRestore { boot, restore, offset, bytes, checksum };
            state = self.client.write_restore(now(), write).await.unwrap()?;
        }
        let finish = FinishRestore { boot, restore, snapshot_bytes: state.offset };
        self.client.finish_restore(now(), finish).await.unwrap()
    }
}

/// A batch of commands of term 1.
pub(crate) fn blob<C: AsRef<[u8]>>(commands: &[C]) -> EntryBlob {
    let header =
        EntryHeader { kind: EntryKind::Command, term: 1, time_ms: 0, session: 0, sequence: 0 };
    let mut builder = EntryBlobBuilder::new();
    for command in commands {
        builder.push(&header, command.as_ref());
    }
    builder.finish()
}

pub(crate) fn done(text: &str) -> CommandResult {
    CommandResult::Done(Bytes::copy_from_slice(text.as_bytes()))
}
