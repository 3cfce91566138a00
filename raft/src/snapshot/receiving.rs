//! A snapshot that arrives from the leader.

use std::sync::Arc;

use super::file::{Growing, Reader, rejected};
use super::frame::{Flaw, HEADER_BYTES, Head, Kind, Progress, head_of};
use super::store::{Claim, Shared};
use super::{Description, SnapshotError};

/// A snapshot that is being received. Dropped before [`Receiving::finish`], it leaves the part that has arrived, and
/// the next [`Store::receive`](super::Store::receive) of the same snapshot goes on from there.
pub struct Receiving {
    shared: Arc<Shared>,
    output: Growing,
    offered: Description,
    cluster: u128,
    progress: Progress,
    /// The beginning of a frame that has not arrived as a whole.
    partial: Vec<u8>,
    given_up: bool,
    _claim: Claim,
}

impl Receiving {
    pub(super) fn start(
        shared: Arc<Shared>,
        offered: &Description,
        cluster: u128,
    ) -> Result<Self, SnapshotError> {
        let claim = Claim::receiving(&shared)?;
        let wanted = Head { id: offered.id, cluster, meta: offered.meta.clone() };
        let found = shared.open_part()?.filter(|part| *part.head() == wanted);
        let (output, progress) = match found {
            Some(part) => {
                let resumed = resume(part, &shared);
                resumed.inspect_err(|_| shared.discard(&shared.part_path()))?
            }
            None => (shared.begin_receiving()?, Progress::default()),
        };
        let mut receiving = Self {
            shared,
            output,
            offered: offered.clone(),
            cluster,
            progress,
            partial: Vec::new(),
            given_up: false,
            _claim: claim,
        };
        receiving.check_length()?;
        let rest = receiving.offered.bytes - receiving.offset();
        receiving.shared.check_room(rest)?;
        Ok(receiving)
    }

    /// How many bytes have arrived: where the next chunk must begin.
    pub fn offset(&self) -> u64 {
        self.progress.offset + self.partial.len() as u64
    }

    /// Takes a chunk of the file that begins at `offset`, of any length, and returns [`Receiving::offset`]. A chunk that
    /// begins elsewhere (repeated, or after one that was lost) is not used; the answer says where to go on.
    ///
    /// # Errors
    /// What arrives is damaged, or not what was offered, or the disk refuses: the part is removed, and this transfer is
    /// over.
    pub fn push(&mut self, offset: u64, bytes: &[u8]) -> Result<u64, SnapshotError> {
        if self.given_up {
            return Err(SnapshotError::GivenUp);
        }
        if offset == self.offset() {
            let taken = self.take(bytes);
            self.or_give_up(taken)?;
        }
        Ok(self.offset())
    }

    /// The session table of the snapshot, once all of it has arrived: to be judged before [`Receiving::finish`].
    ///
    /// # Errors
    /// What was stored cannot be read again.
    pub fn image(&self) -> Result<Vec<u8>, SnapshotError> {
        let part = self.shared.open_part()?;
        let mut reader = part.ok_or(SnapshotError::Gone { id: self.offered.id })?;
        let mut image = Vec::new();
        while let Some((Kind::Image, piece)) = reader.next_piece()? {
            image.extend_from_slice(&piece);
        }
        Ok(image)
    }

    /// Throws away what has arrived.
    pub fn discard(self) {
        self.shared.discard(&self.output.path);
    }

    /// Ends the transfer. The snapshot is durable and listed when this returns, and what is older than the newest few is
    /// gone.
    ///
    /// # Errors
    /// [`SnapshotError::Incomplete`], and what has arrived stays; or the disk refuses, and there is no such snapshot.
    pub fn finish(mut self) -> Result<Description, SnapshotError> {
        if self.given_up {
            return Err(SnapshotError::GivenUp);
        }
        if !self.progress.is_complete() {
            return Err(SnapshotError::Incomplete {
                have: self.offset(),
                want: self.offered.bytes,
            });
        }
        let synced = self.output.sync().map_err(SnapshotError::from);
        self.or_give_up(synced)?;
        let published = self.shared.publish(&self.output.path, &self.offered);
        self.or_give_up(published)?;
        Ok(self.offered.clone())
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        while !bytes.is_empty() {
            let wanted = self.wanted_bytes()?;
            let (now, later) = bytes.split_at(bytes.len().min(wanted - self.partial.len()));
            self.partial.extend_from_slice(now);
            bytes = later;
            if self.partial.len() == wanted && wanted > HEADER_BYTES {
                self.admit()?;
            }
        }
        self.check_length()
    }

    /// Length of the frame that is arriving, or of its header while that is not there.
    fn wanted_bytes(&self) -> Result<usize, SnapshotError> {
        if self.progress.is_complete() {
            return Err(self.rejected("there is something behind the end".into()));
        }
        match self.partial.first_chunk::<HEADER_BYTES>() {
            None => Ok(HEADER_BYTES),
            Some(header) => {
                let wanted = self.progress.expect(*header).map_err(|flaw| self.rejected(flaw))?;
                if self.progress.offset + wanted as u64 > self.offered.bytes {
                    return Err(self.rejected("a frame longer than what was offered".into()));
                }
                Ok(wanted)
            }
        }
    }

    /// Checks the frame that is there now, and writes it.
    fn admit(&mut self) -> Result<(), SnapshotError> {
        let at = self.progress.offset;
        let is_head = at == 0;
        let admitted = self.progress.admit(&self.partial);
        admitted.map_err(|flaw| rejected(flaw, &self.output.path, at))?;
        if is_head {
            let head =
                head_of(&self.partial).map_err(|flaw| rejected(flaw, &self.output.path, at))?;
            self.check_head(&head)?;
        }
        self.output.write(&self.partial, at)?;
        self.partial.clear();
        Ok(())
    }

    fn check_head(&self, head: &Head) -> Result<(), SnapshotError> {
        if head.cluster != self.cluster {
            let (found, expected) = (head.cluster, self.cluster);
            return Err(SnapshotError::Foreign { file: self.output.path.clone(), found, expected });
        }
        let differs = if head.id == self.offered.id { "what it holds" } else { "its id" };
        if head.id != self.offered.id || head.meta != self.offered.meta {
            let (is, was) = (head.meta.last, self.offered.meta.last);
            let what = format!(
                "{differs} differs (it is {} up to {is}, offered was {} up to {was})",
                head.id, self.offered.id
            );
            return Err(SnapshotError::Mismatch { what });
        }
        Ok(())
    }

    /// The length is known before the end has arrived, and never exceeded.
    fn check_length(&mut self) -> Result<(), SnapshotError> {
        let (have, want) = (self.offset(), self.offered.bytes);
        if have > want || self.progress.is_complete() != (have == want) {
            let what = format!("it has another length than the {want} bytes that were offered");
            return self.or_give_up(Err(SnapshotError::Mismatch { what }));
        }
        Ok(())
    }

    fn rejected(&self, flaw: Flaw) -> SnapshotError {
        rejected(flaw, &self.output.path, self.progress.offset)
    }

    /// After an error the part is worth nothing; or it takes the space that the log needs.
    fn or_give_up<T>(&mut self, outcome: Result<T, SnapshotError>) -> Result<T, SnapshotError> {
        if outcome.is_err() && !self.given_up {
            self.given_up = true;
            self.shared.discard(&self.output.path);
        }
        outcome
    }
}

/// Goes on behind the last whole frame of a part.
fn resume(mut part: Reader, shared: &Shared) -> Result<(Growing, Progress), SnapshotError> {
    loop {
        match part.next_piece() {
            Ok(Some(_)) => {}
            Ok(None) | Err(SnapshotError::Damaged(_)) => break,
            Err(error) => return Err(error),
        }
    }
    let (progress, bytes) = (part.progress().clone(), part.bytes());
    let mut output = Growing::new(part.into_file(), shared.part_path());
    if bytes > progress.offset {
        output.cut(progress.offset)?;
    }
    Ok((output, progress))
}
