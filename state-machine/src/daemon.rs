//! The process: opens the machine, serves it on TCP and on a socket file, and stops in order.
//!
//! ```text
//!   raft ══ tcp, machine.sock ══▶ Connection ─▶ queue ─▶ thread: Host ─▶ Machine
//! ```

use std::fs::{self, File, TryLockError};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::attachment::{AttachmentFile, replace_file};
use crate::config::{Config, MachineKind};
use crate::host::Host;
use crate::kv::{DiskEngine, Kv, MemoryEngine};
use crate::machine::{Machine, MachineError};
use crate::register::Register;
use crate::rpc::{self, ServeError};
use crate::server::Connection;
use crate::wire::{Io, Listener};
use crate::worker::{self, Ended, MachineHandle};

/// The most connections served at a time; raft needs two.
pub const MAX_CONNECTIONS: usize = 64;

/// How long answers may take to leave when the process stops.
const FLUSH_WAIT: Duration = Duration::from_millis(50);
/// Pause after a failed accept, which is for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the process ends other than by order.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {path}: {source}")]
    Directory {
        /// What was tried.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has the data directory.
    #[error(
        "{path} is locked: another state-machine runs on this data directory; stop it, or give this one another --data-dir"
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The addresses cannot be listened on.
    #[error("{0}; is another node there already? Choose another --port-base")]
    Listen(io::Error),
    /// The ready file cannot be written.
    #[error("cannot write the ready file {path}: {source}")]
    ReadyFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The machine is broken.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The machine's thread could not start, or it panicked; a panic has printed its reason.
    #[error("the machine's thread {0}")]
    Thread(String),
}

impl DaemonError {
    /// The process's exit code: 1 unexpected, 3 cannot listen, 4 data directory, 11 damaged files, 13 a write or sync failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            DaemonError::Thread(_) => 1,
            DaemonError::Listen(_) => 3,
            DaemonError::Directory { .. }
            | DaemonError::Locked { .. }
            | DaemonError::ReadyFile { .. } => 4,
            DaemonError::Machine(MachineError::Damaged { .. }) => 11,
            DaemonError::Machine(MachineError::Storage { .. }) => 13,
        }
    }
}

/// Runs until `stop` resolves, then drains and syncs.
///
/// # Errors
/// [`DaemonError`]: what was answered before holds, and nothing else was answered.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
    let directory = config.data_dir.join("machine");
    let _lock = lock(&directory)?;
    match config.machine {
        MachineKind::Kv => {
            let machine = Kv::new(DiskEngine::open(&directory)?);
            run_machine(&config, &directory, machine, stop).await
        }
        MachineKind::MemoryKv => {
            run_machine(&config, &directory, Kv::new(MemoryEngine::new()), stop).await
        }
        MachineKind::Register => run_machine(&config, &directory, Register::new(), stop).await,
    }
}

/// Makes the directory and keeps other processes out of it, until the file is closed.
fn lock(directory: &Path) -> Result<File, DaemonError> {
    let path = directory.join("lock");
    let refused = |source| DaemonError::Directory { path: path.clone(), source };
    fs::create_dir_all(directory).map_err(refused)?;
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(refused)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DaemonError::Locked { path: path.clone() }),
        Err(TryLockError::Error(error)) => Err(refused(error)),
    }
}

async fn run_machine<M: Machine>(
    config: &Config,
    directory: &Path,
    machine: M,
    stop: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    let (name, applied) = (machine.name(), machine.applied());
    info!(machine = name, applied_index = applied.index, path = %directory.display(), "opened");
    let host = Host::new(machine, Box::new(AttachmentFile::new(directory)))?;
    let (handle, mut ended) = worker::spawn(host, config.sync)
        .map_err(|error| DaemonError::Thread(format!("could not start: {error}")))?;
    let door = Door::open(config).await?;
    door.announce(config, name)?;
    let stopping = CancellationToken::new();
    let tasks = door.serve(&handle, &stopping);
    let outcome = tokio::select! {
        () = stop => {
            info!("stopping: taking no more calls");
            handle.stop();
            end_of(&mut ended).await
        }
        outcome = end_of(&mut ended) => outcome,
    };
    stopping.cancel();
    tasks.wait().await;
    if outcome.is_ok() {
        info!("stopped");
    }
    outcome
}

async fn end_of(ended: &mut Ended) -> Result<(), DaemonError> {
    match ended.await {
        Ok(outcome) => Ok(outcome?),
        Err(_dropped) => Err(DaemonError::Thread("panicked".to_owned())),
    }
}

/// The two places to knock at.
struct Door {
    tcp: Listener,
    address: SocketAddr,
    unix: Option<(Listener, PathBuf)>,
}

/// What the ready file says.
#[derive(Serialize)]
struct Ready<'a> {
    pid: u32,
    machine: &'a str,
    tcp: SocketAddr,
    unix: Option<&'a Path>,
}

impl Door {
    async fn open(config: &Config) -> Result<Door, DaemonError> {
        let wanted = SocketAddr::new(config.bind, config.port);
        let tcp = Listener::tcp(&wanted.to_string()).await.map_err(DaemonError::Listen)?;
        let address = tcp.local_address().unwrap_or(wanted);
        let path = config.data_dir.join("machine.sock");
        let unix = match Listener::unix(&path).await {
            Ok(listener) => Some((listener, path)),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                warn!(%error, "the socket file's path is too long, serving on TCP only");
                None
            }
            Err(error) => return Err(DaemonError::Listen(error)),
        };
        Ok(Door { tcp, address, unix })
    }

    /// Says where it listens: in the log, and in the ready file.
    fn announce(&self, config: &Config, machine: &str) -> Result<(), DaemonError> {
        let unix = self.unix.as_ref().map(|(_, path)| path.as_path());
        let shown = unix.map(|path| path.display().to_string());
        info!(tcp = %self.address, unix = shown, "serving");
        if !config.bind.is_loopback() {
            warn!(bind = %config.bind, "anyone who reaches this address can attach: there is no authentication");
        }
        let Some(path) = &config.ready_file else { return Ok(()) };
        let ready = Ready { pid: std::process::id(), machine, tcp: self.address, unix };
        let json = serde_json::to_string(&ready).map_err(io::Error::other);
        json.and_then(|json| replace_file(path, format!("{json}\n").as_bytes()))
            .map_err(|source| DaemonError::ReadyFile { path: path.clone(), source })
    }

    fn serve<M: Machine>(
        self,
        machine: &MachineHandle<M>,
        stopping: &CancellationToken,
    ) -> TaskTracker {
        let tasks = TaskTracker::new();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let listeners = [Some(self.tcp), self.unix.map(|(listener, _)| listener)];
        for listener in listeners.into_iter().flatten() {
            let acceptor = Acceptor {
                machine: machine.clone(),
                room: Arc::clone(&room),
                tasks: tasks.clone(),
                stopping: stopping.clone(),
            };
            let stopping = stopping.clone();
            tasks.spawn(async move {
                stopping.run_until_cancelled(acceptor.accept_from(listener)).await;
            });
        }
        tasks.close();
        tasks
    }
}

/// Takes connections of one listener.
struct Acceptor<M> {
    machine: MachineHandle<M>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl<M: Machine> Acceptor<M> {
    async fn accept_from(self, listener: Listener) {
        loop {
            match listener.accept().await {
                Ok(io) => self.welcome(io),
                Err(error) => {
                    warn!(%error, "cannot accept a connection, trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn welcome(&self, io: Io) {
        let place = Arc::clone(&self.room).try_acquire_owned().ok();
        let service = Connection::new(self.machine.clone());
        let serving = rpc::serve(io, place.is_some(), service);
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            report(until_stopped(serving, &stopping).await);
            drop(place);
        });
    }
}

/// Serves on; once the process stops, just long enough for answers that are ready to leave.
async fn until_stopped(
    serving: impl Future<Output = Result<(), ServeError>>,
    stopping: &CancellationToken,
) -> Result<(), ServeError> {
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        outcome = &mut serving => outcome,
        () = stopping.cancelled() => {
            tokio::time::timeout(FLUSH_WAIT, serving).await.unwrap_or(Ok(()))
        }
    }
}

fn report(outcome: Result<(), ServeError>) {
    match outcome {
        Ok(()) => debug!("connection closed"),
        Err(error) => warn!(%error, "connection ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supervisors_can_tell_what_happened() {
        let source = || io::Error::other("x");
        let path = PathBuf::from("x");
        let doing = "x";
        let cases: [(DaemonError, u8); 7] = [
            (DaemonError::Thread("panicked".to_owned()), 1),
            (DaemonError::Listen(source()), 3),
            (DaemonError::Directory { path: path.clone(), source: source() }, 4),
            (DaemonError::Locked { path: path.clone() }, 4),
            (DaemonError::ReadyFile { path, source: source() }, 4),
            (MachineError::Damaged { doing, what: String::new() }.into(), 11),
            (MachineError::Storage { doing, source: source() }.into(), 13),
        ];
        for (error, code) in cases {
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }
}
