//! From settings to a running process, and to its exit code.

mod error;
mod stored;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinSet};

pub use self::error::RunError;
pub use self::stored::{Places, Stored};

use crate::config::{Bootstrap, Config};
use crate::consensus::{self, HardState, Index, LogId, Membership, NodeInfo, Raft, Restored};
use crate::http;
use crate::identity::{DataDir, IdentityError};
use crate::keeper::{Keeper, MAX_ORDERS, TURN_LASTS};
use crate::leaving::{ASK_EVERY, Leaver, Leaving};
use crate::machine_link::{self, Feeder};
use crate::metrics::Metrics;
use crate::node::Node;
use crate::peers::Peers;
use crate::pipeline::digest_commits::{CommitsEvent, DigestCommits, MachineCall};
use crate::pipeline::digest_entries::{DigestEntries, EntriesEvent};
use crate::room::Room;
use crate::roster::{Autopilot, Policy};
use crate::roster_link::{self, Sight};
use crate::rpc::wire::{Endpoint, Listener};
use crate::server::{self, Shared};
use crate::session::Image;
use crate::shelf::Shelf;
use crate::snapshot::Store;
use crate::tasks::{CommitsTask, EntriesTask, LogFailure, QUEUE_EVENTS, Synced, log_events};
use crate::transfer::{Receiver, Senders, SendersContext};
use crate::wal::{Disk, RealDisk, Wal, Writer};

/// Most bytes of entries in one append.
const MAX_APPEND_BYTES: usize = 1024 * 1024;
/// Appends in flight to one peer.
const WINDOW_MESSAGES: usize = 16;
/// Bytes in flight to one peer.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that a leader appends before the oldest of them is committed.
const MAX_UNCOMMITTED_BYTES: usize = 64 * 1024 * 1024;
/// Longest random delay before the early pre-vote after a leader's death, in ticks.
const LINK_LOST_TICKS_MAX: u32 = 3;
/// Payloads that are read at start, in bytes: enough for followers that are a little behind. The rest is read when asked for.
const TAIL_BYTES: usize = 4 * 1024 * 1024;
/// The wish to leave is forgotten after so many questions that did not come.
const QUESTIONS_TO_FORGET: u32 = 10;
/// Those who want to leave within this time of each other leave together.
const LEAVE_SETTLE: Duration = Duration::from_millis(300);
/// Calls that wait for the link to the state machine.
const QUEUE_CALLS: usize = 64;

/// What the process was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// To run.
    #[default]
    Run,
    /// To leave the cluster, or else to stop as a member of it.
    Leave,
    /// To stop.
    Stop,
}

/// Runs until it is told to end, or until an operator has made it leave; then drains and syncs.
///
/// # Errors
/// See [`RunError`]. Nothing that was acknowledged is lost by any of them.
pub async fn run(config: Config, wish: watch::Receiver<Wish>) -> Result<(), RunError> {
    let opened = Opened::open(config).await?;
    let (failed, failures) = mpsc::channel(1);
    let (config, ports) = (opened.config.clone(), opened.ports);
    let (owners, draining, connections) = opened.start(failed, wish)?;
    announce(&config, ports)?;
    attend(owners, draining, failures).await?;
    connections.finish().await;
    Ok(())
}

/// Tells the first stage to stop when it is time.
async fn heed(mut wish: watch::Receiver<Wish>, leaving: Arc<Leaving>, stop: watch::Sender<bool>) {
    let told = async {
        let first = wish.wait_for(|wish| *wish != Wish::Run).await.map(|wish| *wish);
        if first.is_ok_and(|wish| wish == Wish::Leave) {
            leaving.begin();
            tokio::select! {
                _outcome = leaving.outcome() => {}
                _second = wish.wait_for(|wish| *wish == Wish::Stop) => {}
            }
        }
    };
    tokio::select! {
        () = told => {}
        () = leaving.left() => {}
    }
    stop.send_replace(true);
}

/// Where this process listens.
#[derive(Clone, Copy, Debug)]
struct Ports {
    raft: u16,
    http: u16,
}

/// Everything that can fail at start, done.
struct Opened {
    config: Config,
    node: Arc<Node>,
    founding: bool,
    wal: Wal,
    restored: Restored,
    store: Store,
    /// The session table of the newest snapshot.
    image: Option<Image>,
    listener: Listener,
    http_listener: Listener,
    ports: Ports,
}

impl Opened {
    async fn open(config: Config) -> Result<Self, RunError> {
        let mut data_dir = DataDir::open(&config.data_dir.join("raft"))?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let Stored { wal, restored, store, image } =
            Stored::open(&disk, &Places::of(&config, &data_dir))?;
        let is_blank =
            restored.last == LogId::default() && restored.hard_state == HardState::default();
        data_dir.begin_boot(is_blank)?;
        let (listener, raft) = listen(&config, config.raft_port).await?;
        let (http_listener, http) = listen(&config, config.http_port).await?;
        let ports = Ports { raft, http };
        let advertised = |port| format!("{}:{port}", bracketed(&config.advertise));
        let founding = data_dir.identity().founding;
        let name = config.name.clone();
        let node = Arc::new(Node::new(data_dir, name, advertised(raft), advertised(http)));
        tracing::info!(
            node = %node.id, boot = node.boot, name = node.name, last = %restored.last,
            snapshot = restored.snapshot.as_ref().map_or(0, |meta| meta.last.index.0),
            term = restored.hard_state.term.0, fsync = config.fsync, "starting"
        );
        Ok(Self {
            config,
            node,
            founding,
            wal,
            restored,
            store,
            image,
            listener,
            http_listener,
            ports,
        })
    }

    /// Wires stages and links together as drawn in the crate's documentation. Returns their tasks, which of them
    /// ends last when the process is told to stop, and the connections by HTTP.
    fn start(
        self,
        failed: mpsc::Sender<LogFailure>,
        wish: watch::Receiver<Wish>,
    ) -> io::Result<(JoinSet<()>, task::Id, http::Connections)> {
        let Self { config, node, founding, wal, restored, store, image, .. } = self;
        let (listener, http_listener) = (self.listener, self.http_listener);
        let metrics = Arc::<Metrics>::default();
        let known = restored.snapshot.as_ref().map_or(Index(0), |meta| meta.last.index);
        metrics.log_grown_bytes.store(wal.bytes_after(known), Ordering::Relaxed);
        let (inbox, inbox_events) = mpsc::channel(QUEUE_EVENTS);
        let (commits, commits_events) = mpsc::channel(QUEUE_EVENTS);
        let (calls, calls_queue) = mpsc::channel(QUEUE_CALLS);
        let (synced, synced_seen) = watch::channel(Synced::default());
        let (sight, sight_seen) = watch::channel(Sight::default());
        let (leader, leader_seen) = watch::channel(None);
        let (stop, stopping) = watch::channel(false);
        let (snapshot_orders, orders) = mpsc::channel(MAX_ORDERS);
        let (machine_wish, machine_wishes) = watch::channel(false);
        let shelf = Shelf::new(store.clone(), failed.clone());
        let leaving = Arc::<Leaving>::default();
        let connections = http::Connections::new(stopping.clone());
        let log =
            Writer::spawn(wal, log_events(inbox.clone(), synced, failed, Arc::clone(&metrics)))?;

        if let Some(again) = overdue_compaction(&store) {
            // The queue is new.
            inbox.try_send(again).expect("there is room for the first event");
        }
        let first = image.as_ref().map_or(first_index(&restored), |image| image.folded().next());
        let empty = restored.last.index == Index(0);
        let log_time_ms = image.as_ref().map_or(0, Image::time_ms);
        let stage = entries_stage(&config, &node, restored, first).after_time(log_time_ms);
        let second_stage = DigestCommits::new(first, image);
        let (status, commits_status) = watch::channel(second_stage.status());
        let peers = Peers::new(Arc::clone(&node), inbox.clone(), Arc::clone(&metrics));
        let shared = Shared {
            node: Arc::clone(&node),
            inbox: inbox.clone(),
            routes: peers.routes(),
            commits: commits_status,
            sight: sight_seen.clone(),
            leader: leader_seen,
            leaving: Arc::clone(&leaving),
            snapshot_orders,
            receiver: Arc::new(Receiver::new(
                shelf.clone(),
                Arc::clone(&node),
                inbox.clone(),
                Arc::clone(&metrics),
            )),
            election_timeout: config.tick * config.election_ticks_max,
            tick: config.tick,
            request_timeout: config.request_timeout,
            fsync: config.fsync,
            metrics: Arc::clone(&metrics),
        };
        let senders = Senders::new(SendersContext {
            node: Arc::clone(&node),
            shelf: shelf.clone(),
            inbox: inbox.clone(),
            routes: shared.routes.clone(),
            bytes_per_s: config.snapshot_bytes_per_s,
            metrics: Arc::clone(&metrics),
        });
        let keeper = Keeper {
            store,
            node: Arc::clone(&node),
            inbox: inbox.clone(),
            commits: commits.clone(),
            status: shared.commits.clone(),
            machine: config.state_machine.clone(),
            routes: shared.routes.clone(),
            leader: shared.leader.clone(),
            wish: machine_wishes,
            orders,
            schedule: config.snapshot_schedule,
            bytes_per_s: config.snapshot_bytes_per_s,
            metrics: Arc::clone(&metrics),
        };
        let entries_task = EntriesTask {
            stage,
            inbox: inbox_events,
            synced: synced_seen.clone(),
            log,
            peers,
            senders,
            keep_trailing_bytes: config.keep_trailing_bytes,
            commits: commits.clone(),
            leader,
            tick: config.tick,
            metrics,
        };
        let commits_task = CommitsTask {
            stage: second_stage,
            inbox: commits_events,
            entries: inbox.clone(),
            calls,
            status,
        };

        let mut owners = JoinSet::new();
        let draining = owners.spawn(entries_task.run(stopping)).id();
        owners.spawn(heed(wish, Arc::clone(&leaving), stop));
        owners.spawn(
            Leaver {
                leaving,
                node: Arc::clone(&node),
                inbox: inbox.clone(),
                routes: shared.routes.clone(),
                member: config.member.clone(),
                limit: config.leave_timeout,
            }
            .run(),
        );
        owners.spawn(commits_task.run());
        owners.spawn(keeper.run());
        owners.spawn(feed_machine(
            config.state_machine.clone(),
            Arc::clone(&node),
            shelf,
            machine_wish,
            commits,
            calls_queue,
        ));
        owners.spawn(roster_link::run(
            config.member.clone(),
            Arc::clone(&node),
            shared.commits.clone(),
            sight,
            inbox.clone(),
        ));
        let room = Room::make();
        owners.spawn(http::run(http_listener, shared.clone(), room.http, connections.clone()));
        owners.spawn(server::run(listener, shared, room));
        if empty && (founding || config.bootstrap.is_some()) {
            owners.spawn(bootstrap(config, node, founding, sight_seen, synced_seen, inbox));
        }
        Ok((owners, draining, connections))
    }
}

/// Waits for the end: an orderly one, the log's, or a panic of a task that owns state.
async fn attend(
    mut owners: JoinSet<()>,
    draining: task::Id,
    mut failures: mpsc::Receiver<LogFailure>,
) -> Result<(), RunError> {
    loop {
        tokio::select! {
            // A failed last sync is told before the task that waited for it ends: then both are ready.
            biased;
            Some(failure) = failures.recv() => return Err(failure.into()),
            Some(ended) = owners.join_next_with_id() => match ended {
                Ok((task, ())) if task == draining => return Ok(()),
                Ok(_) => {}
                Err(error) if error.is_panic() => return Err(RunError::Panic(panic_text(error))),
                Err(_cancelled) => {}
            },
        }
    }
}

/// Listens on a port of the setting's address; the port is another one than wished if that was any.
async fn listen(config: &Config, port: u16) -> Result<(Listener, u16), RunError> {
    let address = SocketAddr::new(config.bind, port).to_string();
    let listener = Listener::tcp(&address).await.map_err(RunError::Listen)?;
    let port = listener.local_address().map_or(port, |address| address.port());
    Ok((listener, port))
}

/// First entry that the log holds.
fn first_index(restored: &Restored) -> Index {
    restored.base.as_ref().map_or(Index(1), |base| base.last.index.next())
}

/// What is to be compacted after the snapshots that are here: the process before may have ended when it had one, and had not said
/// that to its log.
fn overdue_compaction(store: &Store) -> Option<EntriesEvent> {
    let kept = store.all();
    let (oldest, newest) = (kept.first()?, kept.last()?);
    let oldest = oldest.meta.last.index;
    Some(EntriesEvent::SnapshotTaken { meta: newest.meta.clone(), oldest })
}

fn entries_stage(config: &Config, node: &Node, restored: Restored, first: Index) -> DigestEntries {
    let tail = restored.tail.clone();
    let raft = Raft::new(
        consensus::Config {
            id: node.id,
            seed: rand::random(),
            heartbeat_ticks: config.heartbeat_ticks,
            election_ticks_min: config.election_ticks_min,
            election_ticks_max: config.election_ticks_max,
            link_lost_ticks_max: LINK_LOST_TICKS_MAX,
            max_append_bytes: MAX_APPEND_BYTES,
            window_messages: WINDOW_MESSAGES,
            window_bytes: WINDOW_BYTES,
            log_cache_bytes: config.log_cache_bytes,
            max_uncommitted_bytes: MAX_UNCOMMITTED_BYTES,
        },
        restored,
    );
    let ticks = |time: Duration| {
        u64::try_from(time.as_nanos().div_ceil(config.tick.as_nanos())).unwrap_or(u64::MAX)
    };
    let policy = Policy {
        target_voters: config.target_voters,
        max_learners: config.max_learners,
        min_voters: config.min_voters,
        promote_after_ticks: ticks(config.promote_after),
        dead_after_ticks: ticks(config.dead_after),
        wish_ticks: ticks(ASK_EVERY * QUESTIONS_TO_FORGET),
        settle_ticks: ticks(LEAVE_SETTLE),
        silent_ticks: config.election_ticks_min,
    };
    DigestEntries::new(raft, &tail, first, Autopilot::new(policy)).with_turns(ticks(TURN_LASTS))
}

/// The state machine is told whose it is, so its link waits until this node knows its cluster.
async fn feed_machine(
    machine: Endpoint,
    node: Arc<Node>,
    shelf: Shelf,
    wish: watch::Sender<bool>,
    commits: mpsc::Sender<CommitsEvent>,
    calls: mpsc::Receiver<MachineCall>,
) {
    let feeder = Feeder { cluster: node.known_cluster().await, node: node.id, boot: node.boot };
    machine_link::run(machine, feeder, Arc::new(shelf), wish, commits, calls).await;
}

/// Founds a cluster with this node as its only voter, unless gossip shows that there is one already. Also completes a
/// founding that a crash has interrupted.
async fn bootstrap(
    config: Config,
    node: Arc<Node>,
    founding: bool,
    sight: watch::Receiver<Sight>,
    synced: watch::Receiver<Synced>,
    inbox: mpsc::Sender<EntriesEvent>,
) {
    let looks_first = !founding && config.bootstrap == Some(Bootstrap::Window);
    if looks_first && cluster_appears(sight, config.discovery_window).await {
        tracing::info!("gossip shows an existing cluster: waiting to be taken in");
    } else if let Err(error) = found(&node, founding, synced, &inbox).await {
        tracing::error!(%error, "cannot found a cluster");
    }
}

/// Whether gossip shows a cluster within the window, which begins when there is a member daemon to ask.
async fn cluster_appears(mut sight: watch::Receiver<Sight>, window: Duration) -> bool {
    tracing::info!(window_ms = window.as_millis(), "looking for an existing cluster");
    if sight.wait_for(Sight::is_connected).await.is_err() {
        return true;
    }
    let exists = sight.wait_for(|sight| !sight.clusters.is_empty());
    tokio::time::timeout(window, exists).await.is_ok()
}

async fn found(
    node: &Node,
    founding: bool,
    mut synced: watch::Receiver<Synced>,
    inbox: &mpsc::Sender<EntriesEvent>,
) -> Result<(), IdentityError> {
    if !founding {
        if node.cluster().is_some() {
            return Ok(());
        }
        node.found_cluster()?;
    }
    let info = NodeInfo {
        name: node.name.clone(),
        raft_address: node.raft_address.clone(),
        http_address: node.http_address.clone(),
    };
    let membership = Membership {
        voters: [node.id].into(),
        nodes: [(node.id, info)].into(),
        ..Membership::default()
    };
    if inbox.send(EntriesEvent::Bootstrap(membership)).await.is_err()
        || synced.wait_for(|synced| synced.anything()).await.is_err()
    {
        return Ok(());
    }
    node.finish_founding()
}

/// Says where this process listens, to people and to the ready file.
fn announce(config: &Config, ports: Ports) -> Result<(), RunError> {
    let address = SocketAddr::new(config.bind, ports.raft);
    let http = SocketAddr::new(config.bind, ports.http);
    tracing::info!(%address, %http, advertise = config.advertise, "serving peers and clients");
    let Some(path) = &config.ready_file else { return Ok(()) };
    let ready = serde_json::json!({
        "pid": std::process::id(), "raft": address.to_string(), "http": http.to_string(),
    });
    write_whole(path, &format!("{ready}\n"))
        .map_err(|source| RunError::ReadyFile { path: path.display().to_string(), source })
}

fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, text)?;
    fs::rename(temporary, path)
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn panic_text(error: task::JoinError) -> String {
    let panic = error.into_panic();
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("panic without a text")
        .to_owned()
}

/// How long the process may take to end after a signal, before it is cut short.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use state_machine::startup;

    use super::*;
    use crate::config::Settings;
    use crate::consensus::{BatchNo, Entry, Payload, Persist, Term};
    use crate::continuity::Discontinuity;
    use crate::wal::{Damage, ReadError, WriteError};

    #[tokio::test]
    async fn a_failed_last_sync_is_no_clean_stop() {
        for _ in 0..64 {
            let (failed, failures) = mpsc::channel(1);
            let mut owners = JoinSet::new();
            let draining =
                owners.spawn(async move { failed.try_send(WriteError::Panicked.into()).unwrap() });
            let draining = draining.id();
            task::yield_now().await;
            let end = attend(owners, draining, failures).await;
            assert!(matches!(end, Err(RunError::LogFailed(_))), "{end:?}");
        }
    }

    /// Others that go on for ever, as heartbeats would, do not hold it up.
    #[tokio::test]
    async fn a_panic_of_a_task_that_owns_state_ends_the_process() {
        let (_failed, failures) = mpsc::channel(1);
        let mut owners = JoinSet::new();
        let draining = owners.spawn(std::future::pending()).id();
        owners.spawn(async { panic!("as this test asks for") });
        let end = attend(owners, draining, failures).await;
        assert!(matches!(&end, Err(RunError::Panic(text)) if text.contains("asks")), "{end:?}");
    }

    #[test]
    fn damage_found_while_running_is_told_from_a_failed_write() {
        let damage = Damage {
            file: "segment".into(),
            offset: 512,
            what: "a wrong checksum".to_owned(),
            affected: "entries 7 to 9".to_owned(),
        };
        for (failure, code) in [
            (LogFailure::Read(ReadError::Damaged(damage)), 11),
            (LogFailure::Read(ReadError::Stopped), 13),
            (LogFailure::Write(WriteError::Stopped), 13),
            (LogFailure::TooSlow, 13),
        ] {
            let error = RunError::from(failure);
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }

    #[test]
    fn a_log_that_begins_beyond_the_snapshots_needs_an_operator() {
        let gap = Discontinuity::Gap { base: Index(9), snapshot: Some(Index(7)) };
        assert_eq!(RunError::from(gap).exit_code(), 11);
    }

    fn config(data_dir: &Path) -> Config {
        let data_dir = data_dir.to_str().unwrap();
        let flags = ["raft", "--data-dir", data_dir, "--port-base", "0"];
        startup::load::<Settings>(flags).unwrap().config
    }

    #[tokio::test]
    async fn a_log_without_its_identity_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        drop(Opened::open(config.clone()).await.unwrap());
        let raft = dir.path().join("raft");
        let data_dir = DataDir::open(&raft).unwrap();
        let places = Places::of(&config, &data_dir);
        let (mut wal, _) = Wal::open(Arc::new(RealDisk), &places.wal, places.log.clone()).unwrap();
        let id = LogId::new(Term(1), Index(1));
        let persist = Persist {
            batch: BatchNo(1),
            hard_state: Some(HardState { term: Term(1), vote: None }),
            append: vec![Entry { id, payload: Payload::Noop }],
            ..Persist::default()
        };
        wal.append(&[persist]).unwrap();
        drop((wal, data_dir));
        fs::remove_file(raft.join("identity")).unwrap();
        let refused = Opened::open(config).await.err().expect("it must not start");
        assert_eq!(refused.exit_code(), 11, "{refused}");
        assert!(!raft.join("identity").exists(), "nothing was changed");
    }
}
