//! What the network needs of a gossip protocol: ours and foca stand behind the same few calls.

use std::net::SocketAddr;

/// A member process, without clock and sockets. Time is in ms since the world began.
pub(crate) trait Gossip: Sized {
    /// How it is called in the table.
    const NAME: &'static str;

    /// A process starts and asks its seeds to be let in.
    fn start(birth: &Birth, effects: &mut Effects) -> Self;
    /// A datagram arrives.
    fn receive(&mut self, now_ms: u64, from: SocketAddr, datagram: &[u8], effects: &mut Effects);
    /// When [`Gossip::wake`] is due.
    fn next_wake_ms(&self) -> u64;
    /// Does what is due.
    fn wake(&mut self, now_ms: u64, effects: &mut Effects);
    /// Says good-bye.
    fn leave(&mut self, now_ms: u64, effects: &mut Effects);
    /// Counts how often the member had to say that it lives: ours the incarnation, foca's the renewal of its identity.
    /// A death is declared of one life.
    fn life(&self) -> u64;
}

/// What a process starts with.
pub(crate) struct Birth {
    pub(crate) number: usize,
    /// Above every earlier one of this member: its disk remembers.
    pub(crate) life: u64,
    /// How many members the world is meant to have.
    pub(crate) members: usize,
    /// The introducers.
    pub(crate) seeds: Vec<usize>,
    /// Of everything random in it.
    pub(crate) seed: [u8; 32],
    pub(crate) now_ms: u64,
}

/// What a call led to.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) sent: Vec<(SocketAddr, Vec<u8>)>,
    pub(crate) news: Vec<News>,
}

/// A change of belief.
#[derive(Clone, Copy)]
pub(crate) struct News {
    pub(crate) subject: usize,
    pub(crate) life: u64,
    /// Whether it takes part: alive or suspect. Else it is dead, or has left.
    pub(crate) up: bool,
}

/// Where a member gossips.
pub(crate) fn address(number: usize) -> SocketAddr {
    let number = u16::try_from(number).unwrap();
    let [high, low] = number.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 6_000))
}

/// Whose address it is.
pub(crate) fn number(address: SocketAddr) -> usize {
    let SocketAddr::V4(address) = address else { panic!("{address} is none of ours") };
    let [.., high, low] = address.ip().octets();
    usize::from(u16::from_be_bytes([high, low]))
}
