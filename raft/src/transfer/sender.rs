//! The sending end: one task per node that is behind the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::consensus::{Envelope, Message, NodeId, SnapshotMeta, Term, Token};
use crate::deadline;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::pace::Pace;
use crate::peers::Routes;
use crate::pipeline::digest_entries::EntriesEvent;
use crate::rpc::peer::{
    self, InstallReply, InstallSnapshot, PeerServiceClient, SnapshotOffer, SnapshotPiece,
    SnapshotRefusal,
};
use crate::rpc::wire::{Endpoint, Service};
use crate::shelf::Shelf;
use crate::snapshot::{Description, RawReader};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for the answer to one call: the smallest piece passes a link of 1 kB/s in that time.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// First, smallest and largest piece. A slow link gets small ones, so that none takes longer than its call may.
const FIRST_PIECE_BYTES: usize = 64 << 10;
const MIN_PIECE_BYTES: usize = 4 << 10;
const MAX_PIECE_BYTES: usize = 1 << 20;
/// A piece that took longer than this is followed by a smaller one.
const SLOW_PIECE: Duration = Duration::from_secs(1);
/// Without progress for this long, some calls, the transfer is given up, and the core offers the newest snapshot once the peer
/// answers it.
const PATIENCE: Duration = Duration::from_secs(35);
/// Before the core is told about a peer that refuses: it would offer again at once.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// The same when its disk is full: somebody has to come first.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(30);

/// What the tasks need.
#[derive(Clone, Debug)]
pub struct SendersContext {
    /// Who we are.
    pub node: Arc<Node>,
    /// The files.
    pub shelf: Shelf,
    /// The first stage.
    pub inbox: mpsc::Sender<EntriesEvent>,
    /// Ways to the peers.
    pub routes: watch::Receiver<Routes>,
    /// Most bytes per second to one peer; none = no limit.
    pub bytes_per_s: Option<u64>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// The transfers of a leader, owned by the task around `digest_entries`.
#[derive(Debug)]
pub struct Senders {
    context: SendersContext,
    under_way: BTreeMap<NodeId, Running>,
}

#[derive(Debug)]
struct Running {
    term: Term,
    meta: SnapshotMeta,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Senders {
    /// Nothing is under way.
    pub fn new(context: SendersContext) -> Self {
        Self { context, under_way: BTreeMap::new() }
    }

    /// Sends the snapshot that the core wants a peer to have. The core may ask again meanwhile, for a newer one by then, when the peer
    /// left the configuration and came back: a transfer that is under way goes on as long as its file is kept.
    pub fn begin(&mut self, peer: NodeId, term: Term, token: Token, meta: SnapshotMeta) {
        let goes_on = |running: &Running| {
            let is_kept = self.context.shelf.find(running.meta.last).is_some();
            running.term == term && is_kept && !running.task.is_finished()
        };
        if self.under_way.get(&peer).is_some_and(goes_on) {
            return;
        }
        let sender =
            Sender { context: self.context.clone(), peer, term, token, meta: meta.clone() };
        let task = tokio::spawn(sender.run());
        self.under_way.insert(peer, Running { term, meta, task });
    }

    /// This node leads no more: whoever does sends its own.
    pub fn stop(&mut self) {
        self.under_way.clear();
    }
}

/// One transfer.
struct Sender {
    context: SendersContext,
    peer: NodeId,
    term: Term,
    token: Token,
    meta: SnapshotMeta,
}

/// Why an attempt ended.
enum Stop {
    /// The link, or time: what is there stays there.
    Broken(String),
    /// The peer, or our disk: trying again at once is of no use.
    Refused(String),
    /// The peer's disk is full: trying again soon is of no use either.
    Full(String),
}

impl Stop {
    fn refused(refusal: &SnapshotRefusal) -> Self {
        match refusal {
            SnapshotRefusal::NoRoom { .. } => Self::Full(refusal.to_string()),
            SnapshotRefusal::Superseded
            | SnapshotRefusal::WrongOffset { .. }
            | SnapshotRefusal::Bad { .. }
            | SnapshotRefusal::Storage { .. } => Self::Refused(refusal.to_string()),
        }
    }
}

/// When the peer last took something.
struct Progress {
    most: u64,
    at: Instant,
}

impl Progress {
    fn reached(&mut self, bytes: u64) {
        if bytes > self.most {
            *self = Self { most: bytes, at: Instant::now() };
        }
    }
}

impl Sender {
    async fn run(self) {
        let (inbox, to, from, token) =
            (self.context.inbox.clone(), self.context.node.id, self.peer, self.token);
        let index = self.meta.last.index.0;
        let delivered = match caught(async move { self.deliver().await }).await {
            Ok(delivered) => delivered,
            Err(panic) => {
                // What panics will most likely do so again.
                sleep(REFUSED_PAUSE).await;
                Err(panic)
            }
        };
        let event = match delivered {
            Ok(InstallReply { term, response }) => {
                let body = Message::SnapshotResponse(response);
                EntriesEvent::PeerSays(Envelope { from, to, term, token, body })
            }
            Err(reason) => {
                tracing::warn!(peer = %from, index, reason, "snapshot not delivered; offered again when the peer answers");
                EntriesEvent::SnapshotFailed(from)
            }
        };
        // Closed: the process is stopping.
        drop(inbox.send(event).await);
    }

    /// Tries until the snapshot is installed, or until there is no progress any more.
    async fn deliver(&self) -> Result<InstallReply, String> {
        let last = self.meta.last;
        // One that was removed since has made room for a newer one, which does as well.
        let newest = self.context.shelf.store().newest();
        let newer = newest.filter(|newest| newest.meta.last.index > last.index);
        let Some(snapshot) = self.context.shelf.find(last).or(newer) else {
            return Err(format!("the snapshot up to {last} is no longer here"));
        };
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let mut progress = Progress { most: 0, at: Instant::now() };
        let mut piece_bytes = FIRST_PIECE_BYTES;
        loop {
            let before = progress.most;
            match self.attempt(&snapshot, &mut piece_bytes, &mut progress).await {
                Ok(reply) => return Ok(reply),
                Err(Stop::Refused(reason)) => {
                    sleep(REFUSED_PAUSE).await;
                    return Err(reason);
                }
                Err(Stop::Full(reason)) => {
                    sleep(NO_ROOM_PAUSE).await;
                    return Err(reason);
                }
                Err(Stop::Broken(reason)) if progress.at.elapsed() > PATIENCE => {
                    return Err(reason);
                }
                Err(Stop::Broken(reason)) => {
                    tracing::info!(peer = %self.peer, have = progress.most, reason, "transfer of a snapshot broke off; resuming");
                }
            }
            if progress.most > before {
                backoff.reset();
            }
            sleep(backoff.next()).await;
        }
    }

    /// One connection, from offer to install.
    async fn attempt(
        &self,
        snapshot: &Description,
        piece_bytes: &mut usize,
        progress: &mut Progress,
    ) -> Result<InstallReply, Stop> {
        let client = self.connect().await?;
        let mut have = self.offer(&client, snapshot).await?;
        progress.reached(have);
        tracing::info!(peer = %self.peer, index = snapshot.meta.last.index.0, bytes = snapshot.bytes, have, "sending a snapshot");
        let file = self.open(snapshot).await?;
        let mut pace = Pace::new(self.context.bytes_per_s);
        while have < snapshot.bytes {
            let bytes = read(&file, have, *piece_bytes).await?;
            let length = bytes.len();
            let begun = Instant::now();
            self.context.metrics.snapshot_bytes_sent.add_many(length as u64);
            have = self.write(&client, snapshot, have, bytes, piece_bytes).await?;
            if begun.elapsed() > SLOW_PIECE {
                *piece_bytes = (*piece_bytes / 2).max(MIN_PIECE_BYTES);
            } else {
                *piece_bytes = (*piece_bytes * 2).min(MAX_PIECE_BYTES);
            }
            progress.reached(have);
            pace.spend(length).await;
        }
        let request = InstallSnapshot { term: self.term, meta: snapshot.meta.clone() };
        let reply = client.install_snapshot(deadline(CALL_TIMEOUT), request).await;
        reply.map_err(|error| Stop::Broken(format!("no answer to the install: {error}")))
    }

    async fn connect(&self) -> Result<PeerServiceClient, Stop> {
        let address = {
            let routes = self.context.routes.borrow();
            routes.get(&self.peer).map(|route| route.address.clone())
        };
        let address = address.ok_or_else(|| Stop::Refused("it is no longer a peer".to_owned()))?;
        let endpoint: Endpoint =
            address.parse().map_err(|error| Stop::Broken(format!("{error}")))?;
        let hello = self.context.node.hello(Service::Peer).expecting(self.peer.0);
        let connection = peer::connect(&endpoint, hello, CONNECT_TIMEOUT).await;
        connection
            .map(|connection| connection.client)
            .map_err(|error| Stop::Broken(error.to_string()))
    }

    async fn offer(&self, client: &PeerServiceClient, snapshot: &Description) -> Result<u64, Stop> {
        let offer = SnapshotOffer {
            term: self.term,
            id: snapshot.id.0,
            meta: snapshot.meta.clone(),
            bytes: snapshot.bytes,
        };
        match client.offer_snapshot(deadline(CALL_TIMEOUT), offer).await {
            Ok(Ok(have)) if have <= snapshot.bytes => Ok(have),
            Ok(Ok(have)) => Err(Stop::Refused(format!("it says that it has {have} bytes of it"))),
            Ok(Err(refusal)) => Err(Stop::refused(&refusal)),
            Err(error) => Err(Stop::Broken(format!("no answer to the offer: {error}"))),
        }
    }

    /// Sends a piece; returns how many bytes are there then.
    async fn write(
        &self,
        client: &PeerServiceClient,
        snapshot: &Description,
        offset: u64,
        bytes: Bytes,
        piece_bytes: &mut usize,
    ) -> Result<u64, Stop> {
        let end = offset + bytes.len() as u64;
        let piece = SnapshotPiece { term: self.term, id: snapshot.id.0, offset, bytes };
        match client.write_snapshot(deadline(CALL_TIMEOUT), piece).await {
            Ok(Ok(have)) if have == end => Ok(have),
            Ok(Ok(have) | Err(SnapshotRefusal::WrongOffset { have, .. })) => {
                Err(Stop::Broken(format!("it has {have} bytes after a piece up to {end}")))
            }
            Ok(Err(refusal)) => {
                if matches!(refusal, SnapshotRefusal::Bad { .. }) {
                    self.verify(snapshot).await;
                }
                Err(Stop::refused(&refusal))
            }
            Err(error) => {
                *piece_bytes = (*piece_bytes / 4).max(MIN_PIECE_BYTES);
                Err(Stop::Broken(format!("no answer to a piece: {error}")))
            }
        }
    }

    async fn open(&self, snapshot: &Description) -> Result<Arc<RawReader>, Stop> {
        let (shelf, snapshot) = (self.context.shelf.clone(), snapshot.clone());
        let opened = spawn_blocking(move || shelf.raw(&snapshot)).await;
        let opened = opened.map_err(|panic| Stop::Refused(panic.to_string()))?;
        opened.map(Arc::new).map_err(|error| Stop::Refused(error.to_string()))
    }

    /// The peer has found damage in what we sent: perhaps it is in our file.
    async fn verify(&self, snapshot: &Description) {
        let (shelf, snapshot) = (self.context.shelf.clone(), snapshot.clone());
        let verified = spawn_blocking(move || shelf.verify(&snapshot)).await;
        if let Ok(Err(error)) = verified {
            tracing::error!(%error, "a snapshot that was being sent");
        }
    }
}

/// What comes of a transfer, or what its panic says: a failure like others. The core would otherwise wait for its end as long as this
/// node leads, and the peer with it.
async fn caught<T: Send + 'static>(
    delivering: impl Future<Output = T> + Send + 'static,
) -> Result<T, String> {
    // Ends with whoever waits for it.
    let mut task = JoinSet::new();
    task.spawn(delivering);
    match task.join_next().await {
        Some(ended) => ended.map_err(|panic| panic.to_string()),
        None => Err("it never ran".to_owned()),
    }
}

async fn read(file: &Arc<RawReader>, offset: u64, max_bytes: usize) -> Result<Bytes, Stop> {
    let file = Arc::clone(file);
    let read = spawn_blocking(move || file.read_at(offset, max_bytes)).await;
    let read = read.map_err(|panic| Stop::Refused(panic.to_string()))?;
    read.map_err(|error| Stop::Refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_transfer_that_panics_has_failed() {
        let reason = caught::<()>(async { panic!("planted") }).await.unwrap_err();
        assert!(reason.contains("planted"), "{reason}");
        assert_eq!(caught(async { 7 }).await, Ok(7));
    }
}
