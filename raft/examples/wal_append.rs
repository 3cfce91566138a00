//! What the log costs on top of the disk: appends of 1, 64 and 1024 entries of 256 bytes, beside a bare write and
//! fdatasync of as many bytes into a zero-filled file, in turns. Also the processor's part alone, on a disk that does nothing.
//!
//! `cargo run --release -p raft --example wal_append -- [DIRECTORY]`

#![expect(clippy::print_stdout, reason = "a program that prints")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft::consensus::{BatchNo, Entry, Index, LogId, Payload, Persist, Term};
use raft::wal::{Disk, DiskFile, Options, RealDisk, Wal};

const ROUNDS: u64 = 400;
const COMMAND_BYTES: usize = 256;
const BARE_FILE_BYTES: usize = 64 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("wal-append-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let started = Instant::now();
    drop(Wal::open(Arc::new(RealDisk), &dir.join("created"), Options::default())?);
    println!("creating a log: {:?}", started.elapsed());
    println!(
        "entries   append p50   bare p50   ratio   append p99    bare p99   encoding per entry"
    );
    for entries in [1, 64, 1024] {
        let (append, bare) = compare(&dir, entries)?;
        let encoding = encoding_only(entries)?;
        let ratio = append[0].as_secs_f64() / bare[0].as_secs_f64();
        println!(
            "{entries:7}   {:>10.1?}   {:>8.1?}   {ratio:5.2}   {:>10.1?}  {:>10.1?}   {encoding:?}",
            append[0], bare[0], append[1], bare[1]
        );
    }
    let started = Instant::now();
    drop(Wal::open(Arc::new(RealDisk), &dir.join("synced"), Options::default())?);
    println!("reopening the log: {:?}", started.elapsed());
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// 50th and 99th percentile of both, measured in turns.
fn compare(
    dir: &Path,
    entries: u64,
) -> Result<([Duration; 2], [Duration; 2]), Box<dyn std::error::Error>> {
    let (mut wal, restored) =
        Wal::open(Arc::new(RealDisk), &dir.join("synced"), Options::default())?;
    let mut next = restored.last.index.0 + 1;
    let bare = File::create(dir.join("bare"))?;
    bare.write_all_at(&vec![0; BARE_FILE_BYTES], 0)?;
    bare.sync_all()?;
    let bytes = vec![7; usize::try_from(entries)? * (COMMAND_BYTES + 21) / 488 * 512 + 512];
    let (mut appends, mut bares, mut offset) = (Vec::new(), Vec::new(), 0);
    for round in 0..ROUNDS {
        let batch = batch(round, next, entries);
        next += entries;
        appends.push(time(|| wal.append(std::slice::from_ref(&batch)))?);
        if offset + bytes.len() > BARE_FILE_BYTES {
            offset = 0;
        }
        bares.push(time(|| {
            bare.write_all_at(&bytes, offset as u64).and_then(|()| bare.sync_data())
        })?);
        offset += bytes.len();
    }
    Ok((percentiles(appends), percentiles(bares)))
}

/// The median cost of an entry on a disk that does nothing.
fn encoding_only(entries: u64) -> Result<Duration, Box<dyn std::error::Error>> {
    let (mut wal, _) = Wal::open(Arc::new(Nowhere), Path::new("/"), Options::default())?;
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let batch = batch(round, 1 + round * entries, entries);
        times.push(time(|| wal.append(std::slice::from_ref(&batch)))?);
    }
    Ok(percentiles(times)[0] / u32::try_from(entries)?)
}

/// A disk that does nothing.
struct Nowhere;

impl Disk for Nowhere {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn create(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(Self))
    }
    fn open(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(Self))
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send>> {
        Ok(Box::new(Self))
    }
}

impl DiskFile for Nowhere {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn resize(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

fn batch(number: u64, first: u64, entries: u64) -> Persist {
    let entry = |index| Entry {
        id: LogId::new(Term(1), Index(index)),
        payload: Payload::Command(vec![7; COMMAND_BYTES].into()),
    };
    let append = (first..first + entries).map(entry).collect();
    Persist { batch: BatchNo(number), append, ..Persist::default() }
}

fn time<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<Duration, E> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed())
}

fn percentiles(mut times: Vec<Duration>) -> [Duration; 2] {
    times.sort_unstable();
    [times[times.len() / 2], times[times.len() * 99 / 100]]
}
