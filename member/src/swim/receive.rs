//! What arrives: one function per message.

use std::net::SocketAddr;

use super::member::{MemberId, State};
use super::message::{Envelope, Message, Update, decode_body};
use super::probe::Relay;
use super::table::Entry;
use super::{DropReason, Event, Swim};
use crate::codec::Unreadable;

impl Swim {
    pub(super) fn receive(&mut self, now_ms: u64, address: SocketAddr, datagram: &[u8]) {
        match self.read(datagram) {
            Ok((envelope, updates)) => self.on_envelope(now_ms, address, envelope, updates),
            Err(reason) => {
                self.counters.dropped += 1;
                if matches!(reason, DropReason::Unreadable(Unreadable::ForeignCluster(_))) {
                    self.counters.foreign += 1;
                }
                self.output.events.push(Event::Dropped { from: address, reason });
            }
        }
    }

    fn read(&self, datagram: &[u8]) -> Result<(Envelope, Vec<Update>), DropReason> {
        Ok(decode_body(&self.codec.unwrap(datagram)?)?)
    }

    fn on_envelope(
        &mut self,
        now_ms: u64,
        address: SocketAddr,
        envelope: Envelope,
        updates: Vec<Update>,
    ) {
        let Envelope { from, to, message } = envelope;
        // Our own words come back when a seed is ourselves.
        if from == self.id {
            return;
        }
        // Whoever lived at our address before is not us; but whoever asks for it may want to know us.
        if to.is_some_and(|id| id != self.id) {
            self.introduce(now_ms, from, address);
            return;
        }
        let accused = updates.first().is_some_and(|first| self.is_accusation(first));
        let before = self.table.get(from).map(Entry::standing);
        for update in updates {
            self.learn(now_ms, update);
        }
        let after = self.table.get(from).map(Entry::standing);
        if accused && before.is_some() {
            self.send_own_word(from, address);
        }
        self.on_message(now_ms, from, address, message, before != after);
    }

    /// Whoever holds something against us begins with it. It may have missed our refutation, and an accusation that we
    /// refuted long ago makes no new one: so it is told at once.
    fn is_accusation(&self, first: &Update) -> bool {
        first.id == self.id && first.standing.state != State::Alive && first.standing != self.own
    }

    fn on_message(
        &mut self,
        now_ms: u64,
        from: MemberId,
        address: SocketAddr,
        message: Message,
        newcomer: bool,
    ) {
        match message {
            Message::Ping { seq } => self.on_ping(now_ms, from, address, seq),
            Message::Ack { seq } => self.on_ack(from, seq),
            Message::PingReq { seq, target } => {
                self.on_ping_req(now_ms, from, address, seq, target);
            }
            Message::Nack { seq } => self.on_nack(from, seq),
            Message::Join => self.send_welcome(from, address, newcomer),
            Message::Welcome => self.on_welcome(now_ms),
            Message::Gossip => {}
            Message::SyncRequest { digest } => self.on_sync_request(from, address, digest),
            Message::Sync { reply } => self.on_sync(from, address, reply),
        }
    }

    fn on_ping(&mut self, now_ms: u64, from: MemberId, address: SocketAddr, seq: u64) {
        self.send(from, address, Message::Ack { seq });
        self.introduce(now_ms, from, address);
    }

    /// Someone knows us, or our address, whom we do not know: we have restarted without memory. Makes its acquaintance.
    fn introduce(&mut self, now_ms: u64, stranger: MemberId, address: SocketAddr) {
        if self.table.get(stranger).is_none() && self.timers.may_introduce(now_ms) {
            self.send_join(address, Some(stranger));
        }
    }

    fn on_ack(&mut self, from: MemberId, seq: u64) {
        if self.probe.as_ref().is_some_and(|probe| probe.is_answered_by(seq, from)) {
            self.probe = None;
            self.health.improve();
        } else if let Some(relay) = self.relays.on_ack(seq) {
            let message = Message::Ack { seq: relay.requester_seq };
            self.send(relay.requester, relay.address, message);
        }
    }

    fn on_ping_req(
        &mut self,
        now_ms: u64,
        requester: MemberId,
        address: SocketAddr,
        requester_seq: u64,
        target: MemberId,
    ) {
        if self.table.get(requester).is_none() {
            return;
        }
        let Some(target_address) = self.table.get(target).map(Entry::address) else {
            self.send(requester, address, Message::Nack { seq: requester_seq });
            return;
        };
        let seq = self.next_seq();
        let longest_ms = self.settings.probe_interval_ms * u64::from(self.settings.health_max + 1);
        let relay = Relay {
            requester,
            address,
            requester_seq,
            nack_at_ms: now_ms + self.settings.probe_timeout_ms * 4 / 5,
            expires_ms: now_ms + longest_ms,
        };
        self.relays.insert(seq, relay);
        self.send(target, target_address, Message::Ping { seq });
    }

    fn on_nack(&mut self, from: MemberId, seq: u64) {
        if let Some(probe) = &mut self.probe {
            probe.on_nack(seq, from);
        }
    }

    /// A welcome tells of some members; the rest is asked for soon, of one of them.
    fn on_welcome(&mut self, now_ms: u64) {
        if self.timers.is_first_welcome() {
            self.timers.sync_soon(now_ms, &mut self.rng);
        }
    }

    fn on_sync_request(&mut self, from: MemberId, address: SocketAddr, digest: u64) {
        let same = self.table.digest(self.id, self.own) == digest;
        if !same && self.table.get(from).is_some() && self.timers.may_answer_sync() {
            self.send_view(from, address, true);
        }
    }

    fn on_sync(&mut self, from: MemberId, address: SocketAddr, reply: bool) {
        if reply && self.table.get(from).is_some() && self.timers.may_answer_sync() {
            self.send_view(from, address, false);
        }
    }
}
