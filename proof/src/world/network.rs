//! The network between machines: what is lost, late, doubled or cut off.

use std::collections::BTreeSet;

use rand::RngExt;

use super::agenda::{MS, Time};
use super::random::{Rng, pick};

/// How the network is at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Share of messages that are lost.
    pub loss: f64,
    /// Share that comes twice.
    pub duplication: f64,
    /// Share that comes very late.
    pub stragglers: f64,
    /// Usual longest delay.
    pub delay: Time,
}

impl Weather {
    /// Nothing is lost.
    pub const CALM: Self = Self { loss: 0.0, duplication: 0.0, stragglers: 0.0, delay: 2 * MS };

    /// Any weather.
    pub fn random(rng: &mut Rng) -> Self {
        Self {
            loss: pick([0.0, 0.0, 0.005, 0.03, 0.12], rng),
            duplication: pick([0.0, 0.01, 0.1], rng),
            stragglers: pick([0.0, 0.001, 0.02], rng),
            delay: pick([MS, 3 * MS, 10 * MS, 60 * MS], rng),
        }
    }
}

/// Links between machines, by number. Clients reach every machine that runs.
#[derive(Debug)]
pub struct Network {
    /// How it is.
    pub weather: Weather,
    cuts: BTreeSet<(usize, usize)>,
    rng: Rng,
}

impl Network {
    /// A whole network.
    pub fn new(rng: Rng) -> Self {
        Self { weather: Weather::CALM, cuts: BTreeSet::new(), rng }
    }

    /// Cuts one direction of a link.
    pub fn cut(&mut self, from: usize, to: usize) {
        if from != to {
            self.cuts.insert((from, to));
        }
    }

    /// Mends all links.
    pub fn mend(&mut self) {
        self.cuts.clear();
    }

    /// Whether nothing passes in this direction.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// How long each copy of a message takes; none when it is lost.
    pub fn deliver(&mut self, from: usize, to: usize) -> [Option<Time>; 2] {
        if self.is_cut(from, to) || self.happens(self.weather.loss) {
            return [None, None];
        }
        let again = self.happens(self.weather.duplication).then(|| self.delay());
        [Some(self.delay()), again]
    }

    /// How long a message of a client takes, either way; none when it is lost.
    pub fn deliver_client(&mut self) -> Option<Time> {
        (!self.happens(self.weather.loss)).then(|| self.delay())
    }

    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.random_bool(share)
    }

    fn delay(&mut self) -> Time {
        if self.happens(self.weather.stragglers) {
            return self.rng.random_range(self.weather.delay..2_000 * MS);
        }
        self.rng.random_range(100..=self.weather.delay)
    }
}
