//! Our protocol as the daemon runs it, with tags as raft sets them.

use std::marker::PhantomData;
use std::net::SocketAddr;

use member::key::KeyRing;
use member::swim::{
    Event, Incarnation, MemberId, Output, Profile, Settings, Start, State, Swim, Tags,
};

use crate::gossip::{Birth, Effects, Gossip, News, address};

/// Which settings.
pub(crate) trait Tuning {
    const NAME: &'static str;
    fn settings() -> Settings;
}

/// As shipped.
pub(crate) struct Default;

impl Tuning for Default {
    const NAME: &'static str = "outrigger";

    fn settings() -> Settings {
        Settings::default()
    }
}

/// With the period and the timeout of foca's `new_lan`.
pub(crate) struct Slow;

impl Tuning for Slow {
    const NAME: &'static str = "outrigger, 1 s";

    fn settings() -> Settings {
        Settings { probe_interval_ms: 1_000, probe_timeout_ms: 500, ..Settings::default() }
    }
}

/// Without what makes it careful, and with less patience than some answers take.
pub(crate) struct Hasty;

impl Tuning for Hasty {
    const NAME: &'static str = "hasty";

    fn settings() -> Settings {
        Settings {
            probe_interval_ms: 40,
            probe_timeout_ms: 10,
            suspicion_multiplier: 0,
            health_max: 0,
            ..Settings::default()
        }
    }
}

pub(crate) struct Ours<T> {
    swim: Swim,
    seeds: Vec<SocketAddr>,
    tuning: PhantomData<T>,
}

impl<T> Ours<T> {
    fn carry_out(&mut self, mut output: Output, effects: &mut Effects) {
        if output.try_seeds {
            for seed in &self.seeds {
                let join = self.swim.join(*seed);
                output.send.extend(join.send);
            }
        }
        effects.sent.extend(output.send.into_iter().map(|datagram| (datagram.to, datagram.bytes)));
        for event in output.events {
            if let Event::StateChanged { id, after, incarnation, .. } = event {
                effects.news.push(News {
                    subject: usize::try_from(id.0).unwrap() - 1,
                    life: incarnation.0,
                    up: matches!(after, State::Alive | State::Suspect),
                });
            }
        }
    }
}

impl<T: Tuning> Gossip for Ours<T> {
    const NAME: &'static str = T::NAME;

    fn start(birth: &Birth, _effects: &mut Effects) -> Self {
        let number = birth.number as u64;
        let swim = Swim::new(Start {
            id: MemberId(number + 1),
            incarnation: Incarnation(birth.life),
            profile: Profile {
                name: format!("node{number}"),
                address: address(birth.number),
                tags: Tags {
                    cluster: Some(0xfeed),
                    node: Some(number + 1),
                    raft_address: address(birth.number).to_string(),
                    http_address: address(birth.number).to_string(),
                    role: "learner".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                },
            },
            keys: KeyRing::default(),
            settings: T::settings(),
            seed: birth.seed,
            now_ms: birth.now_ms,
        });
        let seeds = birth.seeds.iter().filter(|seed| **seed != birth.number);
        let seeds = seeds.map(|seed| address(*seed)).collect();
        Self { swim, seeds, tuning: PhantomData }
    }

    fn receive(&mut self, now_ms: u64, from: SocketAddr, datagram: &[u8], effects: &mut Effects) {
        let output = self.swim.handle(now_ms, from, datagram);
        self.carry_out(output, effects);
    }

    fn next_wake_ms(&self) -> u64 {
        self.swim.next_tick_ms()
    }

    fn wake(&mut self, now_ms: u64, effects: &mut Effects) {
        let output = self.swim.tick(now_ms);
        self.carry_out(output, effects);
    }

    fn leave(&mut self, _now_ms: u64, effects: &mut Effects) {
        let output = self.swim.leave();
        self.carry_out(output, effects);
    }

    fn life(&self) -> u64 {
        self.swim.own_standing().incarnation.0
    }
}
