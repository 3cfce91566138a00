//! What a snapshot costs those who do not ask for one: `cargo bench -p state-machine --bench snapshot [-- PROGRAM]`.
//!
//! Fills the real process with 256 MiB of pairs and prints how long single batches take with and without a snapshot being read on another
//! connection; how fast another process restores it, and how much memory that takes; and how much disk a snapshot costs that is
//! pinned for long. PROGRAM is another `state-machine` to compare with.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for people at a terminal")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use state_machine::entries::{EntryBlob, EntryBlobBuilder, EntryHeader, EntryKind};
use state_machine::rpc::{
    self, Apply, Attach, BeginRestore, BeginSnapshot, CONTRACT_VERSION, FinishRestore,
    ReadSnapshot, SnapshotChunk, SnapshotInfo, StateMachineServiceClient, WriteRestore,
};
use state_machine::wire::Endpoint;
use tarpc::context::{self, Context};

const KEYS: u64 = 256 << 10;
const VALUE_BYTES: usize = 1 << 10;
const BATCH_ENTRIES: u64 = 512;
const ALONE: Duration = Duration::from_secs(5);
const MIB: f64 = (1 << 20) as f64;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let named = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let program = named.unwrap_or_else(|| env!("CARGO_BIN_EXE_state-machine").to_owned());
    println!("{program}, {} MiB of pairs", (KEYS * VALUE_BYTES as u64) >> 20);
    let source = Daemon::start(&program).await;
    let mut feed = Feed::new(source.connect().await);
    let start = Instant::now();
    for batch in 0..KEYS / BATCH_ENTRIES {
        feed.apply(batch * BATCH_ENTRIES, BATCH_ENTRIES).await;
    }
    println!("filled in {:.1} s", start.elapsed().as_secs_f64());

    let end = Instant::now() + ALONE;
    feed.measure("alone", || Instant::now() >= end).await;
    let (reader, is_done) = read_on_a_thread(source.socket());
    feed.measure("during a snapshot", || is_done.load(Ordering::SeqCst)).await;
    let (info, pieces, took) = reader.join().unwrap();
    let bytes: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
    let size = u32::try_from(bytes).map_or(0.0, f64::from) / MIB;
    println!("read {size:.0} MiB at {:.0} MiB/s", size / took.as_secs_f64());

    restore(&program, &info, pieces, size).await;
    pin_for_long(&source, &mut feed).await;
}

/// The process; killed when dropped.
struct Daemon {
    child: Child,
    data_dir: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Daemon {
    async fn start(program: &str) -> Daemon {
        let data_dir = tempfile::tempdir().unwrap();
        let ready = data_dir.path().join("ready.json");
        let mut command = Command::new(program);
        command.arg("--data-dir").arg(data_dir.path()).args(["--port-base", "0"]);
        let child = command.arg("--ready-file").arg(&ready).stderr(Stdio::null()).spawn().unwrap();
        while fs::metadata(&ready).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Daemon { child, data_dir }
    }

    fn socket(&self) -> PathBuf {
        self.data_dir.path().join("machine.sock")
    }

    async fn connect(&self) -> StateMachineServiceClient {
        connect(self.socket()).await
    }

    /// A line of /proc/PID/status, in MiB.
    fn memory_mib(&self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// What the store takes on disk, journals apart.
    fn disk_mib(&self) -> (f64, f64) {
        let (mut tables, mut journals) = (0.0, 0.0);
        walk(&self.data_dir.path().join("machine"), &mut |path, bytes| {
            let sum = if path.extension().is_some_and(|end| end == "jnl") {
                &mut journals
            } else {
                &mut tables
            };
            *sum += bytes;
        });
        (tables / MIB, journals / MIB)
    }
}

fn walk(directory: &Path, visit: &mut dyn FnMut(&Path, f64)) {
    for item in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = item.path();
        if path.is_dir() {
            walk(&path, visit);
        } else if let Ok(meta) = item.metadata() {
            use std::os::unix::fs::MetadataExt;
            visit(&path, f64::from(u32::try_from(meta.blocks()).unwrap_or(u32::MAX)) * 512.0);
        }
    }
}

async fn connect(socket: PathBuf) -> StateMachineServiceClient {
    let limit = Duration::from_secs(5);
    let client = rpc::connect(&Endpoint::Unix(socket), 1, 1, 1, limit).await.unwrap().client;
    let attach = Attach { contract: CONTRACT_VERSION, cluster: 1, node: 1, boot: 1 };
    client.attach(context::current(), attach).await.unwrap().unwrap();
    client
}

fn patient() -> Context {
    let mut context = context::current();
    context.deadline = Instant::now() + Duration::from_mins(5);
    context
}

/// Applies batches one after the other.
struct Feed {
    client: StateMachineServiceClient,
    next_index: u64,
    seed: u64,
}

impl Feed {
    fn new(client: StateMachineServiceClient) -> Feed {
        Feed { client, next_index: 1, seed: 1 }
    }

    /// Writes so many keys, from that one on.
    async fn apply(&mut self, first_key: u64, keys: u64) -> Duration {
        let entries = self.puts(first_key, keys);
        let request = Apply { boot: 1, first_index: self.next_index, entries };
        self.next_index += keys;
        let start = Instant::now();
        self.client.apply(patient(), request).await.unwrap().unwrap();
        start.elapsed()
    }

    fn puts(&mut self, first_key: u64, keys: u64) -> EntryBlob {
        let kind = EntryKind::Command;
        let header = EntryHeader { kind, term: 1, time_ms: 0, session: 0, sequence: 0 };
        let mut builder = EntryBlobBuilder::new();
        let mut value = vec![0; VALUE_BYTES];
        for key in first_key..first_key + keys {
            // What does not compress, in the binary form of PUT.
            value
                .chunks_mut(8)
                .for_each(|chunk| chunk.copy_from_slice(&self.random().to_le_bytes()));
            let key = format!("key-{key:020}");
            builder.push(&header, &[b"\x01\x01\x18\x00", key.as_bytes(), &value].concat());
        }
        builder.finish()
    }

    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    /// Applies batches of four keys at random, and prints how long they took.
    async fn measure(&mut self, name: &str, is_over: impl Fn() -> bool) {
        let mut took = Vec::new();
        while !is_over() {
            let key = self.random() % (KEYS - 4);
            took.push(self.apply(key, 4).await);
        }
        took.sort_unstable();
        let at =
            |part: usize| took[(took.len() * part / 1000).min(took.len() - 1)].as_secs_f64() * 1e3;
        let (half, tail, worst) = (at(500), at(999), at(1000));
        println!(
            "{name:>18}: {} batches, ms: p50 {half:.2}, p99.9 {tail:.2}, longest {worst:.2}",
            took.len()
        );
    }
}

type Snapshot = (SnapshotInfo, Vec<SnapshotChunk>, Duration);

/// Reads a snapshot as fast as it comes, on a connection and a thread of its own.
fn read_on_a_thread(socket: PathBuf) -> (thread::JoinHandle<Snapshot>, Arc<AtomicBool>) {
    let is_done = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&is_done);
    let reader = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let snapshot = runtime.block_on(read(socket));
        done.store(true, Ordering::SeqCst);
        snapshot
    });
    (reader, is_done)
}

async fn read(socket: PathBuf) -> Snapshot {
    let client = connect(socket).await;
    let start = Instant::now();
    let info = client.begin_snapshot(patient(), BeginSnapshot { boot: 1 }).await.unwrap().unwrap();
    let (mut pieces, mut offset): (Vec<SnapshotChunk>, u64) = (Vec::new(), 0);
    while !pieces.last().is_some_and(|piece| piece.last) {
        let request = ReadSnapshot { boot: 1, snapshot: info.snapshot, offset };
        let piece = client.read_snapshot(patient(), request).await.unwrap().unwrap();
        offset += piece.bytes.len() as u64;
        pieces.push(piece);
    }
    (info, pieces, start.elapsed())
}

async fn restore(program: &str, info: &SnapshotInfo, pieces: Vec<SnapshotChunk>, size: f64) {
    let target = Daemon::start(program).await;
    let client = target.connect().await;
    let before = target.memory_mib("VmRSS");
    let SnapshotInfo { applied_term, applied_index, .. } = *info;
    let begin = BeginRestore { boot: 1, applied_term, applied_index };
    let start = Instant::now();
    let mut longest = Duration::ZERO;
    let mut state = client.begin_restore(patient(), begin).await.unwrap().unwrap();
    let restore = state.restore;
    for SnapshotChunk { offset, bytes, checksum, .. } in pieces {
        let request = WriteRestore { boot: 1, restore, offset, bytes, checksum };
        let start = Instant::now();
        state = client.write_restore(patient(), request).await.unwrap().unwrap();
        longest = longest.max(start.elapsed());
    }
    let finish = FinishRestore { boot: 1, restore, snapshot_bytes: state.offset };
    let finishing = Instant::now();
    client.finish_restore(patient(), finish).await.unwrap().unwrap();
    println!(
        "restored at {:.0} MiB/s; a piece took {:.0} ms at most, the end {:.0} ms; memory grew by {:.0} MiB at most",
        size / start.elapsed().as_secs_f64(),
        longest.as_secs_f64() * 1e3,
        finishing.elapsed().as_secs_f64() * 1e3,
        target.memory_mib("VmHWM") - before,
    );
}

/// Overwrites an eighth of the pairs again and again, and looks at the disk.
async fn pin_for_long(source: &Daemon, feed: &mut Feed) {
    let show = |when: &str| {
        let (tables, journals) = source.disk_mib();
        println!("disk {when}: tables {tables:.0} MiB, journals {journals:.0} MiB");
    };
    for pinned in [false, true, false] {
        let client: StateMachineServiceClient = source.connect().await;
        if pinned {
            client.begin_snapshot(patient(), BeginSnapshot { boot: 1 }).await.unwrap().unwrap();
        }
        show(if pinned { "with a snapshot pinned" } else { "without a snapshot" });
        for _ in 0..8 {
            for batch in 0..KEYS / BATCH_ENTRIES / 8 {
                feed.apply(batch * BATCH_ENTRIES, BATCH_ENTRIES).await;
            }
        }
        show("   after 256 MiB of overwriting");
    }
}
