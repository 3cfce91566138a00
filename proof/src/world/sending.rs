//! A snapshot on its way to a peer that is behind the log: the sending end, resumed where it broke off.

use raft::consensus::{Envelope, Message, NodeId, SnapshotMeta, Term, Token};
use raft::pipeline::digest_entries::EntriesEvent;
use raft::rpc::peer::{SnapshotOffer, SnapshotPiece, SnapshotRefusal};
use raft::snapshot::{Description, RawReader};
use rand::RngExt;

use super::World;
use super::agenda::{SECOND, Time};
use super::event::{Body, Event, SnapshotReply, SnapshotStep};

/// A step without an answer for so long is tried anew from the offer.
const STEP: Time = 2 * SECOND;
/// Without progress for so long it is given up.
const PATIENCE: Time = 35 * SECOND;
/// Before the core is told about a peer that refuses, and about one whose disk is full.
const REFUSED_PAUSE: Time = SECOND;
const NO_ROOM_PAUSE: Time = 6 * SECOND;

/// One transfer.
pub struct Sending {
    term: Term,
    token: Token,
    snapshot: Description,
    file: RawReader,
    have: u64,
    /// Most that was ever there, and since when.
    progress: (u64, Time),
    attempt: u64,
    /// The core is about to be told that it failed.
    has_failed: bool,
}

impl World {
    /// Sends the snapshot that the core wants a peer to have, unless that is under way.
    pub fn begin_sending(
        &mut self,
        slot: usize,
        peer: NodeId,
        term: Term,
        token: Token,
        meta: &SnapshotMeta,
    ) {
        let now = self.now;
        let Some(raft) = &mut self.slots[slot].raft else { return };
        if raft.sendings.get(&peer).is_some_and(|sending| {
            sending.term == term && raft.shelf.find(sending.snapshot.meta.last).is_some()
        }) {
            return;
        }
        let newest = raft.store.newest().filter(|newest| newest.meta.last.index > meta.last.index);
        let opened = match raft.shelf.find(meta.last).or(newest) {
            Some(snapshot) => raft.shelf.raw(&snapshot).ok().map(|file| (snapshot, file)),
            None => None,
        };
        let Some((snapshot, file)) = opened else {
            self.sending_failed(slot, peer);
            return self.end_if_failed(slot);
        };
        let attempt = self.rng.random();
        let progress = (0, now);
        let has_failed = false;
        let sending =
            Sending { term, token, snapshot, file, have: 0, progress, attempt, has_failed };
        raft.sendings.insert(peer, sending);
        self.coverage.count("transfers of snapshots begun");
        self.offer(slot, peer);
    }

    fn offer(&mut self, slot: usize, peer: NodeId) {
        let Some(raft) = &mut self.slots[slot].raft else { return };
        let Some(sending) = raft.sendings.get_mut(&peer) else { return };
        sending.attempt += 1;
        let offer = SnapshotOffer {
            term: sending.term,
            id: sending.snapshot.id.0,
            meta: sending.snapshot.meta.clone(),
            bytes: sending.snapshot.bytes,
        };
        self.send_step(slot, peer, SnapshotStep::Offer(offer));
    }

    fn send_step(&mut self, slot: usize, peer: NodeId, step: SnapshotStep) {
        let process = self.raft_of(slot);
        let Some(raft) = &self.slots[slot].raft else { return };
        let Some(sending) = raft.sendings.get(&peer) else { return };
        let attempt = sending.attempt;
        self.at(STEP, Event::SendLate(process, peer, attempt));
        if let Some(&to) = self.places.get(&peer) {
            self.send(slot, to, Body::Snapshot(process.start, attempt, step));
        }
    }

    /// A step's answer is late: anew from the offer, or not at all any more.
    pub fn sending_is_late(&mut self, slot: usize, peer: NodeId, attempt: u64) {
        let now = self.now;
        let Some(raft) = &mut self.slots[slot].raft else { return };
        let Some(sending) = raft.sendings.get(&peer) else { return };
        if sending.attempt != attempt {
            return;
        }
        if sending.has_failed || now - sending.progress.1 > PATIENCE {
            return self.sending_failed(slot, peer);
        }
        self.coverage.count("transfers of snapshots resumed");
        self.offer(slot, peer);
    }

    /// Trying again at once is of no use: the core hears of it after a pause.
    fn give_up_sending(&mut self, slot: usize, peer: NodeId, pause: Time) {
        let process = self.raft_of(slot);
        let Some(raft) = &mut self.slots[slot].raft else { return };
        if let Some(sending) = raft.sendings.get_mut(&peer) {
            sending.attempt += 1;
            sending.has_failed = true;
            let attempt = sending.attempt;
            self.at(pause, Event::SendLate(process, peer, attempt));
        }
        self.end_if_failed(slot);
    }

    fn sending_failed(&mut self, slot: usize, peer: NodeId) {
        if let Some(raft) = &mut self.slots[slot].raft {
            raft.sendings.remove(&peer);
        }
        self.coverage.count("transfers of snapshots given up");
        self.hear(slot, EntriesEvent::SnapshotFailed(peer));
    }

    /// The peer has answered a step.
    pub fn go_on_sending(
        &mut self,
        slot: usize,
        peer: NodeId,
        attempt: u64,
        reply: &SnapshotReply,
    ) {
        let (now, node) = (self.now, self.slots[slot].node);
        let piece_bytes = self.rng.random_range(1..=4) * self.plan.piece_bytes;
        let Some(raft) = &mut self.slots[slot].raft else { return };
        let Some(sending) = raft.sendings.get_mut(&peer) else { return };
        if sending.attempt != attempt {
            return;
        }
        match reply {
            &SnapshotReply::Have(Ok(have)) if have <= sending.snapshot.bytes => {
                sending.attempt += 1;
                sending.have = have;
                if have > sending.progress.0 {
                    sending.progress = (have, now);
                }
                self.next_piece(slot, peer, piece_bytes);
            }
            SnapshotReply::Have(Err(SnapshotRefusal::WrongOffset { .. })) => self.offer(slot, peer),
            SnapshotReply::Have(Err(SnapshotRefusal::Bad { .. })) => {
                let snapshot = sending.snapshot.clone();
                let verified = raft.shelf.verify(&snapshot);
                self.coverage.count("snapshots verified for a peer that found damage");
                drop(verified);
                self.give_up_sending(slot, peer, REFUSED_PAUSE);
            }
            SnapshotReply::Have(Err(SnapshotRefusal::NoRoom { .. })) => {
                self.give_up_sending(slot, peer, NO_ROOM_PAUSE);
            }
            SnapshotReply::Have(Ok(_) | Err(_)) => {
                self.give_up_sending(slot, peer, REFUSED_PAUSE);
            }
            SnapshotReply::Installed(reply) => {
                let token = sending.token;
                raft.sendings.remove(&peer);
                self.coverage.count("transfers of snapshots finished");
                let body = Message::SnapshotResponse(reply.response);
                let answer = Envelope { from: peer, to: node, term: reply.term, token, body };
                self.hear(slot, EntriesEvent::PeerSays(answer));
            }
        }
    }

    fn next_piece(&mut self, slot: usize, peer: NodeId, piece_bytes: usize) {
        let Some(raft) = &mut self.slots[slot].raft else { return };
        let Some(sending) = raft.sendings.get(&peer) else { return };
        let (term, id, offset) = (sending.term, sending.snapshot.id.0, sending.have);
        let step = if offset < sending.snapshot.bytes {
            match sending.file.read_at(offset, piece_bytes) {
                Ok(bytes) => SnapshotStep::Piece(SnapshotPiece { term, id, offset, bytes }),
                Err(_unreadable) => return self.give_up_sending(slot, peer, REFUSED_PAUSE),
            }
        } else {
            SnapshotStep::Install(term, sending.snapshot.meta.clone())
        };
        self.send_step(slot, peer, step);
    }
}
