//! The receiving end of a snapshot's transfer: one at a time, the newest leader's.

use raft::consensus::{Envelope, Message, NodeId, Term, Token, check_snapshot};
use raft::pipeline::digest_entries::EntriesEvent;
use raft::rpc::peer::{SnapshotOffer, SnapshotPiece, SnapshotRefusal};
use raft::session::Image;
use raft::snapshot::{Description, Receiving, SnapshotId};

use super::World;
use super::event::{Body, SnapshotReply, SnapshotStep};

/// The transfer under way.
pub struct Reception {
    from: NodeId,
    term: Term,
    offered: Description,
    file: Receiving,
}

impl World {
    /// A step of a transfer arrives.
    pub fn hear_step(
        &mut self,
        slot: usize,
        from: usize,
        (start, attempt): (u64, u64),
        step: SnapshotStep,
    ) {
        let (peer, node) = (self.slots[from].node, self.slots[slot].node);
        let answer = match step {
            SnapshotStep::Offer(offer) => self.hear_offer(slot, peer, offer),
            SnapshotStep::Piece(piece) => self.hear_snapshot_piece(slot, peer, piece),
            SnapshotStep::Install(term, meta) => {
                let (body, token) = (Message::InstallSnapshot(meta), Token::default());
                let question = Envelope { from: peer, to: node, term, token, body };
                return self.put_question(slot, from, start, question, Some(attempt));
            }
        };
        if self.slots[slot].disk.is_dead() {
            return self.cut_power(slot);
        }
        let reply = SnapshotReply::Have(answer);
        self.send(slot, from, Body::SnapshotReply(start, attempt, node, reply));
        self.end_if_failed(slot);
    }

    fn hear_offer(
        &mut self,
        slot: usize,
        from: NodeId,
        offer: SnapshotOffer,
    ) -> Result<u64, SnapshotRefusal> {
        let Some(raft) = &mut self.slots[slot].raft else {
            return Err(SnapshotRefusal::Superseded);
        };
        if raft.reception.as_ref().is_some_and(|reception| reception.term > offer.term) {
            return Err(SnapshotRefusal::Superseded);
        }
        let SnapshotOffer { term, id, meta, bytes } = offer;
        if let Err(reason) = check_snapshot(&meta, term) {
            return Err(SnapshotRefusal::Bad { reason: reason.to_owned() });
        }
        let offered = Description { id: SnapshotId(id), meta, bytes };
        if let Some(reception) = raft.reception.as_mut().filter(|known| known.offered == offered) {
            (reception.from, reception.term) = (from, term);
            return Ok(reception.file.offset());
        }
        raft.reception = None;
        let newest = raft.store.newest();
        if let Some(ours) = newest.filter(|ours| ours.meta.last.index >= offered.meta.last.index) {
            self.announce(slot, &ours)?;
            return Ok(bytes);
        }
        let file = raft
            .store
            .receive(&offered, super::CLUSTER)
            .map_err(|error| SnapshotRefusal::from(&error))?;
        let have = file.offset();
        if have > 0 {
            self.coverage.count("transfers of snapshots resumed after a restart");
        }
        raft.reception = Some(Reception { from, term, offered, file });
        if have == bytes { self.finish_reception(slot) } else { Ok(have) }
    }

    fn hear_snapshot_piece(
        &mut self,
        slot: usize,
        from: NodeId,
        piece: SnapshotPiece,
    ) -> Result<u64, SnapshotRefusal> {
        let Some(raft) = &mut self.slots[slot].raft else {
            return Err(SnapshotRefusal::Superseded);
        };
        let SnapshotPiece { term, id, offset, bytes } = piece;
        let reception = raft.reception.as_mut().filter(|reception| {
            (reception.from, reception.term, reception.offered.id.0) == (from, term, id)
        });
        let reception = reception.ok_or(SnapshotRefusal::Superseded)?;
        let have = reception.file.offset();
        if offset != have {
            let is_known = offset < have && offset + bytes.len() as u64 <= have;
            return if is_known {
                Ok(have)
            } else {
                Err(SnapshotRefusal::WrongOffset { have, got: offset })
            };
        }
        let whole = reception.offered.bytes;
        match reception.file.push(offset, &bytes) {
            Ok(have) if have < whole => Ok(have),
            Ok(_) => self.finish_reception(slot),
            Err(error) => {
                raft.reception = None;
                Err(SnapshotRefusal::from(&error))
            }
        }
    }

    fn finish_reception(&mut self, slot: usize) -> Result<u64, SnapshotRefusal> {
        let Some(raft) = &mut self.slots[slot].raft else {
            return Err(SnapshotRefusal::Superseded);
        };
        let reception = raft.reception.take().ok_or(SnapshotRefusal::Superseded)?;
        let Reception { offered, file, .. } = reception;
        let image = file.image().map_err(|error| SnapshotRefusal::from(&error))?;
        if let Err(error) = Image::beside(&offered.meta, &image) {
            file.discard();
            return Err(SnapshotRefusal::Bad { reason: error.to_string() });
        }
        let description = file.finish().map_err(|error| SnapshotRefusal::from(&error))?;
        self.announce(slot, &description)?;
        Ok(description.bytes)
    }

    /// Hands a durable snapshot to the core, with its table of sessions.
    fn announce(&mut self, slot: usize, ours: &Description) -> Result<(), SnapshotRefusal> {
        let Some(raft) = &mut self.slots[slot].raft else {
            return Err(SnapshotRefusal::Superseded);
        };
        let bytes = raft.shelf.image(ours).map_err(|error| SnapshotRefusal::from(&error))?;
        let image = Image::beside(&ours.meta, &bytes)
            .map_err(|error| SnapshotRefusal::Bad { reason: error.to_string() })?;
        let meta = ours.meta.clone();
        self.check_described(&meta);
        let here = &mut self.slots[slot];
        here.snapshot = here.snapshot.max(meta.last);
        self.hear(slot, EntriesEvent::SnapshotReceived { meta, image: Box::new(image) });
        Ok(())
    }
}
