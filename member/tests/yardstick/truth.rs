//! False deaths and traffic, beside foca's. What a false death is, `tally` says.

use std::ops::AddAssign;

use crate::MEMBERS;
use crate::faults::Plan;
use crate::gossip::Gossip;
use crate::network::Network;
use crate::ours::{Default, Hasty, Ours, Slow};
use crate::yardstick::{Lan, OurTiming, Yardstick};

/// What goes on, in networks of a hundred members.
struct World {
    name: &'static str,
    loss: f64,
    faults: fn(Plan) -> Plan,
    /// How long each network lives.
    seconds: u64,
}

const QUIET: World = World { name: "quiet", loss: 0.0, faults: |plan| plan, seconds: 180 };
const LOSS_10: World = World { name: "10 % loss", loss: 0.10, faults: |plan| plan, seconds: 300 };
const LOSS_20: World = World { name: "20 % loss", loss: 0.20, faults: |plan| plan, seconds: 300 };
const PAUSES: World = World {
    name: "pauses",
    loss: 0.0,
    faults: |plan| plan.pauses(40_000, 1_000, 16_000),
    seconds: 720,
};
const PAUSES_LOSS_10: World =
    World { name: "pauses, 10 %", loss: 0.10, faults: PAUSES.faults, seconds: 720 };
const EVERYTHING: World = World {
    name: "everything",
    loss: 0.10,
    faults: |plan| plan.pauses(40_000, 1_000, 16_000).comings_and_goings(24).partitions(120_000),
    seconds: 720,
};

/// How many member hours are asked for.
fn wanted_hours() -> Option<f64> {
    std::env::var("MEASURE_HOURS").ok().map(|hours| hours.parse().unwrap())
}

/// What came of it.
#[derive(Default)]
struct Outcome {
    hours: f64,
    false_deaths: u64,
    false_beliefs: u64,
    right_deaths: u64,
    /// Times hours.
    datagrams: f64,
    bytes: f64,
    /// Longest time from the end of the faults until everyone saw everyone, in ms.
    mended_ms: u64,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.hours += other.hours;
        self.false_deaths += other.false_deaths;
        self.false_beliefs += other.false_beliefs;
        self.right_deaths += other.right_deaths;
        self.datagrams += other.datagrams;
        self.bytes += other.bytes;
        self.mended_ms = self.mended_ms.max(other.mended_ms);
    }
}

impl Outcome {
    fn of<G: Gossip>(world: &World) -> Self {
        let mut outcome = Self::default();
        for seed in 0.. {
            outcome += Self::of_one::<G>(world, seed);
            if outcome.hours >= wanted_hours().unwrap_or(0.0) {
                break;
            }
        }
        outcome.print::<G>(world);
        outcome
    }

    fn of_one<G: Gossip>(world: &World, seed: u64) -> Self {
        let mut network = Network::<G>::converged(seed, MEMBERS);
        network.loss = world.loss;
        let length_ms = world.seconds * 1_000;
        network.run_with((world.faults)(Plan::new(seed, MEMBERS, length_ms)), length_ms);
        let hours = network.member_hours();
        let (datagrams, bytes) = network.traffic();
        let mut outcome = Self {
            hours,
            false_deaths: network.tally.false_deaths,
            false_beliefs: network.tally.false_beliefs,
            right_deaths: network.tally.right_deaths,
            datagrams: datagrams * hours,
            bytes: bytes * hours,
            mended_ms: 0,
        };
        network.loss = 0.0;
        network.heal();
        outcome.mended_ms =
            network.expect_within(600_000, "everyone sees everyone", Network::is_converged);
        outcome
    }

    fn print<G: Gossip>(&self, world: &World) {
        println!(
            "| {:12} | {:14} | {:5.0} | {:5} | {:8.3} | {:8.2} | {:5} | {:5.1} | {:5.0} | {:5.1} |",
            world.name,
            G::NAME,
            self.hours,
            self.false_deaths,
            self.false_deaths as f64 / self.hours,
            self.false_beliefs as f64 / self.hours,
            self.right_deaths,
            self.datagrams / self.hours,
            self.bytes / self.hours,
            self.mended_ms as f64 / 1_000.0,
        );
    }
}

/// Counts of rare events scatter by their square root; this is two of these.
fn scatter(count: u64) -> f64 {
    2.0 * (count as f64).sqrt()
}

/// Asserts that our rate of false deaths is at most a tenth of foca's, and not by luck: the scatter is added to ours
/// and taken from foca's, and 3 added to ours for what may be behind a zero (a mean of 3 shows none once in 20 times).
fn assert_a_tenth(world: &World) {
    let ours = Outcome::of::<Ours<Default>>(world);
    let foca = Outcome::of::<Yardstick<OurTiming>>(world);
    if wanted_hours().is_some() {
        Outcome::of::<Ours<Slow>>(world);
        Outcome::of::<Yardstick<Lan>>(world);
    }
    let at_most = (ours.false_deaths as f64 + scatter(ours.false_deaths) + 3.0) / ours.hours;
    let at_least = (foca.false_deaths as f64 - scatter(foca.false_deaths)) / foca.hours;
    assert!(
        10.0 * at_most <= at_least,
        "{}: {} in {:.0} h against foca's {} in {:.0} h",
        world.name,
        ours.false_deaths,
        ours.hours,
        foca.false_deaths,
        foca.hours,
    );
    assert!(ours.mended_ms <= 60_000, "{}: mended after {} ms", world.name, ours.mended_ms);
}

/// At 10 % foca errs too rarely for a ratio in the gate's few hours; 200 are enough.
#[test]
fn false_deaths_at_10_percent_loss_are_at_most_a_tenth_of_focas() {
    if wanted_hours().is_some_and(|hours| hours >= 200.0) {
        assert_a_tenth(&LOSS_10);
    } else {
        assert_eq!(Outcome::of::<Ours<Default>>(&LOSS_10).false_deaths, 0);
    }
}

#[test]
fn false_deaths_at_20_percent_loss_are_at_most_a_tenth_of_focas() {
    assert_a_tenth(&LOSS_20);
}

#[test]
fn false_deaths_under_pauses_are_at_most_a_tenth_of_focas() {
    assert_a_tenth(&PAUSES);
}

#[test]
fn false_deaths_under_pauses_and_10_percent_loss_are_at_most_a_tenth_of_focas() {
    assert_a_tenth(&PAUSES_LOSS_10);
}

#[test]
fn false_deaths_when_everything_goes_wrong_are_at_most_a_tenth_of_focas() {
    assert_a_tenth(&EVERYTHING);
}

#[test]
fn nothing_happens_when_nothing_does() {
    let ours = Outcome::of::<Ours<Default>>(&QUIET);
    let foca = Outcome::of::<Yardstick<OurTiming>>(&QUIET);
    assert_eq!((ours.false_deaths, ours.right_deaths, foca.false_deaths), (0, 0, 0));
    let bytes = ours.bytes / ours.hours;
    assert!(bytes < 400.0, "{bytes:.0} bytes per member and second");
}

/// None of the zeros above is blindness.
#[test]
fn the_tally_sees_our_errors_too() {
    let hasty = Outcome::of::<Ours<Hasty>>(&World { seconds: 5, ..LOSS_20 });
    assert!(hasty.false_deaths > 20, "{}", hasty.false_deaths);
}
