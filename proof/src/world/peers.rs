//! Messages between cores: questions as calls, answers to whoever asked.

use raft::consensus::{AppendRequest, Envelope, Index, Message};
use raft::entries;
use raft::pipeline::digest_entries::EntriesEvent;
use raft::rpc::peer::AppendEntries;
use rand::RngExt;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::World;
use super::agenda::MS;
use super::event::{Body, Event, Packet, SnapshotReply};
use super::raft_process::Asked;
use raft::rpc::peer::InstallReply;

impl World {
    /// Sends a core's question to a peer.
    pub fn ask_peer(&mut self, slot: usize, envelope: Envelope) {
        self.check_sent(slot, &envelope);
        let (start, peer) = (self.raft_of(slot).start, envelope.to);
        let Some(&to) = self.places.get(&peer) else { return };
        let sent = self.send(slot, to, Body::Ask(start, envelope));
        if !sent && self.rng.random_bool(0.3) {
            // The call has failed, or its connection: sooner or later somebody notices.
            let process = self.raft_of(slot);
            let delay = self.rng.random_range(20 * MS..4_000 * MS);
            let unreachable = Box::new(EntriesEvent::PeerUnreachable(peer));
            self.at(delay, Event::Hear(process, unreachable));
        }
    }

    /// Puts a message on the network; false when it is lost.
    pub fn send(&mut self, from: usize, to: usize, body: Body) -> bool {
        let [first, again] = self.network.deliver(from, to);
        // What is passed on goes by a connection that repeats nothing; cores must bear that and more.
        let may_double = !matches!(body, Body::Forward(..) | Body::Forwarded(..));
        if let Some(delay) = again.filter(|_| may_double) {
            let packet = Packet { from: Some(from), to, body: body.clone() };
            self.at(delay, Event::Packet(Box::new(packet)));
        }
        if let Some(delay) = first {
            self.at(delay, Event::Packet(Box::new(Packet { from: Some(from), to, body })));
        }
        first.is_some()
    }

    /// A message arrives, if there is somebody.
    pub fn receive(&mut self, packet: Packet) {
        if let Body::Reply(client, attempt, reply) = packet.body {
            return self.hear_reply(client, attempt, reply);
        }
        let slot = packet.to;
        let is_gossip = matches!(packet.body, Body::Datagram(_));
        let part = if is_gossip { super::Part::Member } else { super::Part::Raft };
        if let Some(until) = self.slots[slot].paused(part, self.now) {
            // A process that goes on reads its connections in any order.
            let late = self.rng.random_range(0..2 * MS);
            return self.agenda.push(until + late, Event::Packet(Box::new(packet)));
        }
        if let (Body::Datagram(datagram), Some(from)) = (&packet.body, packet.from) {
            return self.hear_datagram(slot, from, datagram);
        }
        if self.slots[slot].raft.is_none() {
            return self.nobody_there(slot, packet);
        }
        self.receive_for_raft(slot, packet);
    }

    fn receive_for_raft(&mut self, slot: usize, packet: Packet) {
        let start = self.slots[slot].starts[super::Part::Raft as usize];
        match (packet.body, packet.from) {
            (Body::Ask(asker, envelope), Some(from)) => self.hear_peer(slot, from, asker, envelope),
            (Body::Answer(asker, envelope), _) if asker == start => {
                self.hear(slot, EntriesEvent::PeerSays(envelope));
            }
            (Body::Forward(asker, number, call), Some(from)) => {
                self.serve(
                    slot,
                    super::callers::Whom::Peer { slot: from, start: asker, number },
                    call,
                );
            }
            (Body::Forwarded(asker, number, reply), _) if asker == start => {
                self.hear_forwarded(slot, number, reply);
            }
            (Body::Snapshot(asker, attempt, step), Some(from)) => {
                self.hear_step(slot, from, (asker, attempt), step);
            }
            (Body::SnapshotReply(asker, attempt, peer, reply), _) if asker == start => {
                self.go_on_sending(slot, peer, attempt, &reply);
            }
            (Body::Request(client, attempt, call), None) => {
                self.serve(slot, super::callers::Whom::Client { client, attempt }, call);
            }
            _ => {}
        }
    }

    /// Connections to a process that is gone are refused, which its peers notice at once.
    fn nobody_there(&mut self, slot: usize, packet: Packet) {
        match (packet.body, packet.from) {
            (Body::Ask(start, envelope), Some(from))
                if !self.network.is_cut(slot, from) && self.rng.random_bool(0.2) =>
            {
                let process = self.raft_of(from);
                if process.start == start {
                    let event = Box::new(EntriesEvent::PeerUnreachable(envelope.to));
                    self.at(MS, Event::Hear(process, event));
                }
            }
            (Body::Request(client, attempt, _), None) => {
                self.reply_to_client(client, attempt, super::event::Reply::NotLeader(None));
            }
            _ => {}
        }
    }

    fn hear_peer(&mut self, slot: usize, from: usize, asker: u64, question: Envelope) {
        let here = &mut self.slots[slot];
        if question.to != here.node {
            // The hello names who is expected: it is another node that lives here now.
            return;
        }
        here.cluster = here.cluster.or(Some(super::CLUSTER));
        if matches!(question.body, Message::TimeoutNow) {
            return self.hear(slot, EntriesEvent::PeerSays(question));
        }
        self.put_question(slot, from, asker, question, None);
    }

    /// Hands a question to the core; its answer goes where it came from.
    pub fn put_question(
        &mut self,
        slot: usize,
        from: usize,
        asker: u64,
        question: Envelope,
        install: Option<u64>,
    ) {
        let token = question.token;
        let (reply, answer) = oneshot::channel();
        let question = if self.rng.random_bool(0.25) { through_wire(question) } else { question };
        let Some(raft) = &mut self.slots[slot].raft else { return };
        raft.asked.push(Asked { slot: from, start: asker, token, install, answer });
        self.hear(slot, EntriesEvent::PeerAsks { question, reply });
    }

    /// Sends the answers that are there.
    pub fn answer_peers(&mut self, slot: usize) {
        let Some(raft) = &mut self.slots[slot].raft else { return };
        let mut ready = Vec::new();
        raft.asked.retain_mut(|asked| match asked.answer.try_recv() {
            Ok(answer) => {
                ready.push((asked.slot, asked.start, asked.token, asked.install, answer));
                false
            }
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Closed) => false,
        });
        for (to, start, token, install, answer) in ready {
            self.check_sent(slot, &answer);
            let from = self.slots[slot].node;
            match (install, &answer.body) {
                (Some(attempt), Message::SnapshotResponse(response)) => {
                    let reply = InstallReply { term: answer.term, response: *response };
                    let reply = SnapshotReply::Installed(reply);
                    self.send(slot, to, Body::SnapshotReply(start, attempt, from, reply));
                }
                _ => {
                    self.send(slot, to, Body::Answer(start, Envelope { token, ..answer }));
                }
            }
        }
    }
}

/// A question as bytes and back, as it travels.
fn through_wire(envelope: Envelope) -> Envelope {
    let Message::Append(request) = envelope.body else { return envelope };
    let sent = AppendEntries {
        term: envelope.term,
        prev: request.prev,
        commit_index: request.commit_index.0,
        read_seq: request.read_seq,
        entries: entries::encode(&request.entries),
    };
    let bytes = postcard::to_stdvec(&sent).expect("an append can be written");
    let sent: AppendEntries = postcard::from_bytes(&bytes).expect("and read again");
    let entries = entries::decode(sent.prev, &sent.entries).expect("its entries too");
    let body = Message::Append(AppendRequest {
        prev: sent.prev,
        entries,
        commit_index: Index(sent.commit_index),
        read_seq: sent.read_seq,
    });
    Envelope { term: sent.term, body, ..envelope }
}
