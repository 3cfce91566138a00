//! What must not happen: the living are not buried, and the dead do not rise.

use member::codec::{Codec, MAX_DATAGRAM_BYTES};
use member::key::{KeyRing, NONCE_BYTES};
use member::swim::message::{BodyWriter, Envelope, Message, Update};
use member::swim::{Incarnation, Standing, State, Tags};

use crate::world::World;

#[test]
fn nobody_dies_falsely_at_up_to_five_percent_loss_over_hours() {
    for (seed, loss) in [(1, 0.0), (2, 0.01), (3, 0.05), (4, 0.05)] {
        let mut world = World::converged(seed, 5);
        world.loss = loss;
        world.run(2 * 3_600_000);
        assert_eq!(world.false_deaths(), 0, "seed {seed}, loss {loss}");
    }
}

#[test]
fn a_slow_network_kills_nobody() {
    let mut world = World::converged(1, 5);
    // Longer than the direct probe's patience both ways, still inside the period.
    world.delay_ms = 220;
    world.run(3_600_000);
    assert_eq!(world.false_deaths(), 0);
}

#[test]
fn a_suspect_that_is_reached_again_in_time_refutes() {
    let mut refuted = 0;
    for seed in 0..20 {
        let mut world = World::converged(seed, 5);
        world.groups[2] = 1;
        let id = world.nodes[2].id;
        world.expect_within(10_000, |world| world.belief(0, id) == Some(State::Suspect));
        world.groups[2] = 0;
        world.expect_within(5_000, World::all_alive);
        refuted += usize::from(world.false_deaths() == 0);
    }
    assert_eq!(refuted, 20);
}

#[test]
fn whoever_sleeps_buries_nobody_and_is_alive_again_when_it_wakes() {
    for seed in 0..20 {
        let mut world = World::converged(seed, 5);
        let sleeper = world.nodes[2].id;
        world.pause(2, 15_000);
        world.expect_within(15_000, |world| world.belief(0, sleeper) == Some(State::Dead));
        let wakes_ms = world.now_ms + 15_000;
        world.run(15_000);
        world.expect_within(3_000, World::all_alive);
        let buried = |belief: &&crate::world::Belief| {
            belief.state == State::Dead && belief.subject != sleeper && belief.at_ms <= wakes_ms
        };
        assert_eq!(world.beliefs.iter().find(buried), None, "seed {seed}");
    }
}

#[test]
fn a_suspicion_does_not_run_out_while_we_sleep() {
    for seed in 0..20 {
        let mut world = World::converged(seed, 5);
        let suspect = world.nodes[3].id;
        world.groups[3] = 1;
        world.expect_within(20_000, |world| world.belief(2, suspect) == Some(State::Suspect));
        world.groups[3] = 0;
        world.pause(2, 20_000);
        world.run(60_000);
        let buried = world.beliefs.iter().find(|belief| {
            belief.observer == 2 && belief.subject == suspect && belief.state == State::Dead
        });
        assert_eq!(buried, None, "seed {seed}");
    }
}

/// Found among a hundred members that pause: whoever woke with old accusations in its buffer, and had missed that they
/// were refuted, buried members that all others knew to be alive, because an accusation of an old incarnation was not
/// worth an answer to the accused.
#[test]
fn whoever_missed_a_refutation_buries_nobody() {
    for seed in 0..20 {
        let mut world = World::converged(seed, 5);
        world.run(5_000);
        let accused = world.nodes[1].id;
        let old = world.nodes[1].swim.as_ref().unwrap().own_standing().incarnation;
        // Member 2 does not hear that 1 has a new incarnation.
        world.groups[2] = 1;
        world.set_tags(1, Tags { role: "voter".to_owned(), ..Tags::default() });
        world.run(1_500);
        world.groups[2] = 0;
        world.beliefs.clear();
        for accuser in [3, 4] {
            accuse(&mut world, accuser, 2, 1, old);
        }
        world.run(20_000);
        let buried = world.beliefs.iter().find(|belief| {
            belief.observer == 2 && belief.subject == accused && belief.state == State::Dead
        });
        assert_eq!(buried, None, "seed {seed}");
    }
}

/// `accuser` tells `hearer` that it suspects that incarnation of `accused`.
fn accuse(world: &mut World, accuser: usize, hearer: usize, accused: usize, of: Incarnation) {
    let [from, to, accused] = [accuser, hearer, accused].map(|node| world.nodes[node].id);
    let envelope = Envelope { from, to: Some(to), message: Message::Gossip };
    let mut body = BodyWriter::new(envelope, MAX_DATAGRAM_BYTES);
    let standing = Standing::new(State::Suspect, of);
    assert!(body.push(&Update { id: accused, standing, accuser: Some(from), profile: None }));
    let datagram = Codec::new(None, KeyRing::default()).wrap(&body.finish(), &[0; NONCE_BYTES]);
    let (now_ms, address) = (world.now_ms, world.nodes[accuser].address);
    world.call(hearer, |swim| swim.handle(now_ms, address, &datagram));
}

#[test]
fn helpers_keep_a_broken_link_from_looking_like_a_death() {
    for seed in 0..5 {
        let mut world = World::converged(seed, 5);
        world.cuts.insert((1, 2));
        world.run(600_000);
        assert_eq!(world.beliefs, [], "seed {seed}");
    }
}

#[test]
fn old_datagrams_never_resurrect_a_dead_member() {
    for seed in 0..5 {
        let mut world = World::new(seed, 5);
        world.recording = Some(Vec::new());
        world.start_all();
        world.run(20_000);
        let recorded = world.recording.take().unwrap();
        world.kill(2);
        world.expect_within(20_000, |world| world.all_believe(2, State::Dead));
        world.beliefs.clear();
        for (from, to, bytes) in recorded {
            let now_ms = world.now_ms;
            let receiver = world.nodes.iter().position(|node| node.address == to).unwrap();
            world.call(receiver, |swim| swim.handle(now_ms, from, &bytes));
        }
        world.run(60_000);
        let id = world.nodes[2].id;
        let risen = world.beliefs.iter().find(|belief| belief.subject == id);
        assert_eq!(risen, None, "seed {seed}");
        assert!(world.all_alive(), "seed {seed}: and nobody else was harmed");
    }
}

#[test]
fn a_member_with_a_lost_disk_counter_outbids_its_own_death() {
    let mut world = World::converged(1, 4);
    world.kill(2);
    world.expect_within(20_000, |world| world.all_believe(2, State::Dead));
    // As if an old copy of the directory had been put back.
    world.nodes[2].incarnation = 0;
    world.start(2);
    world.expect_within(5_000, World::all_alive);
}

#[test]
fn minutes_of_fifty_percent_loss_are_survived() {
    for seed in 0..5 {
        let mut world = World::converged(seed, 5);
        world.loss = 0.5;
        world.run(120_000);
        world.loss = 0.0;
        world.expect_within(60_000, World::all_alive);
    }
}
