//! Gossip: the real SWIM core, with datagrams over the world's network.

use std::net::SocketAddr;

use member::key::KeyRing;
use member::swim::{Incarnation, MemberId, Output, Profile, Settings, Start, Swim, Tags};
use rand::RngExt;

use super::World;
use super::agenda::{MS, Time};
use super::event::{Body, Event, Part};

/// The process.
pub struct MemberProcess {
    /// The protocol.
    pub swim: Swim,
    /// When its timer is set to.
    wakes_at: Time,
}

/// Where a machine gossips.
fn address(slot: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(slot + 1).unwrap_or(u8::MAX)], 6_000))
}

fn slot_of(address: SocketAddr) -> Option<usize> {
    match address {
        SocketAddr::V4(address) => usize::from(address.ip().octets()[3]).checked_sub(1),
        SocketAddr::V6(_) => None,
    }
}

impl World {
    /// Starts gossip on a machine.
    pub fn start_member(&mut self, slot: usize) {
        let (seed, now_ms) = (self.rng.random(), self.now / MS);
        let here = &mut self.slots[slot];
        here.incarnation += 1;
        here.starts[Part::Member as usize] += 1;
        let swim = Swim::new(Start {
            id: MemberId(here.node.0 ^ 0x006d_656d_6265_7200),
            incarnation: Incarnation(here.incarnation),
            profile: Profile {
                name: format!("node-{slot}"),
                address: address(slot),
                tags: Tags::default(),
            },
            keys: KeyRing::default(),
            settings: Settings::default(),
            seed,
            now_ms,
        });
        here.member = Some(MemberProcess { swim, wakes_at: Time::MAX });
        self.call_member(slot, Swim::tick);
    }

    /// A timer of gossip.
    pub fn gossip(&mut self, slot: usize) {
        if let Some(member) = &mut self.slots[slot].member {
            member.wakes_at = Time::MAX;
        }
        self.call_member(slot, Swim::tick);
    }

    /// A datagram arrives.
    pub fn hear_datagram(&mut self, slot: usize, from: usize, datagram: &[u8]) {
        self.call_member(slot, |swim, now_ms| swim.handle(now_ms, address(from), datagram));
    }

    /// Calls the protocol, carries out what it says, and sets its timer.
    pub fn call_member(&mut self, slot: usize, call: impl FnOnce(&mut Swim, u64) -> Output) {
        let (now, process) = (self.now, self.slots[slot].process(slot, Part::Member));
        let Some(member) = &mut self.slots[slot].member else { return };
        let mut output = call(&mut member.swim, now / MS);
        let mut datagrams = std::mem::take(&mut output.send);
        if output.try_seeds {
            for seed in (0..3).filter(|seed| *seed != slot) {
                datagrams.extend(member.swim.join(address(seed)).send);
            }
        }
        let due = (member.swim.next_tick_ms() * MS).max(now + 1);
        if due < member.wakes_at {
            member.wakes_at = due;
            self.agenda.push(due, Event::Gossip(process));
        }
        for datagram in datagrams {
            if let Some(to) = slot_of(datagram.to).filter(|to| *to < self.slots.len()) {
                self.send(slot, to, Body::Datagram(datagram.bytes));
            }
        }
    }
}
