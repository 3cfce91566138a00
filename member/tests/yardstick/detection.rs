//! A dead member is found within the formula.
//!
//! With n members, m = n − 1 of them living, protocol period T, and one crash:
//!
//! ```text
//! everyone knows after at most  (k + 1) · T  +  suspicion  +  ⌈λ ln(n + 1)⌉ · gossip interval
//! ```
//!
//! - **k**: periods until it is somebody's turn to probe the dead one. Each of m members has that turn at a random
//!   place of its round of m, so with probability (1 − k/m)^m ≈ e^−k nobody has had it after k periods. On average
//!   SWIM's e/(e − 1) = 1.58 periods pass (§3.1). Once in 10⁶ deaths it is more than k = 13. What any one member
//!   guarantees by itself is 2m − 1 = 197 (§4.3).
//! - **+ 1**: the verdict falls at the end of the probe.
//! - **suspicion**: from `min` = 4 · log₁₀ n · T = 4 s with two confirmations to `max` = 6 · `min` = 24 s with none
//!   (Lifeguard). Those who hear an accusation probe its subject next, so confirmations come within the minimum.
//! - **the last term**: how long news is passed on, λ ln n rounds (SWIM §4.1): 14 · 200 ms = 2.8 s.
//!
//! So with n = 100 and T = 500 ms: 7 s + 4 s + 2.8 s = **13.8 s**, the sharp bound, and 99 s + 24 s + 2.8 s =
//! **125.8 s**, the certain one. Under loss, members stretch T by their local health, up to 9-fold, and confirmations
//! may be late or lost; there the certain bound is asserted of each death and the sharp one of 19 in 20.

use crate::MEMBERS;
use crate::gossip::Gossip;
use crate::network::Network;
use crate::ours::{Default, Ours};
use crate::yardstick::{OurTiming, Yardstick};
use member::swim::Settings;

/// Deaths per network; the dead come back in between.
const DEATHS: usize = 8;

/// How many networks, each of another seed.
fn networks(in_the_gate: u64) -> u64 {
    let wanted = std::env::var("MEASURE_HOURS").map(|hours| hours.parse::<u64>().unwrap());
    wanted.map_or(in_the_gate, |hours| (hours / 10).max(in_the_gate))
}

/// The formula's terms, in ms.
struct Formula {
    likely_probe: f64,
    certain_probe: f64,
    min_suspicion: f64,
    max_suspicion: f64,
    dissemination: f64,
}

impl Formula {
    fn new(settings: &Settings) -> Self {
        let period = settings.probe_interval_ms as f64;
        let living = (MEMBERS - 1) as f64;
        // (1 − k/m)^m = 10⁻⁶
        let k = (living * (1.0 - 1e-6_f64.powf(1.0 / living))).ceil();
        Self {
            likely_probe: (k + 1.0) * period,
            certain_probe: 2.0 * living * period,
            min_suspicion: settings.suspicion_min_ms(MEMBERS) as f64,
            max_suspicion: settings.suspicion_max_ms(MEMBERS) as f64,
            dissemination: f64::from(settings.retransmits(MEMBERS))
                * settings.gossip_interval_ms as f64,
        }
    }
}

/// Times from crashes until the first and until all know, in ms, each sorted.
struct Times {
    first: Vec<f64>,
    all: Vec<f64>,
}

impl Times {
    fn of<G: Gossip>(loss: f64, seeds: u64) -> Self {
        let mut times = Self { first: Vec::new(), all: Vec::new() };
        for seed in 0..seeds {
            let mut network = Network::<G>::converged(1_000 + seed, MEMBERS);
            for death in 0..DEATHS {
                network.loss = loss;
                network.run(3_000 + 137 * seed);
                let victim = 10 + 11 * death;
                network.crash(victim);
                let first = network.expect_within(200_000, "someone knows", |network| {
                    let mut others = network.living().filter(|other| *other != victim);
                    others.any(|other| !network.believes_in(other, victim))
                });
                let rest = network.expect_within(600_000, "everyone knows", |network| {
                    network.all_believe(victim, false)
                });
                times.first.push(first as f64);
                times.all.push((first + rest) as f64);
                network.loss = 0.0;
                network.start(victim);
                network.expect_within(200_000, "it is back", Network::is_converged);
            }
        }
        times.first.sort_by(f64::total_cmp);
        times.all.sort_by(f64::total_cmp);
        times.print::<G>(loss);
        times
    }

    fn print<G: Gossip>(&self, loss: f64) {
        let show = |times: &[f64]| {
            let seconds = |at: usize| times[at.min(times.len() - 1)] / 1_000.0;
            format!(
                "{:5.1} / {:5.1} / {:5.1}",
                seconds(0),
                seconds(times.len() / 2),
                seconds(times.len())
            )
        };
        println!(
            "| {:2.0} % loss | {:14} | {:4} | {} | {} |",
            loss * 100.0,
            G::NAME,
            self.all.len(),
            show(&self.first),
            show(&self.all),
        );
    }
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len() as f64
}

#[test]
fn a_death_is_found_within_the_formula() {
    let settings = Settings::default();
    let formula = Formula::new(&settings);
    let times = Times::of::<Ours<Default>>(0.0, networks(3));
    let sharp = formula.likely_probe + formula.min_suspicion + formula.dissemination;
    assert!(times.all.iter().all(|time| *time <= sharp), "{:?} > {sharp}", times.all);
    // On average: SWIM's first detection, the verdict, the suspicion, and no more than a round of gossip.
    let e = std::f64::consts::E;
    let period = settings.probe_interval_ms as f64;
    let expected = (e / (e - 1.0) + 1.0) * period + formula.min_suspicion;
    let mean = mean(&times.first);
    assert!(mean <= expected + settings.gossip_interval_ms as f64, "{mean} > {expected}");
    Times::of::<Yardstick<OurTiming>>(0.0, networks(3));
}

#[test]
fn a_death_is_found_within_the_formula_under_loss() {
    let formula = Formula::new(&Settings::default());
    for loss in [0.10, 0.20] {
        let times = Times::of::<Ours<Default>>(loss, networks(2));
        let certain = formula.certain_probe + formula.max_suspicion + formula.dissemination;
        assert!(times.all.iter().all(|time| *time <= certain), "{:?} > {certain}", times.all);
        let sharp = formula.likely_probe + formula.min_suspicion + formula.dissemination;
        let late = times.all.iter().filter(|time| **time > sharp).count();
        assert!(late * 20 <= times.all.len(), "{:?} > {sharp}", times.all);
        Times::of::<Yardstick<OurTiming>>(loss, networks(2));
    }
}
