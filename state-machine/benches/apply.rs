//! How fast the real process applies batches: `cargo bench -p state-machine --bench apply [-- PROGRAM]`.
//!
//! A client feeds `PUT` entries (24-byte keys, 256-byte values, keys at random) over the socket file, four batches in
//! flight as raft does, and prints entries per second, and the process's CPU time for each entry. PROGRAM is another `state-machine` to
//! compare with.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for people at a terminal")]

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use state_machine::entries::{EntryBlob, EntryBlobBuilder, EntryHeader, EntryKind};
use state_machine::rpc::{self, Apply, Attach, CONTRACT_VERSION, MAX_APPLIES_IN_FLIGHT};
use state_machine::wire::Endpoint;
use tarpc::context;

const VALUE_BYTES: usize = 256;
const ENTRIES: u64 = 400_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let named = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let program = named.unwrap_or_else(|| env!("CARGO_BIN_EXE_state-machine").to_owned());
    println!(
        "{:>10} {:>10} {:>16} {:>12} {:>14}",
        "machine", "keys", "entries/batch", "entries/s", "CPU µs/entry"
    );
    for (machine, keys) in [("kv", 1_000), ("kv", 1_000_000), ("memory-kv", 1_000_000)] {
        for batch_entries in [1, 16, 256, 2048] {
            run(&program, machine, keys, batch_entries).await;
        }
    }
}

/// Ends the process when the run is over.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn run(program: &str, machine: &str, keys: u64, batch_entries: u64) {
    let data_dir = tempfile::tempdir().unwrap();
    let (daemon, socket) = start(program, data_dir.path(), machine).await;
    let limit = Duration::from_secs(5);
    let client = rpc::connect(&Endpoint::Unix(socket), 1, 1, 1, limit).await.unwrap().client;
    let attach = Attach { contract: CONTRACT_VERSION, cluster: 1, node: 1, boot: 1 };
    client.attach(context::current(), attach).await.unwrap().unwrap();

    let batches = (ENTRIES / batch_entries).min(20_000);
    let mut seed = 1;
    let (start, cpu_start) = (Instant::now(), cpu_us(&daemon));
    let mut in_flight = VecDeque::new();
    for batch in 0..batches {
        if in_flight.len() == MAX_APPLIES_IN_FLIGHT {
            let oldest: tokio::task::JoinHandle<_> = in_flight.pop_front().unwrap();
            oldest.await.unwrap();
        }
        let first_index = batch * batch_entries + 1;
        let entries = random_puts(keys, batch_entries, &mut seed);
        let client = client.clone();
        in_flight.push_back(tokio::spawn(async move {
            let request = Apply { boot: 1, first_index, entries };
            client.apply(context::current(), request).await.unwrap().unwrap();
        }));
    }
    for call in in_flight {
        call.await.unwrap();
    }
    let entries = u32::try_from(batches * batch_entries).unwrap();
    let per_second = f64::from(entries) / start.elapsed().as_secs_f64();
    let cpu = (cpu_us(&daemon) - cpu_start) / f64::from(entries);
    println!("{machine:>10} {keys:>10} {batch_entries:>16} {per_second:>12.0} {cpu:>14.1}");
}

async fn start(program: &str, data_dir: &Path, machine: &str) -> (Daemon, PathBuf) {
    let ready = data_dir.join("ready.json");
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(data_dir).args(["--port-base", "0", "--machine", machine]);
    command.arg("--ready-file").arg(&ready).stderr(Stdio::null());
    let daemon = Daemon(command.spawn().unwrap());
    while fs::metadata(&ready).is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (daemon, data_dir.join("machine.sock"))
}

fn random_puts(keys: u64, count: u64, seed: &mut u64) -> EntryBlob {
    let header =
        EntryHeader { kind: EntryKind::Command, term: 1, time_ms: 0, session: 0, sequence: 0 };
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    let mut builder = EntryBlobBuilder::new();
    for _ in 0..count {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = format!("PUT key-{:020} ", (*seed >> 33) % keys);
        builder.push(&header, &[key.as_bytes(), &value].concat());
    }
    builder.finish()
}

/// CPU time that the process used so far, where /proc tells it (in hundredths of a second).
fn cpu_us(daemon: &Daemon) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.0.id())).unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks =
        after_name.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() * 10_000.0
}
