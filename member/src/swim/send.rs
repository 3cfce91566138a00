//! What leaves: envelopes with news on their backs.

use std::net::SocketAddr;

use rand::RngExt;

use super::member::{MemberId, State};
use super::message::{BodyWriter, Envelope, Message, Update};
use super::settings::MAX_SYNC_DATAGRAMS;
use super::table::Entry;
use super::{Datagram, Swim};
use crate::key::NONCE_BYTES;

impl Swim {
    /// Sends a message with as much news as fits.
    pub(super) fn send(&mut self, to: MemberId, address: SocketAddr, message: Message) {
        let mut body = self.begin(Some(to), message);
        // Whoever is not there to pass it on would only use the budget up.
        if self.table.get(to).is_some_and(Entry::is_live) {
            let budget = self.settings.retransmits(self.table.live_count());
            self.news.fill(&mut body, budget);
        }
        self.transmit(address, body);
    }

    /// Tells someone what we say of ourselves.
    pub(super) fn send_own_word(&mut self, to: MemberId, address: SocketAddr) {
        let mut body = self.begin(Some(to), Message::Gossip);
        body.push(&self.own_update());
        self.transmit(address, body);
    }

    /// Asks whoever is at `address`, or `to` if it is there, to be let in.
    pub(super) fn send_join(&mut self, address: SocketAddr, to: Option<MemberId>) {
        if self.own.state != State::Left {
            let body = self.begin(to, Message::Join);
            self.transmit(address, body);
        }
    }

    /// Answers who asks to be let in: tells of ourselves, and a newcomer of some others too; the rest comes by
    /// anti-entropy.
    pub(super) fn send_welcome(&mut self, to: MemberId, address: SocketAddr, newcomer: bool) {
        let mut body = self.begin(Some(to), Message::Welcome);
        let most = if newcomer { usize::MAX } else { 0 };
        let others =
            self.table.sample(&mut self.rng, most, |id, entry| id != to && entry.is_live());
        let known = others.iter().filter_map(|(id, _)| Some((*id, self.table.get(*id)?)));
        let mut updates = known.map(|(id, entry)| entry.update(id));
        while updates.next().is_some_and(|update| body.push(&update)) {}
        drop(updates);
        self.transmit(address, body);
    }

    /// Shows our view, at most [`MAX_SYNC_DATAGRAMS`] of it; the next time goes on where this one ended.
    pub(super) fn send_view(&mut self, to: MemberId, address: SocketAddr, reply: bool) {
        let mut body = self.begin(Some(to), Message::Sync { reply });
        let mut bodies = Vec::new();
        let from = self.sync_cursor;
        for (id, entry) in self.table.iter_from(from) {
            let update = entry.update(id);
            if !body.push(&update) {
                bodies.push(body);
                body = self.begin(Some(to), Message::Sync { reply: false });
                if bodies.len() == MAX_SYNC_DATAGRAMS {
                    break;
                }
                body.push(&update);
            }
            self.sync_cursor = id;
        }
        if bodies.len() < MAX_SYNC_DATAGRAMS {
            bodies.push(body);
        }
        for body in bodies {
            self.transmit(address, body);
        }
    }

    /// Starts a body. A receiver that is not held alive is told so first (Lifeguard's buddy system); one that does not
    /// take part in our view hears of us too: each side of a healed partition holds the other for dead.
    fn begin(&self, to: Option<MemberId>, message: Message) -> BodyWriter {
        let envelope = Envelope { from: self.id, to, message };
        let mut body = BodyWriter::new(envelope, self.codec.body_room_bytes());
        let receiver = to.and_then(|id| Some((id, self.table.get(id)?)));
        if let Some((id, entry)) = receiver.filter(|(_, entry)| !entry.is_alive()) {
            body.push(&entry.verdict(id));
        }
        let introduces = match message {
            Message::Join | Message::Welcome | Message::Sync { .. } => true,
            Message::Ping { .. }
            | Message::Ack { .. }
            | Message::PingReq { .. }
            | Message::Nack { .. }
            | Message::Gossip
            | Message::SyncRequest { .. } => receiver.is_none_or(|(_, entry)| !entry.is_live()),
        };
        if introduces {
            body.push(&self.own_update());
        }
        body
    }

    fn transmit(&mut self, to: SocketAddr, body: BodyWriter) {
        let nonce: [u8; NONCE_BYTES] = self.rng.random();
        let bytes = self.codec.wrap(&body.finish(), &nonce);
        self.counters.sent += 1;
        self.counters.sent_bytes += bytes.len() as u64;
        self.output.send.push(Datagram { to, bytes });
    }

    pub(super) fn own_update(&self) -> Update {
        let profile = Some((self.own.incarnation, self.profile.clone()));
        Update { id: self.id, standing: self.own, accuser: None, profile }
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.last_seq += 1;
        self.last_seq
    }
}
