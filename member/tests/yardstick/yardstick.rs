//! foca 2.0, the yardstick: its real state machine, with the configuration that it recommends for a LAN of this size.
//!
//! What foca leaves to whoever uses it is done in its favour: it keeps no data but an address and a counter in an
//! identity, so its datagrams are as small as they can be; a process that knows nobody asks the introducers every
//! second, as our daemon does; its timers are delivered in order, also after a pause; a member that was declared dead
//! comes back at once under a new identity.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use foca::{
    AccumulatingRuntime, Config, Foca, Identity, NoCustomBroadcast, OwnedNotification,
    PostcardCodec, Timer,
};
use rand::SeedableRng;
use rand::rngs::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use crate::gossip::{Birth, Effects, Gossip, News, address, number};

const JOIN_EVERY_MS: u64 = 1_000;

/// Which configuration.
pub(crate) trait Timing {
    const NAME: &'static str;
    fn config(members: NonZeroU32) -> Config;
}

/// As [`Config::new_lan`] has it: a period of 1 s.
pub(crate) struct Lan;

impl Timing for Lan {
    const NAME: &'static str = "foca, new_lan";

    fn config(members: NonZeroU32) -> Config {
        Config::new_lan(members)
    }
}

/// As [`Config::new_lan`] has it, but with our protocol period and timeout, and its suspicion, which it makes of the
/// period, shortened likewise: 4 · log₁₀ n periods, which is our shortest.
pub(crate) struct OurTiming;

impl Timing for OurTiming {
    const NAME: &'static str = "foca";

    fn config(members: NonZeroU32) -> Config {
        let lan = Config::new_lan(members);
        let ours = member::swim::Settings::default();
        let period = Duration::from_millis(ours.probe_interval_ms);
        let scale = period.as_secs_f64() / lan.probe_period.as_secs_f64();
        Config {
            probe_period: period,
            probe_rtt: Duration::from_millis(ours.probe_timeout_ms),
            suspect_to_down_after: lan.suspect_to_down_after.mul_f64(scale),
            ..lan
        }
    }
}

/// An address, and a counter by which a member that was declared dead becomes another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Id {
    address: SocketAddr,
    life: u64,
}

impl Identity for Id {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        Some(Self { address: self.address, life: self.life + 1 })
    }

    fn addr(&self) -> SocketAddr {
        self.address
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life > adversary.life
    }
}

pub(crate) struct Yardstick<T> {
    foca: Foca<Id, PostcardCodec, ChaCha12Rng, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Id>,
    /// Due time, and within one moment foca's own order.
    timers: BinaryHeap<Reverse<(u64, Timer<Id>, u64)>>,
    next_timer: u64,
    seeds: Vec<SocketAddr>,
    join_ms: u64,
    left: bool,
    timing: PhantomData<T>,
}

impl<T> Yardstick<T> {
    fn join(&mut self, now_ms: u64) {
        self.join_ms = now_ms + JOIN_EVERY_MS;
        if self.foca.num_members() > 0 || self.left {
            return;
        }
        for seed in &self.seeds {
            // An announcement reaches whoever lives at the address, whatever its life.
            let anyone = Id { address: *seed, life: 0 };
            self.foca.announce(anyone, &mut self.runtime).expect("an announcement is short");
        }
    }

    fn carry_out(&mut self, now_ms: u64, effects: &mut Effects) {
        while let Some((after, timer)) = self.runtime.to_schedule() {
            let due_ms = now_ms + u64::try_from(after.as_millis()).unwrap();
            self.next_timer += 1;
            self.timers.push(Reverse((due_ms, timer, self.next_timer)));
        }
        while let Some((to, bytes)) = self.runtime.to_send() {
            effects.sent.push((to.address, bytes.to_vec()));
        }
        while let Some(notification) = self.runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(id) => effects.news.push(news(&id, true)),
                OwnedNotification::MemberDown(id) => effects.news.push(news(&id, false)),
                OwnedNotification::Rename(..)
                | OwnedNotification::Active
                | OwnedNotification::Idle
                | OwnedNotification::Defunct
                | OwnedNotification::Rejoin(_) => {}
            }
        }
    }
}

fn news(id: &Id, up: bool) -> News {
    News { subject: number(id.address), life: id.life, up }
}

impl<T: Timing> Gossip for Yardstick<T> {
    const NAME: &'static str = T::NAME;

    fn start(birth: &Birth, effects: &mut Effects) -> Self {
        let own = Id { address: address(birth.number), life: birth.life };
        let members = NonZeroU32::new(u32::try_from(birth.members).unwrap()).unwrap();
        let rng = ChaCha12Rng::from_seed(birth.seed);
        let seeds = birth.seeds.iter().filter(|seed| **seed != birth.number);
        let mut node = Self {
            foca: Foca::new(own, T::config(members), rng, PostcardCodec),
            runtime: AccumulatingRuntime::new(),
            timers: BinaryHeap::new(),
            next_timer: 0,
            seeds: seeds.map(|seed| address(*seed)).collect(),
            join_ms: birth.now_ms,
            left: false,
            timing: PhantomData,
        };
        node.join(birth.now_ms);
        node.carry_out(birth.now_ms, effects);
        node
    }

    fn receive(&mut self, now_ms: u64, _from: SocketAddr, datagram: &[u8], effects: &mut Effects) {
        // Its errors are for the log.
        let _error = self.foca.handle_data(datagram, &mut self.runtime);
        self.carry_out(now_ms, effects);
    }

    fn next_wake_ms(&self) -> u64 {
        let timer_ms = self.timers.peek().map_or(u64::MAX, |Reverse((due_ms, ..))| *due_ms);
        timer_ms.min(self.join_ms)
    }

    fn wake(&mut self, now_ms: u64, effects: &mut Effects) {
        // One at a time, so that datagrams that arrived between two of them are seen between them after a pause.
        if self.join_ms <= now_ms {
            self.join(now_ms);
        } else if let Some(Reverse((_, timer, _))) = self.timers.pop() {
            let _error = self.foca.handle_timer(timer, &mut self.runtime);
        }
        self.carry_out(now_ms, effects);
    }

    fn leave(&mut self, now_ms: u64, effects: &mut Effects) {
        self.left = true;
        self.foca.leave_cluster(&mut self.runtime).expect("an identity is short");
        self.carry_out(now_ms, effects);
    }

    fn life(&self) -> u64 {
        self.foca.identity().life
    }
}
