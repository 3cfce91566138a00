//! The receiving end: one transfer at a time, the newest leader's.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinError, spawn_blocking};

use crate::consensus::{NodeId, Term, check_snapshot};
use crate::metrics::Metrics;
use crate::node::Node;
use crate::pipeline::digest_entries::EntriesEvent;
use crate::rpc::peer::{SnapshotOffer, SnapshotPiece, SnapshotRefusal};
use crate::session::Image;
use crate::shelf::Shelf;
use crate::snapshot::{Description, Receiving, SnapshotError, SnapshotId};

/// Takes snapshots in, for all connections of the process.
#[derive(Debug)]
pub struct Receiver {
    shelf: Shelf,
    node: Arc<Node>,
    inbox: mpsc::Sender<EntriesEvent>,
    metrics: Arc<Metrics>,
    current: Mutex<Option<Transfer>>,
}

/// The transfer under way.
struct Transfer {
    from: NodeId,
    term: Term,
    offered: Description,
    /// Away while the disk works on it.
    file: Option<Receiving>,
}

impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Transfer");
        debug.field("from", &self.from).field("term", &self.term);
        debug.field("offered", &self.offered).finish_non_exhaustive()
    }
}

impl Receiver {
    /// Nothing is under way.
    pub fn new(
        shelf: Shelf,
        node: Arc<Node>,
        inbox: mpsc::Sender<EntriesEvent>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { shelf, node, inbox, metrics, current: Mutex::default() }
    }

    /// Where the snapshots are.
    pub fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Begins or resumes a transfer; answers how many bytes are there.
    ///
    /// # Errors
    /// A newer leader's transfer is under way, or the file cannot be made.
    pub async fn offer(&self, from: NodeId, offer: SnapshotOffer) -> Result<u64, SnapshotRefusal> {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|transfer| transfer.term > offer.term) {
            return Err(SnapshotRefusal::Superseded);
        }
        let SnapshotOffer { term, id, meta, bytes } = offer;
        if let Err(reason) = check_snapshot(&meta, term) {
            return Err(SnapshotRefusal::Bad { reason: reason.to_owned() });
        }
        let offered = Description { id: SnapshotId(id), meta, bytes };
        if let Some(transfer) = current.as_mut().filter(|transfer| transfer.offered == offered)
            && let Some(file) = &transfer.file
        {
            (transfer.from, transfer.term) = (from, term);
            return Ok(file.offset());
        }
        *current = None;
        let newest = self.shelf.store().newest();
        if let Some(ours) = newest.filter(|ours| ours.meta.last.index >= offered.meta.last.index) {
            // The core may have had no use for it when it came, or this process was restarted since.
            self.announce(ours).await?;
            return Ok(bytes);
        }
        let (store, cluster) = (self.shelf.store().clone(), self.node.known_cluster().await);
        let wanted = offered.clone();
        // All of it may be there already: its last end came before it had its name.
        let found = spawn_blocking(move || settle(store.receive(&wanted, cluster)?, &wanted)).await;
        let found = found.map_err(|panic| bad(&panic))?;
        if let Ok(Written::Part(file)) = &found {
            let (index, have) = (offered.meta.last.index.0, file.offset());
            tracing::info!(%from, index, bytes, have, "receiving a snapshot");
        }
        let transfer = Transfer { from, term, offered, file: None };
        self.go_on(&mut current, transfer, found).await
    }

    /// Takes the next piece; answers how many bytes are there. After the last one the snapshot is durable and the core knows.
    ///
    /// # Errors
    /// [`SnapshotRefusal`]: after all but a wrong offset the transfer has to be offered again.
    pub async fn write(&self, from: NodeId, piece: SnapshotPiece) -> Result<u64, SnapshotRefusal> {
        let mut current = self.current.lock().await;
        let SnapshotPiece { term, id, offset, bytes } = piece;
        let is_ours = |transfer: &&mut Transfer| {
            (transfer.from, transfer.term, transfer.offered.id.0) == (from, term, id)
        };
        let transfer = current.as_mut().filter(is_ours).ok_or(SnapshotRefusal::Superseded)?;
        // A caller that leaves in the middle of this drops the file: the next offer reads how much there is.
        let mut file = transfer.file.take().ok_or(SnapshotRefusal::Superseded)?;
        if offset != file.offset() {
            let have = file.offset();
            transfer.file = Some(file);
            // It was sent before, and its answer was lost.
            let is_known = offset < have && offset + bytes.len() as u64 <= have;
            return if is_known {
                Ok(have)
            } else {
                Err(SnapshotRefusal::WrongOffset { have, got: offset })
            };
        }
        let (length, wanted) = (bytes.len() as u64, transfer.offered.clone());
        let written = spawn_blocking(move || {
            file.push(offset, &bytes)?;
            settle(file, &wanted)
        });
        let written = written.await.map_err(|panic| bad(&panic))?;
        self.metrics.snapshot_bytes_received.add_many(length);
        let transfer = current.take().ok_or(SnapshotRefusal::Superseded)?;
        self.go_on(&mut current, transfer, written).await
    }

    /// What becomes of a transfer whose file has come so far.
    async fn go_on(
        &self,
        current: &mut Option<Transfer>,
        transfer: Transfer,
        written: Result<Written, SnapshotError>,
    ) -> Result<u64, SnapshotRefusal> {
        let from = transfer.from;
        match written {
            Ok(Written::Part(file)) => {
                let have = file.offset();
                *current = Some(Transfer { file: Some(file), ..transfer });
                Ok(have)
            }
            Ok(Written::Whole(description)) => {
                let (index, bytes) = (description.meta.last.index.0, description.bytes);
                self.announce(description).await?;
                tracing::info!(%from, index, bytes, "received a snapshot");
                Ok(bytes)
            }
            Ok(Written::Useless(reason)) => {
                tracing::warn!(%from, reason, "cannot use a snapshot");
                Err(SnapshotRefusal::Bad { reason })
            }
            Err(error) => {
                tracing::warn!(%from, %error, "cannot receive a snapshot");
                Err(SnapshotRefusal::from(&error))
            }
        }
    }

    /// Hands a durable snapshot to the core, with its table of sessions.
    async fn announce(&self, description: Description) -> Result<(), SnapshotRefusal> {
        let (shelf, wanted) = (self.shelf.clone(), description.clone());
        let image = spawn_blocking(move || load_image(&shelf, &wanted)).await;
        let image = image.map_err(|panic| bad(&panic))??;
        let meta = description.meta;
        let event = EntriesEvent::SnapshotReceived { meta, image: Box::new(image) };
        let stopping =
            |_closed| SnapshotRefusal::Storage { reason: "this node is stopping".to_owned() };
        self.inbox.send(event).await.map_err(stopping)
    }
}

/// What became of a piece.
enum Written {
    Part(Receiving),
    Whole(Description),
    /// Whole, but not for this version, or it contradicts itself.
    Useless(String),
}

/// Finishes a file of which all is there.
fn settle(file: Receiving, offered: &Description) -> Result<Written, SnapshotError> {
    if file.offset() < offered.bytes {
        return Ok(Written::Part(file));
    }
    // Before it has its name: a table that cannot be gone on from must not stand in the way of the next start.
    if let Err(error) = Image::beside(&offered.meta, &file.image()?) {
        file.discard();
        return Ok(Written::Useless(error.to_string()));
    }
    file.finish().map(Written::Whole)
}

fn load_image(shelf: &Shelf, snapshot: &Description) -> Result<Image, SnapshotRefusal> {
    let bytes = shelf.image(snapshot).map_err(|error| SnapshotRefusal::from(&error))?;
    let image = Image::beside(&snapshot.meta, &bytes);
    image.map_err(|error| SnapshotRefusal::Bad { reason: error.to_string() })
}

impl From<&SnapshotError> for SnapshotRefusal {
    fn from(error: &SnapshotError) -> Self {
        let reason = error.to_string();
        match error {
            SnapshotError::NoRoom { .. } | SnapshotError::NoSpace(_) => Self::NoRoom { reason },
            SnapshotError::Disk(_)
            | SnapshotError::Busy { .. }
            | SnapshotError::Gone { .. }
            | SnapshotError::Incomplete { .. } => Self::Storage { reason },
            SnapshotError::Damaged(_)
            | SnapshotError::Foreign { .. }
            | SnapshotError::UnknownVersion { .. }
            | SnapshotError::Mismatch { .. }
            | SnapshotError::GivenUp
            | SnapshotError::TooLong { .. } => Self::Bad { reason },
        }
    }
}

fn bad(panic: &JoinError) -> SnapshotRefusal {
    SnapshotRefusal::Storage { reason: format!("internal error: {panic}") }
}

#[cfg(test)]
impl Receiver {
    /// One that nothing comes to, for tests of what is beside it.
    pub(crate) fn idle(dir: &std::path::Path, node: &Arc<Node>) -> Arc<Self> {
        let (failed, _failures) = mpsc::channel(1);
        let (inbox, _events) = mpsc::channel(1);
        let disk = Arc::new(crate::wal::RealDisk);
        let opened = crate::snapshot::Store::open(disk, &dir.join("snapshots"), None, 1);
        let (store, _damages) = opened.expect("an empty directory");
        let shelf = Shelf::new(store, failed);
        Arc::new(Self::new(shelf, Arc::clone(node), inbox, Arc::default()))
    }
}
