//! The one loop: sockets, time and commands go into [`Swim`], and what comes out is sent, logged and published.
//!
//! Nothing in it waits: names are resolved and files written beside it, and what cannot be sent at once is lost, which
//! the protocol is made for.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::memory::Memory;
use crate::report::Reporter;
use crate::rpc::{Identity, JoinError, MAX_SEEDS, View};
use crate::seeds::{Resolved, Resolver, Seed};
use crate::server::{Command, MAX_COMMANDS, MemberServer, Published, serve};
use crate::sockets::{Arrived, BindError, Door, Sockets};
use crate::store::{Store, StoreError};
use crate::swim::{Output, Profile, Start, Swim, Tags};
use crate::wire::net::lookup_host;
use crate::wire::{Endpoint, Listener};

/// How long a leaving member stays to tell the others.
const LEAVE_GRACE: Duration = Duration::from_secs(2);
/// How long the advertised host may take to resolve.
const ADVERTISE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the process cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// An address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Our own host name does not resolve.
    #[error(
        "cannot resolve --advertise {host}: {reason}; give a name or address that the others can reach us at"
    )]
    Advertise {
        /// The host.
        host: String,
        /// Why.
        reason: String,
    },
    /// The ready file cannot be written.
    #[error("cannot write the ready file {}: {source}", path.display())]
    ReadyFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else of the system.
    #[error("{what}: {source}")]
    System {
        /// What we were about to do.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl DaemonError {
    /// Exit code of the process: 1 unexpected, 3 address, 4 directory, 11 damaged file.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Bind(_) => 3,
            Self::Store(StoreError::Unwritable { .. } | StoreError::Locked { .. }) => 4,
            Self::Store(StoreError::Damaged { .. }) => 11,
            Self::Advertise { .. } | Self::ReadyFile { .. } | Self::System { .. } => 1,
        }
    }
}

/// Where a member listens, as written to the ready file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// Of the process.
    pub pid: u32,
    /// 16 hexadecimal digits.
    pub id: String,
    /// UDP, as the others know it.
    pub gossip: SocketAddr,
    /// UDP, when it is an introducer.
    pub introducer: Option<SocketAddr>,
    /// TCP.
    pub rpc: SocketAddr,
    /// Socket file, if it could be made.
    pub socket: Option<PathBuf>,
}

/// A member that listens.
pub struct Daemon {
    swim: Swim,
    sockets: Sockets,
    resolver: Resolver,
    reporter: Reporter,
    memory: Memory,
    commands: mpsc::Receiver<Command>,
    published: watch::Sender<Published>,
    addresses: Addresses,
    started: Instant,
    leave_on_terminate: bool,
    /// Accept loops; they end with us.
    _services: JoinSet<()>,
}

impl Daemon {
    /// Locks the directory, binds the sockets, and says that it serves.
    ///
    /// # Errors
    /// See [`DaemonError`]; nothing keeps running then.
    pub async fn start(config: Config) -> Result<Self, DaemonError> {
        let directory = config.data_dir.join("member");
        let (memory, incarnation) = Memory::open(Store::open(&directory)?)?;
        let sockets =
            Sockets::bind(config.bind, config.gossip_port, config.introducer_port).await?;
        let (gossip, introducer) = system("cannot read our own address", sockets.addresses())?;
        let rpc_address = SocketAddr::new(config.bind, config.rpc_port);
        let tcp = Listener::tcp(&rpc_address.to_string()).await;
        let tcp =
            tcp.map_err(|source| BindError { address: rpc_address, protocol: "tcp", source })?;
        let (unix, socket) = listen_on_socket_file(config.data_dir.join("member.sock")).await;
        let addresses = Addresses {
            pid: std::process::id(),
            id: memory.id().to_string(),
            gossip: advertised(&config, gossip).await?,
            introducer,
            rpc: tcp.local_address().unwrap_or(rpc_address),
            socket,
        };
        let started = Instant::now();
        let swim = Swim::new(Start {
            id: memory.id(),
            incarnation,
            profile: Profile {
                name: config.name.clone().unwrap_or_else(|| format!("member-{}", memory.id())),
                address: addresses.gossip,
                tags: memory.tags().clone(),
            },
            keys: config.keys.clone(),
            settings: config.settings,
            seed: rand::rng().random(),
            now_ms: 0,
        });
        let (published, watcher) = watch::channel(publication(&swim, &addresses));
        let (sender, commands) = mpsc::channel(MAX_COMMANDS);
        let server = MemberServer::new(sender, watcher);
        let services = serve([Some(tcp), unix], &server);
        announce(&config, &addresses)?;
        Ok(Self {
            swim,
            sockets,
            resolver: Resolver::new(config.seeds),
            reporter: Reporter::default(),
            memory,
            commands,
            published,
            addresses,
            started,
            leave_on_terminate: config.leave_on_terminate,
            _services: services,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Runs until `stop`; then leaves, if so configured, and keeps what must be kept.
    ///
    /// # Errors
    /// When the last save fails.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = self.turn() => {}
            }
        }
        if self.leave_on_terminate {
            self.leave_and_tell().await;
        }
        if let Some(path) = &self.addresses.socket {
            // A file left behind does no harm: the next process replaces it.
            let _outcome = std::fs::remove_file(path);
        }
        self.memory.finish().await?;
        info!("stopped");
        Ok(())
    }

    async fn leave_and_tell(&mut self) {
        info!("leaving");
        let output = self.swim.leave();
        self.carry_out(output, None);
        let telling = async {
            while self.swim.has_own_news() {
                self.turn().await;
            }
        };
        if timeout(LEAVE_GRACE, telling).await.is_err() {
            debug!("stopping before everyone could be told");
        }
    }

    /// Waits for one thing to happen and deals with it. Loses nothing when cancelled.
    async fn turn(&mut self) {
        let due = self.started + Duration::from_millis(self.swim.next_tick_ms());
        tokio::select! {
            // Time first, so that no flood of datagrams stops it.
            biased;
            () = sleep_until(due) => {
                let output = self.swim.tick(self.now_ms());
                self.carry_out(output, None);
            }
            Some(command) = self.commands.recv() => self.on_command(command),
            resolved = self.resolver.next() => self.on_resolved(resolved),
            () = self.memory.saved() => {}
            arrived = self.sockets.receive() => self.on_arrived(&arrived),
        }
        self.publish();
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn on_arrived(&mut self, arrived: &Arrived) {
        let output = self.swim.handle(self.now_ms(), arrived.from, &arrived.bytes);
        self.carry_out(output, Some((arrived.door, arrived.from)));
    }

    fn on_resolved(&mut self, resolved: Resolved) {
        let own = [Some(self.addresses.gossip), self.addresses.introducer];
        for address in self.resolver.finish(resolved) {
            if !own.contains(&Some(address)) {
                let output = self.swim.join(address);
                self.carry_out(output, None);
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Join(seeds, reply) => answer(reply, self.join(seeds)),
            Command::Leave(reply) => {
                info!("leaving, as asked");
                let output = self.swim.leave();
                self.carry_out(output, None);
                answer(reply, Ok(()));
            }
            Command::SetTags(tags, reply) => {
                self.set_tags(tags);
                answer(reply, Ok(()));
            }
        }
    }

    fn join(&mut self, seeds: Vec<Seed>) -> Result<(), JoinError> {
        self.resolver
            .add(seeds)
            .map_err(|error| JoinError::TooMany { wanted: error.wanted, limit: MAX_SEEDS })?;
        self.swim.come_back();
        self.resolver.try_all();
        Ok(())
    }

    fn set_tags(&mut self, tags: Tags) {
        if *self.swim.tags() != tags {
            info!(
                cluster = tags.cluster.map(|id| format!("{id:032x}")),
                node = tags.node.map(|id| format!("{id:016x}")),
                raft = %tags.raft_address.escape_debug(),
                "tags set"
            );
            self.swim.set_tags(tags);
        }
    }

    fn carry_out(&mut self, output: Output, asked_through: Option<(Door, SocketAddr)>) {
        for datagram in &output.send {
            self.sockets.send(datagram, asked_through);
        }
        if output.try_seeds {
            self.resolver.try_all();
        }
        let now_ms = self.now_ms();
        for event in output.events {
            self.reporter.report(now_ms, event);
        }
    }

    fn publish(&mut self) {
        self.memory.keep(self.swim.own_standing().incarnation, self.swim.tags());
        if self.published.borrow().view.version != self.swim.view_version() {
            self.published.send_replace(publication(&self.swim, &self.addresses));
        }
    }
}

/// A caller that has gone away does not care.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    let _gone = reply.send(value);
}

fn system<T>(what: &'static str, outcome: io::Result<T>) -> Result<T, DaemonError> {
    outcome.map_err(|source| DaemonError::System { what, source })
}

async fn listen_on_socket_file(path: PathBuf) -> (Option<Listener>, Option<PathBuf>) {
    match Listener::unix(&path).await {
        Ok(listener) => (Some(listener), Some(path)),
        Err(error) => {
            warn!(%error, "no socket file; serving by TCP only (is the path longer than 100 bytes?)");
            (None, None)
        }
    }
}

/// The address that the others send to: our host, resolved to the kind of address that we listen on, and our port.
async fn advertised(config: &Config, bound: SocketAddr) -> Result<SocketAddr, DaemonError> {
    let host = config.advertise.trim_start_matches('[').trim_end_matches(']');
    let failed = |reason: String| DaemonError::Advertise { host: host.to_owned(), reason };
    let lookup = timeout(ADVERTISE_TIMEOUT, lookup_host((host, bound.port()))).await;
    let mut found = match lookup {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_elapsed) => return Err(failed("no answer in time".to_owned())),
    };
    found
        .find(|address| address.is_ipv4() == bound.is_ipv4())
        .ok_or_else(|| failed(format!("it has no address of the kind of --bind {}", config.bind)))
}

fn announce(config: &Config, addresses: &Addresses) -> Result<(), DaemonError> {
    let Addresses { id, gossip, introducer, rpc, socket, .. } = addresses;
    let introducer = introducer.map(|address| address.to_string());
    let socket = socket.clone().map(|path| Endpoint::Unix(path).to_string());
    info!(%id, %gossip, introducer, %rpc, socket, sealed = !config.keys.is_empty(), "member serves");
    if config.keys.is_empty() && !config.bind.is_loopback() {
        warn!(
            bind = %config.bind,
            "gossip is not sealed: whoever reaches this port can read it and join; set OUTRIGGER_GOSSIP_KEY or --gossip-key-file"
        );
    }
    match &config.ready_file {
        Some(path) => write_ready_file(path.clone(), addresses),
        None => Ok(()),
    }
}

fn write_ready_file(path: PathBuf, addresses: &Addresses) -> Result<(), DaemonError> {
    let json = serde_json::to_vec(addresses).expect("addresses are plain data");
    let mut temporary = path.clone().into_os_string();
    temporary.push(".tmp");
    let written =
        std::fs::write(&temporary, json).and_then(|()| std::fs::rename(&temporary, &path));
    written.map_err(|source| DaemonError::ReadyFile { path, source })
}

fn publication(swim: &Swim, addresses: &Addresses) -> Published {
    let own = swim.own_standing();
    let identity = Identity {
        id: swim.id().0,
        name: swim.profile().name.clone(),
        gossip_address: addresses.gossip.to_string(),
        introducer_address: addresses.introducer.map(|address| address.to_string()),
        cluster: swim.tags().cluster,
        incarnation: own.incarnation.0,
        tags: swim.tags().clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Published { identity, view: Arc::new(View::of(swim)) }
}
