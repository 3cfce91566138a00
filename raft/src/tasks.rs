//! The tasks around the two stages: they wait, the stages decide.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::consensus::{BatchNo, Envelope, Event, HardState, LogId, Message, NodeId, RoleName};
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::pipeline::ToCommits;
use crate::pipeline::digest_commits::{CommitsEvent, CommitsStatus, DigestCommits, MachineCall};
use crate::pipeline::digest_entries::{DigestEntries, EntriesActions, EntriesEvent, FetchFor};
use crate::roster::Candidate;
use crate::snapshot::SnapshotDamage;
use crate::transfer::Senders;
use crate::wal::{ReadError, WalEvent, WriteError, Writer};

/// Events that wait for a stage; beyond it callers are told `Busy`, and everybody else waits.
pub const QUEUE_EVENTS: usize = 4096;
/// Events that a stage digests at once.
const BATCH_EVENTS: usize = 1024;

/// How long a stopping process finishes what is under way.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the log has ended under a running process.
#[derive(Debug, thiserror::Error)]
pub enum LogFailure {
    /// A batch is not durable.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Entries that must be there cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A snapshot is not what was written; it is set aside.
    #[error(transparent)]
    Snapshot(#[from] SnapshotDamage),
    /// The last sync of a stopping process took too long.
    #[error("not synced in time after a signal")]
    TooSlow,
}

/// What the log has made durable.
#[derive(Clone, Copy, Debug, Default)]
pub struct Synced {
    batch: BatchNo,
    hard_state: HardState,
    last: LogId,
}

impl Synced {
    /// Whether this process has made anything durable yet.
    pub fn anything(self) -> bool {
        self.batch > BatchNo::default()
    }
}

impl From<Synced> for EntriesEvent {
    fn from(Synced { batch, hard_state, last }: Synced) -> Self {
        Self::Synced { batch, hard_state, last }
    }
}

/// Hands events of the log thread to the first stage. `failed` hears of the end of the log.
pub fn log_events(
    inbox: mpsc::Sender<EntriesEvent>,
    synced: watch::Sender<Synced>,
    failed: mpsc::Sender<LogFailure>,
    metrics: Arc<Metrics>,
) -> Box<dyn FnMut(WalEvent) + Send> {
    Box::new(move |event| match event {
        WalEvent::Synced { batch, hard_state, last, cost } => {
            metrics.note_sync(batch, cost);
            synced.send_replace(Synced { batch, hard_state, last });
        }
        WalEvent::Fetched { token, entries: Ok(entries) } => {
            // The first stage never waits for this thread, so this ends. Closed: the process is stopping.
            drop(inbox.blocking_send(EntriesEvent::Fetched { purpose: purpose(token), entries }));
        }
        WalEvent::Fetched { token, entries: Err(error) } => match (purpose(token), error) {
            // Dropped or truncated since the core asked, or not readable just now: it asks again if it still needs them.
            (
                FetchFor::Core,
                error @ (ReadError::Compacted { .. }
                | ReadError::Beyond { .. }
                | ReadError::Disk(_)),
            ) => {
                tracing::warn!(%error, "cannot read entries for a peer that is behind");
            }
            // Replaced by a snapshot since they were asked for.
            (FetchFor::Feed(generation), ReadError::Compacted { .. }) => {
                drop(inbox.blocking_send(EntriesEvent::FeedGone { generation }));
            }
            (FetchFor::Core | FetchFor::Feed(_), error) => drop(failed.blocking_send(error.into())),
        },
        WalEvent::Trailing(index) => {
            drop(inbox.blocking_send(EntriesEvent::Trailing(index)));
        }
        WalEvent::Weighed(bytes) => metrics.log_grown_bytes.store(bytes, Ordering::Relaxed),
        WalEvent::Failed(error) => drop(failed.blocking_send(error.into())),
    })
}

/// A fetch's purpose as a token of the log, and back: zero is the core.
pub fn token(purpose: FetchFor) -> u64 {
    match purpose {
        FetchFor::Core => 0,
        FetchFor::Feed(generation) => generation + 1,
    }
}

fn purpose(token: u64) -> FetchFor {
    token.checked_sub(1).map_or(FetchFor::Core, FetchFor::Feed)
}

/// The task around `digest_entries`.
pub struct EntriesTask {
    /// The stage.
    pub stage: DigestEntries,
    /// Its events.
    pub inbox: mpsc::Receiver<EntriesEvent>,
    /// What the log has made durable: cumulative, so only the newest counts.
    pub synced: watch::Receiver<Synced>,
    /// The log.
    pub log: Writer,
    /// The peers.
    pub peers: Peers,
    /// Snapshots on their way to them.
    pub senders: Senders,
    /// Bytes of entries that stay in the log before a snapshot's last entry.
    pub keep_trailing_bytes: u64,
    /// The second stage.
    pub commits: mpsc::Sender<CommitsEvent>,
    /// Who leads, for those who pass requests on.
    pub leader: watch::Sender<Option<NodeId>>,
    /// One tick of the core's time.
    pub tick: Duration,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl EntriesTask {
    /// Runs until `stop`, finishes what is under way for a few seconds at most, and makes the log durable.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut drained_by = None;
        let mut ticks = interval(self.tick);
        // After a stall one tick is enough: many at once would look like a silent leader.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut events = Vec::with_capacity(BATCH_EVENTS);
        let mut overflow = VecDeque::new();
        self.peers.follow_membership(self.stage.raft().status().membership);
        while !drained_by.is_some_and(|limit| self.stage.is_drained() || Instant::now() > limit) {
            let mut synced = false;
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop), if drained_by.is_none() => {
                    drained_by = Some(Instant::now() + DRAIN_TIMEOUT);
                    events.push(EntriesEvent::Drain);
                }
                _ = ticks.tick() => {
                    events.push(EntriesEvent::Tick);
                    self.peers.close_departed();
                }
                Ok(()) = self.synced.changed() => synced = true,
                room = self.commits.reserve(), if !overflow.is_empty() => {
                    if let (Ok(room), Some(message)) = (room, overflow.pop_front()) {
                        room.send(CommitsEvent::FromEntries(message));
                    }
                }
                _ = self.inbox.recv_many(&mut events, BATCH_EVENTS) => {}
            }
            self.gather(&mut events, synced);
            self.note_gossip(&events);
            let actions = self.stage.handle(&mut events, clock_ms());
            self.carry_out(actions, &mut overflow);
        }
        self.inbox.close();
        let closed = tokio::task::spawn_blocking(move || self.log.close()).await;
        if let Err(panic) = closed {
            tracing::error!(%panic, "the log thread panicked");
        }
    }

    /// Takes along whatever else waits by now.
    fn gather(&mut self, events: &mut Vec<EntriesEvent>, synced: bool) {
        while events.len() < BATCH_EVENTS
            && let Ok(event) = self.inbox.try_recv()
        {
            events.push(event);
        }
        if synced || self.synced.has_changed().unwrap_or(false) {
            events.push(self.newly_synced());
        }
    }

    fn newly_synced(&mut self) -> EntriesEvent {
        (*self.synced.borrow_and_update()).into()
    }

    fn note_gossip(&mut self, events: &[EntriesEvent]) {
        for event in events {
            if let EntriesEvent::Candidates(candidates) = event {
                self.peers.follow_gossip(addresses(candidates));
            }
        }
    }

    fn carry_out(&mut self, actions: EntriesActions, overflow: &mut VecDeque<ToCommits>) {
        let mut bases = actions.compact.into_iter().peekable();
        for (place, persist) in actions.persist.into_iter().enumerate() {
            while let Some((_, base)) = bases.next_if(|(after, _)| *after <= place) {
                self.log.compact(base);
            }
            self.metrics.note_handed(persist.batch);
            self.log.submit(persist);
        }
        bases.for_each(|(_, base)| self.log.compact(base));
        if let Some(index) = actions.trailing {
            self.log.trailing(index, self.keep_trailing_bytes);
        }
        if let Some(index) = actions.weigh_after {
            self.log.weigh(index);
        }
        // Links first: a message may go to a node that this very step has added.
        for event in actions.events {
            self.tell(event);
        }
        for message in actions.send {
            self.send(message);
        }
        for (purpose, range, max_bytes) in actions.fetch {
            self.log.fetch(token(purpose), range.from, range.to, max_bytes);
        }
        let is_install = |message: &&ToCommits| matches!(message, ToCommits::Install { .. });
        let installs = actions.to_commits.iter().filter(is_install).count();
        self.metrics.snapshots_installed.add_many(installs as u64);
        overflow.extend(actions.to_commits);
        while let Some(message) = overflow.pop_front() {
            let Ok(room) = self.commits.try_reserve() else { return overflow.push_front(message) };
            room.send(CommitsEvent::FromEntries(message));
        }
    }

    fn send(&mut self, message: Envelope) {
        if let Message::InstallSnapshot(meta) = message.body {
            self.senders.begin(message.to, message.term, message.token, meta);
        } else {
            self.peers.send(message);
        }
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::RoleChanged { role, term, reason } => {
                if role == RoleName::Candidate {
                    self.metrics.elections.add();
                }
                if role != RoleName::Leader {
                    self.senders.stop();
                }
                tracing::info!(?role, term = term.0, reason, "role changed");
            }
            Event::LeaderChanged { leader, term } => {
                if let Some(leader) = leader {
                    self.metrics.leader_changes.add();
                    tracing::info!(%leader, term = term.0, "leader known");
                } else {
                    tracing::info!(term = term.0, "leader lost");
                }
                self.leader.send_replace(leader);
            }
            Event::MembershipChanged { membership, index } => {
                tracing::info!(
                    index = index.0,
                    voters = ?membership.voters,
                    outgoing = ?membership.outgoing,
                    learners = ?membership.learners,
                    "configuration changed"
                );
                self.peers.follow_membership(membership);
            }
            Event::Dropped { from, reason } => {
                self.metrics.dropped_messages.add();
                tracing::warn!(peer = %from, reason, "message from peer dropped");
            }
        }
    }
}

fn addresses(candidates: &[Candidate]) -> BTreeMap<NodeId, String> {
    let alive = candidates.iter().filter(|candidate| candidate.alive);
    alive.map(|candidate| (candidate.node, candidate.info.raft_address.clone())).collect()
}

fn clock_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// The task around `digest_commits`.
pub struct CommitsTask {
    /// The stage.
    pub stage: DigestCommits,
    /// Its events.
    pub inbox: mpsc::Receiver<CommitsEvent>,
    /// The first stage.
    pub entries: mpsc::Sender<EntriesEvent>,
    /// The link to the state machine.
    pub calls: mpsc::Sender<MachineCall>,
    /// For those who want to look.
    pub status: watch::Sender<CommitsStatus>,
}

impl CommitsTask {
    /// Runs until its inbox is closed.
    pub async fn run(mut self) {
        let mut events = Vec::with_capacity(BATCH_EVENTS);
        let mut overflow = VecDeque::new();
        loop {
            tokio::select! {
                biased;
                room = self.calls.reserve(), if !overflow.is_empty() => {
                    if let (Ok(room), Some(call)) = (room, overflow.pop_front()) {
                        room.send(call);
                    }
                }
                received = self.inbox.recv_many(&mut events, BATCH_EVENTS) => {
                    if received == 0 {
                        return;
                    }
                }
            }
            let actions = self.stage.handle(&mut events);
            overflow.extend(actions.calls);
            while let Some(call) = overflow.pop_front() {
                let Ok(room) = self.calls.try_reserve() else {
                    overflow.push_front(call);
                    break;
                };
                room.send(call);
            }
            for message in actions.to_entries {
                // The first stage never waits for this one, so this ends.
                if self.entries.send(EntriesEvent::FromCommits(message)).await.is_err() {
                    return;
                }
            }
            let status = self.stage.status();
            self.status.send_if_modified(|known| {
                let changed = *known != status;
                *known = status;
                changed
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::consensus::Index;
    use crate::wal::DiskError;

    /// What the end of the log would be told, if a read for this purpose failed so.
    fn failure_of(purpose: FetchFor, error: ReadError) -> Option<LogFailure> {
        let (inbox, _events) = mpsc::channel(1);
        let (failed, mut failures) = mpsc::channel(1);
        let mut tell = log_events(inbox, watch::Sender::default(), failed, Arc::default());
        tell(WalEvent::Fetched { token: token(purpose), entries: Err(error) });
        failures.try_recv().ok()
    }

    #[test]
    fn a_read_for_a_peer_that_finds_nothing_does_not_end_the_log() {
        let beyond = || ReadError::Beyond { last: Index(3) };
        assert!(failure_of(FetchFor::Core, beyond()).is_none());
        let compacted = ReadError::Compacted { first: Index(9) };
        assert!(failure_of(FetchFor::Core, compacted).is_none(), "the peer gets a snapshot");
        let source = io::Error::from(io::ErrorKind::Other);
        let unreadable = DiskError { action: "read", path: "segment".into(), source };
        assert!(failure_of(FetchFor::Core, unreadable.into()).is_none());
        assert!(failure_of(FetchFor::Core, ReadError::Stopped).is_some());
        assert!(failure_of(FetchFor::Feed(0), beyond()).is_some(), "committed entries stay");
        let compacted = ReadError::Compacted { first: Index(9) };
        assert!(
            failure_of(FetchFor::Feed(0), compacted).is_none(),
            "the stage knows whether it needs them"
        );
    }
}
