//! Real member processes on loopback: joined, killed, restarted, misused.
#![cfg(test)]

use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use member::rpc::{
    ConnectionError, JoinError, MemberServiceClient, State, Tags, TagsError, View, connect,
};
use member::wire::Endpoint;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tarpc::client::RpcError;
use tarpc::context;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Far above what anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Polls until there is a value.
async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut poll: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = poll().await {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A process; killed when dropped.
struct Process {
    child: Child,
    addresses: Value,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn command(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_member"));
    command.env_clear().env("RUST_LOG", "info").stderr(Stdio::piped()).stdin(Stdio::null());
    command.arg("--data-dir").arg(directory).args(args);
    command
}

impl Process {
    /// Starts one with quick timings and ports given by the system, and waits until it serves.
    async fn start(directory: &Path, args: &[&str]) -> Self {
        let ready_file = directory.join("ready.json");
        let _none_yet = std::fs::remove_file(&ready_file);
        let timings =
            ["--probe-interval-ms=100", "--probe-timeout-ms=40", "--rejoin-interval-ms=1000"];
        let ready = ["--ready-file", ready_file.to_str().unwrap()];
        let mut command = command(directory, &[&timings[..], &ready, args].concat());
        if !args.iter().any(|arg| arg.starts_with("--port-base")) {
            command.arg("--port-base=0");
        }
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let addresses = eventually("ready file", || async {
            serde_json::from_slice(&std::fs::read(&ready_file).ok()?).ok()
        });
        Self { addresses: addresses.await, child }
    }

    fn address(&self, key: &str) -> SocketAddr {
        self.addresses[key].as_str().unwrap().parse().unwrap()
    }

    fn id(&self) -> u64 {
        u64::from_str_radix(self.addresses["id"].as_str().unwrap(), 16).unwrap()
    }

    async fn client(&self) -> MemberServiceClient {
        let endpoint = Endpoint::Tcp(self.address("rpc").to_string());
        connect(&endpoint, DEADLINE).await.unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    async fn exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("exit", || std::future::ready(child.try_wait().unwrap())).await
    }

    async fn kill(mut self) {
        self.signal(Signal::KILL);
        self.exit().await;
    }

    /// Follows the view by `watch` until it looks as wanted.
    async fn expect(&self, what: &str, wanted: impl Fn(&View) -> bool) -> View {
        let client = self.client().await;
        let start = Instant::now();
        let mut view = View::default();
        while !wanted(&view) {
            assert!(start.elapsed() < DEADLINE, "not in time: {what}; {view:#?}");
            view = client.watch(context::current(), view.version).await.unwrap();
        }
        view
    }

    async fn expect_state(&self, id: u64, state: State) {
        self.expect(&format!("{id:x} {state}"), |view| state_of(view, id) == Some(state)).await;
    }
}

fn state_of(view: &View, id: u64) -> Option<State> {
    view.members.iter().find(|member| member.id == id).map(|member| member.state)
}

/// An introducer and two that joined through it; everyone knows everyone.
async fn three(root: &TempDir) -> (Process, Process, Process) {
    let introducer = Process::start(&root.path().join("a"), &["--introducer", "--name=a"]).await;
    let seed = introducer.address("introducer").to_string();
    let b = Process::start(&root.path().join("b"), &["--seed", &seed, "--name=b"]).await;
    let c = Process::start(&root.path().join("c"), &["--seed", &seed, "--name=c"]).await;
    for process in [&introducer, &b, &c] {
        for other in [&introducer, &b, &c] {
            process.expect_state(other.id(), State::Alive).await;
        }
    }
    (introducer, b, c)
}

#[tokio::test]
async fn members_find_each_other_and_notice_a_death_and_a_return() {
    let root = tempfile::tempdir().unwrap();
    let (a, b, c) = three(&root).await;
    let view = a.expect("three", |view| view.members.len() == 3).await;
    assert!(view.members.is_sorted_by_key(|member| member.id));
    let names: std::collections::BTreeSet<_> =
        view.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"].into());

    let (id, before) = (c.id(), c.client().await.identity(context::current()).await.unwrap());
    c.kill().await;
    a.expect_state(id, State::Dead).await;
    b.expect_state(id, State::Dead).await;

    let seed = a.address("introducer").to_string();
    let c = Process::start(&root.path().join("c"), &["--seed", &seed]).await;
    assert_eq!(c.id(), id);
    let after = c.client().await.identity(context::current()).await.unwrap();
    assert!(after.incarnation > before.incarnation);
    b.expect_state(id, State::Alive).await;
    let view = a.expect("new address", |view| {
        let gossip = c.address("gossip").to_string();
        view.members.iter().any(|member| member.id == id && member.gossip_address == gossip)
    });
    view.await;
}

#[tokio::test]
async fn tags_are_seen_elsewhere_and_kept_over_a_stop() {
    let root = tempfile::tempdir().unwrap();
    let (a, mut b, _c) = three(&root).await;
    let tags = Tags {
        cluster: Some(7),
        node: Some(9),
        raft_address: "127.0.0.1:6004".to_owned(),
        role: "voter".to_owned(),
        ..Tags::default()
    };
    let client = b.client().await;
    client.set_tags(context::current(), tags.clone()).await.unwrap().unwrap();
    assert_eq!(client.identity(context::current()).await.unwrap().cluster, Some(7));
    let wanted =
        |view: &View| view.members.iter().any(|member| member.id == b.id() && member.tags == tags);
    a.expect("tags", wanted).await;

    let long = Tags { raft_address: "x".repeat(300), ..tags.clone() };
    let refused = client.set_tags(context::current(), long).await.unwrap();
    assert!(matches!(refused, Err(TagsError::TooLong { limit: 259, .. })), "{refused:?}");

    b.signal(Signal::TERM);
    assert_eq!(b.exit().await.code(), Some(0));
    let b = Process::start(&root.path().join("b"), &[]).await;
    assert_eq!(b.client().await.identity(context::current()).await.unwrap().tags, tags);
}

#[tokio::test]
async fn an_introducer_that_lost_its_disk_is_found_again() {
    let root = tempfile::tempdir().unwrap();
    let (a, b, c) = three(&root).await;
    let (gossip, introducer) = (a.address("gossip").port(), a.address("introducer").port());
    let old_id = a.id();
    a.kill().await;
    std::fs::remove_dir_all(root.path().join("a")).unwrap();
    std::fs::create_dir(root.path().join("a")).unwrap();
    let (gossip, introducer) =
        (format!("--gossip-port={gossip}"), format!("--introducer-port={introducer}"));
    let a = Process::start(&root.path().join("a"), &["--introducer", &gossip, &introducer]).await;
    assert_ne!(a.id(), old_id);
    for process in [&b, &c] {
        process.expect_state(a.id(), State::Alive).await;
        a.expect_state(process.id(), State::Alive).await;
        process.expect_state(old_id, State::Dead).await;
    }
}

#[tokio::test]
async fn leaving_is_seen_as_such_and_undone_by_joining() {
    let root = tempfile::tempdir().unwrap();
    let (a, b, mut c) = three(&root).await;
    let client = b.client().await;
    client.leave(context::current()).await.unwrap().unwrap();
    client.leave(context::current()).await.unwrap().unwrap();
    a.expect_state(b.id(), State::Left).await;
    b.expect_state(b.id(), State::Left).await;
    client.join(context::current(), vec![a.address("gossip").to_string()]).await.unwrap().unwrap();
    a.expect_state(b.id(), State::Alive).await;

    // A plain stop is no leave.
    c.signal(Signal::TERM);
    assert_eq!(c.exit().await.code(), Some(0));
    a.expect_state(c.id(), State::Dead).await;
    let seed = a.address("gossip").to_string();
    let args = ["--seed", &seed, "--leave-on-terminate"];
    let mut c = Process::start(&root.path().join("c"), &args).await;
    a.expect_state(c.id(), State::Alive).await;
    c.signal(Signal::INT);
    assert_eq!(c.exit().await.code(), Some(0));
    a.expect_state(c.id(), State::Left).await;
}

#[tokio::test]
async fn seeds_by_rpc_are_checked() {
    let root = tempfile::tempdir().unwrap();
    let process = Process::start(root.path(), &[]).await;
    let client = process.client().await;
    let join = async |seeds: Vec<String>| client.join(context::current(), seeds).await.unwrap();
    let malformed = join(vec!["127.0.0.1:1".to_owned(), "nowhere".to_owned()]).await;
    assert!(matches!(malformed, Err(JoinError::Malformed { seed, .. }) if seed == "nowhere"));
    let many = (1..=17).map(|port| format!("127.0.0.1:{port}")).collect();
    assert_eq!(join(many).await, Err(JoinError::TooMany { wanted: 17, limit: 16 }));
    assert_eq!(join(vec!["name.invalid:1".to_owned()]).await, Ok(()));
}

#[tokio::test]
async fn watch_holds_an_unchanged_view_until_shortly_before_the_deadline() {
    let root = tempfile::tempdir().unwrap();
    let process = Process::start(root.path(), &[]).await;
    let client = process.client().await;
    let view = client.watch(context::current(), 0).await.unwrap();
    let mut hurried = context::current();
    hurried.deadline = Instant::now() + Duration::from_secs(1);
    let unchanged = client.watch(hurried, view.version).await.unwrap();
    assert_eq!(unchanged, view);
    let from_an_earlier_run = client.watch(context::current(), view.version + 100).await;
    assert_eq!(from_an_earlier_run.unwrap(), view);
}

#[tokio::test]
async fn the_socket_file_serves_too_and_a_stale_one_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    let process = Process::start(root.path(), &[]).await;
    let id = process.id();
    let path = PathBuf::from(process.addresses["socket"].as_str().unwrap());
    assert_eq!(path, root.path().join("member.sock"));
    process.kill().await;
    assert!(path.exists());
    let _process = Process::start(root.path(), &[]).await;
    let client = connect(&Endpoint::Unix(path), DEADLINE).await.unwrap();
    assert_eq!(client.identity(context::current()).await.unwrap().id, id);
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_file_leaves_tcp() {
    let root = tempfile::tempdir().unwrap();
    let process = Process::start(&root.path().join("d".repeat(120)), &[]).await;
    assert_eq!(process.addresses["socket"], Value::Null);
    assert_eq!(process.client().await.identity(context::current()).await.unwrap().id, process.id());
}

#[tokio::test]
async fn nonsense_on_every_port_harms_nobody() {
    let root = tempfile::tempdir().unwrap();
    let (a, b, _c) = three(&root).await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in [0, 1, 24, 100, 1_400, 1_401, 9_000] {
        for byte in [0, 0xff, b'O'] {
            let bytes = [&b"OG\x01\x00"[..], &vec![byte; length]].concat();
            for port in ["gossip", "introducer"] {
                socket.send_to(&bytes, a.address(port)).unwrap();
                socket.send_to(&bytes[4..], a.address(port)).unwrap();
            }
        }
    }
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4_096], b""] {
        let mut stream = tokio::net::TcpStream::connect(a.address("rpc")).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // Closed, by an end or a reset.
        let _closed =
            tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap();
    }
    a.expect("three alive", |view| {
        view.members.len() == 3 && view.members.iter().all(|member| member.state == State::Alive)
    })
    .await;
    b.expect_state(a.id(), State::Alive).await;
}

#[tokio::test]
async fn calls_to_a_dead_member_fail_with_what_to_look_at() {
    let root = tempfile::tempdir().unwrap();
    let process = Process::start(root.path(), &[]).await;
    let client = process.client().await;
    let endpoint = Endpoint::Tcp(process.address("rpc").to_string());
    process.kill().await;
    eventually("shutdown", || async {
        matches!(client.identity(context::current()).await, Err(RpcError::Shutdown)).then_some(())
    })
    .await;
    let error = connect(&endpoint, DEADLINE).await.err().unwrap();
    assert!(matches!(error, ConnectionError::Unreachable { .. }));
    assert!(error.to_string().contains(&endpoint.to_string()), "{error}");
}

/// Runs one to its end; exit code and log.
fn fail(directory: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = command(directory, args).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn what_cannot_work_ends_with_its_exit_code_and_says_why() {
    let root = tempfile::tempdir().unwrap();
    let (first, second) = (root.path().join("first"), root.path().join("second"));
    let process = Process::start(&first, &[]).await;
    let taken = format!("--gossip-port={}", process.address("gossip").port());
    let taken_rpc = format!("--rpc-port={}", process.address("rpc").port());
    std::fs::write(root.path().join("file"), "").unwrap();
    std::fs::write(root.path().join("bad.toml"), "bindd = 1").unwrap();
    let toml = format!("--config={}", root.path().join("bad.toml").display());
    std::fs::create_dir_all(root.path().join("damaged/member")).unwrap();
    std::fs::write(root.path().join("damaged/member/identity"), "OUTRMEMB\x01nonsense").unwrap();
    let any = "--port-base=0";
    for (directory, args, code, expected) in [
        (&first, vec![any], 4, "held by another member process"),
        (&root.path().join("file/x"), vec![any], 4, "cannot write"),
        (&second, vec![any, &taken], 3, "cannot listen on 127.0.0.1"),
        (&second, vec![any, &taken_rpc], 3, "/tcp"),
        (&second, vec!["--port-base=65535"], 2, "must be 0 to 65530"),
        (&second, vec!["--port-base=65536"], 2, "65536"),
        (&second, vec!["--seed=nowhere"], 2, "host:port"),
        (&second, vec!["--no-such-flag"], 2, "--no-such-flag"),
        (&second, vec![&toml], 2, "bindd"),
        (&second, vec![any, "--bind=0.0.0.0", "--advertise=name.invalid"], 1, "name.invalid"),
        (&root.path().join("damaged"), vec![any], 11, "identity is damaged"),
    ] {
        let (exit_code, log) = fail(directory, &args);
        assert_eq!(exit_code, Some(code), "{args:?}: {log}");
        assert!(log.contains(expected), "{args:?}: {log}");
    }
}
