//! Whole groups of members in a virtual network, by seed. A failure names its seed; the same seed fails again.

#[cfg(test)]
mod measure;
#[cfg(test)]
mod safety;
#[cfg(test)]
mod world;

use std::path::Path;

use member::codec::Codec;
use member::key::{Key, KeyRing, NONCE_BYTES};
use member::swim::{Event, Output, State, Tags};
use rand::rngs::ChaCha12Rng;
use rand::{RngExt, SeedableRng};
use world::World;

#[test]
fn a_storm_of_joins_converges_with_bounded_traffic() {
    for seed in 0..3 {
        let mut world = World::new(seed, 100);
        world.loss = 0.02;
        world.start_all();
        world.expect_within(30_000, World::all_alive);
        let elapsed_s = world.now_ms / 1_000 + 1;
        for node in &world.nodes {
            let sent = node.swim.as_ref().unwrap().counters().sent_bytes;
            assert!(sent / elapsed_s < 300_000, "seed {seed}: {} bytes/s", sent / elapsed_s);
        }
    }
}

#[test]
fn members_with_the_largest_tags_learn_of_each_other_in_bounded_datagrams() {
    let mut world = with_large_tags(1, 60);
    // Every datagram's size is asserted by the world.
    world.start_all();
    world.expect_within(30_000, World::all_alive);
}

#[test]
fn a_killed_member_is_found_by_all_within_the_bound() {
    for count in [2, 3, 5, 10] {
        for seed in 0..20 {
            let mut world = World::converged(seed, count);
            world.kill(1);
            let settings = world.settings;
            let bound_ms = settings.first_suspicion_bound_ms(count)
                + settings.suspicion_max_ms(count)
                + 10 * settings.gossip_interval_ms;
            world.expect_within(bound_ms, |world| world.all_believe(1, State::Dead));
            assert_eq!(world.false_deaths(), 0, "seed {seed}, {count} members");
        }
    }
}

#[test]
fn a_restarted_member_is_alive_again_at_once() {
    for seed in 0..20 {
        let mut world = World::converged(seed, 5);
        world.kill(2);
        world.expect_within(20_000, |world| world.all_believe(2, State::Dead));
        world.start(2);
        world.expect_within(2_000, World::all_alive);
        world.kill(3);
        world.run(300);
        world.start(3);
        world.expect_within(2_000, World::all_alive);
    }
}

#[test]
fn a_member_that_returns_on_another_address_is_the_same_and_its_old_address_is_free() {
    let mut world = World::converged(7, 4);
    world.kill(2);
    world.expect_within(20_000, |world| world.all_believe(2, State::Dead));
    let old_address = world.nodes[2].address;
    world.nodes[2].address = "10.9.9.9:6000".parse().unwrap();
    world.start(2);
    let newcomer = world.add_node();
    world.nodes[newcomer].address = old_address;
    world.start(newcomer);
    world.expect_within(5_000, World::all_alive);
    let moved = world.nodes[2].id;
    let view = world.nodes[0].swim.as_ref().unwrap().view();
    let (_, _, profile) = view.into_iter().find(|(id, ..)| *id == moved).unwrap();
    assert_eq!(profile.address, world.nodes[2].address);
}

#[test]
fn an_address_that_now_belongs_to_another_member_does_not_keep_the_old_one_alive() {
    let mut world = World::converged(8, 4);
    world.kill(2);
    let newcomer = world.add_node();
    world.nodes[newcomer].address = world.nodes[2].address;
    world.start(newcomer);
    world.expect_within(20_000, |world| world.all_believe(2, State::Dead) && world.all_alive());
}

#[test]
fn healed_partitions_merge_within_a_minute() {
    for (seed, groups) in [
        (1, vec![0, 0, 0, 1, 1, 1]),
        (2, vec![0, 1, 1, 1, 1]),
        (3, vec![1, 0, 0, 0, 0]),
        (4, vec![0, 1, 2, 3, 4]),
        (5, vec![0, 1]),
        (6, (0..40).map(|node| u8::from(node % 2 == 0)).collect()),
    ] {
        let mut world = World::converged(seed, groups.len());
        // Only what members remember of each other brings them together: nobody has a seed.
        world.nodes.iter_mut().for_each(|node| node.seeds.clear());
        world.groups = groups;
        world.run(120_000);
        assert!(!world.all_alive());
        world.groups.fill(0);
        world.expect_within(60_000, World::all_alive);
    }
}

#[test]
fn whoever_restarts_without_memory_or_seeds_is_let_in_by_those_who_probe_its_address() {
    for seed in 0..5 {
        for empty_disk in [false, true] {
            let mut world = World::converged(seed, 5);
            world.nodes.iter_mut().for_each(|node| node.seeds.clear());
            // Until nobody passes on any news by which it could learn of the others.
            world.run(30_000);
            world.kill(0);
            if empty_disk {
                world.wipe(0);
            }
            world.start(0);
            world.expect_within(5_000, World::all_alive);
        }
    }
}

/// With the largest tags, so that the view takes many datagrams.
fn with_large_tags(seed: u64, count: usize) -> World {
    let mut world = World::new(seed, count);
    let long = "a".repeat(250);
    for node in &mut world.nodes {
        node.tags = Tags {
            raft_address: format!("{long}:6004"),
            http_address: format!("{long}:6003"),
            ..Tags::default()
        };
    }
    world
}

/// Whether `observer` has heard of everyone, dead or alive.
fn knows_everyone(world: &World, observer: usize) -> bool {
    world.nodes.iter().all(|node| world.belief(observer, node.id).is_some())
}

#[test]
fn a_newcomer_soon_knows_a_large_group() {
    let mut world = World::converged(1, 60);
    world.run(30_000);
    let newcomer = world.add_node();
    world.start(newcomer);
    world.expect_within(2_000, |world| knows_everyone(world, newcomer));
}

#[test]
fn a_view_larger_than_one_answer_is_shown_over_several() {
    let mut world = with_large_tags(1, 60);
    world.start_all();
    world.expect_within(30_000, World::all_alive);
    (1..60).for_each(|node| world.kill(node));
    // Alone among so many dead it takes its time to bury them. Then only it remembers them.
    let buried = |world: &World| {
        (1..60).all(|node| world.belief(0, world.nodes[node].id) == Some(State::Dead))
    };
    world.expect_within(1_200_000, buried);
    world.run(60_000);
    let newcomer = world.add_node();
    world.start(newcomer);
    world.expect_within(60_000, |world| knows_everyone(world, newcomer));
}

#[test]
fn news_that_was_missed_arrives_by_anti_entropy() {
    for seed in 0..5 {
        let mut world = World::converged(seed, 5);
        world.run(5_000);
        world.groups[4] = 1;
        let tags = Tags { role: "voter".to_owned(), ..Tags::default() };
        world.set_tags(1, tags.clone());
        // Longer than the news is passed on, shorter than a suspicion.
        world.run(1_500);
        world.groups[4] = 0;
        let id = world.nodes[1].id;
        world.expect_within(60_000, |world| {
            let view = world.nodes[4].swim.as_ref().unwrap().view();
            view.into_iter().any(|(of, _, profile)| of == id && profile.tags == tags)
        });
    }
}

#[test]
fn an_accusation_gets_its_second_opinions_before_the_shortest_suspicion_ends() {
    for seed in 0..50 {
        let mut world = World::converged(seed, 4);
        world.kill(1);
        let first = |world: &World, state| {
            let found = world.beliefs.iter().find(|belief| belief.state == state);
            found.map(|belief| belief.at_ms)
        };
        world.expect_within(20_000, |world| first(world, State::Dead).is_some());
        let (suspect_ms, dead_ms) = (first(&world, State::Suspect), first(&world, State::Dead));
        let lasted_ms = dead_ms.unwrap() - suspect_ms.unwrap();
        assert!(lasted_ms <= world.settings.suspicion_min_ms(4) + 10, "seed {seed}: {lasted_ms}");
    }
}

#[test]
fn disjoint_groups_with_a_common_seed_merge_within_a_minute() {
    for seed in 0..5 {
        let mut world = World::new(seed, 6);
        let other = world.nodes[3].address;
        for node in &mut world.nodes[3..] {
            node.seeds = vec![other];
        }
        world.start_all();
        world.run(30_000);
        assert!(!world.all_alive());
        let first = world.nodes[0].address;
        world.nodes[5].seeds.push(first);
        world.expect_within(60_000, World::all_alive);
    }
}

#[test]
fn whoever_starts_before_its_seed_joins_when_that_comes_up() {
    let mut world = World::new(3, 4);
    (1..4).for_each(|node| world.start(node));
    world.run(60_000);
    world.start(0);
    world.expect_within(5_000, World::all_alive);
}

#[test]
fn leaving_is_not_dying_and_a_return_undoes_it() {
    for seed in 0..10 {
        let mut world = World::converged(seed, 5);
        world.call(2, member::swim::Swim::leave);
        world.expect_within(3_000, |world| world.all_believe(2, State::Left));
        // It still answers, then it is gone: neither makes it dead.
        world.run(60_000);
        world.kill(2);
        world.run(120_000);
        assert!(world.all_believe(2, State::Left), "seed {seed}");
        assert!(world.beliefs.iter().all(|belief| belief.state != State::Dead), "seed {seed}");
        world.start(2);
        world.expect_within(3_000, World::all_alive);
    }
}

#[test]
fn tags_reach_everyone_and_survive_suspicion() {
    let mut world = World::converged(5, 5);
    let tags = Tags { role: "voter".to_owned(), ..Tags::default() };
    world.set_tags(4, tags.clone());
    let id = world.nodes[4].id;
    world.expect_within(3_000, |world| {
        world.living().into_iter().all(|observer| {
            let view = world.nodes[observer].swim.as_ref().unwrap().view();
            view.into_iter().any(|(of, _, profile)| of == id && profile.tags == tags)
        })
    });
}

#[test]
fn clusters_on_one_network_never_mix_and_whoever_has_none_meets_both() {
    let mut world = World::new(6, 7);
    for (number, node) in world.nodes.iter_mut().enumerate().take(6) {
        node.tags.cluster = Some(1 + number as u128 % 2);
    }
    let everywhere: Vec<_> = world.nodes.iter().map(|node| node.address).collect();
    world.nodes.iter_mut().for_each(|node| node.seeds.clone_from(&everywhere));
    world.start_all();
    let knows = |world: &World, observer: usize, subject: usize| {
        world.belief(observer, world.nodes[subject].id).is_some()
    };
    world.expect_within(30_000, |world| {
        (0..6).all(|node| {
            knows(world, 6, node) && knows(world, node, 6) && knows(world, node, (node + 2) % 6)
        })
    });
    world.run(120_000);
    for observer in 0..6 {
        for stranger in (0..6).filter(|other| other % 2 != observer % 2) {
            assert!(!knows(&world, observer, stranger), "{observer} knows {stranger}");
        }
    }
    assert!(world.nodes[0].swim.as_ref().unwrap().counters().foreign > 0);
    // Now it joins one of them, and the other's members vanish from its view.
    world.set_tags(6, Tags { cluster: Some(1), ..Tags::default() });
    assert!(knows(&world, 6, 0) && !knows(&world, 6, 1));
    world.expect_within(60_000, |world| {
        [1, 3, 5].iter().all(|other| world.belief(*other, world.nodes[6].id) == Some(State::Dead))
    });
}

#[test]
fn sealed_members_converge_through_a_rotation_of_keys_and_strangers_stay_out() {
    let (old, new) = (Key::new(&[1; 32]), Key::new(&[2; 32]));
    let mut world = World::new(9, 5);
    world.use_keys(0, KeyRing::new([old.clone(), new.clone()]));
    world.use_keys(1, KeyRing::new([new.clone(), old.clone()]));
    world.use_keys(2, KeyRing::new([old.clone(), new.clone()]));
    world.use_keys(3, KeyRing::new([Key::new(&[3; 32])]));
    world.start_all();
    world.run(30_000);
    for (observer, subject, expected) in [
        (0, 1, true),
        (1, 2, true),
        (2, 0, true),
        (3, 0, false),
        (0, 3, false),
        (4, 0, false),
        (0, 4, false),
    ] {
        let known = world.belief(observer, world.nodes[subject].id).is_some();
        assert_eq!(known, expected, "{observer} of {subject}");
    }
}

#[test]
fn two_processes_on_copies_of_one_directory_do_not_flood_the_others() {
    let mut world = World::converged(4, 5);
    let copy = world.add_node();
    world.nodes[copy].id = world.nodes[2].id;
    world.nodes[copy].incarnation = world.nodes[2].incarnation;
    world.start(copy);
    world.run(60_000);
    assert!(world.conflicts > 0);
    assert!(world.conflicts <= 60, "{} claims in a minute", world.conflicts);
    let sent = world.nodes[0].swim.as_ref().unwrap().counters().sent_bytes;
    assert!(sent / 60 < 20_000, "{} bytes/s", sent / 60);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed, 8);
        world.loss = 0.1;
        world.start_all();
        world.run(20_000);
        world.pause(3, 4_000);
        world.groups[1] = 1;
        world.run(30_000);
        world.kill(5);
        world.groups[1] = 0;
        world.run(60_000);
        world.trace()
    };
    for seed in 0..3 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1), run(2));
}

#[test]
fn garbage_and_mutated_datagrams_change_nothing() {
    let mut world = World::converged(2, 4);
    world.recording = Some(Vec::new());
    world.run(30_000);
    let recorded = world.recording.take().unwrap();
    let mut rng = ChaCha12Rng::seed_from_u64(3);
    for (from, _, mut bytes) in recorded {
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
        bytes.truncate(rng.random_range(0..=bytes.len()));
        let now_ms = world.now_ms;
        world.call(1, |swim| {
            let output = swim.handle(now_ms, from, &bytes);
            assert!(output.send.is_empty());
            assert!(output.events.iter().all(|event| matches!(event, Event::Dropped { .. })));
            Output::default()
        });
    }
    assert!(world.nodes[1].swim.as_ref().unwrap().counters().dropped > 50);
    world.run(10_000);
    assert!(world.all_alive());
}

#[test]
fn forged_datagrams_with_a_right_checksum_cause_neither_panic_nor_oversize() {
    let mut world = World::converged(2, 4);
    world.recording = Some(Vec::new());
    world.set_tags(1, Tags { role: "voter".to_owned(), ..Tags::default() });
    world.run(60_000);
    let recorded = world.recording.take().unwrap();
    let codec = Codec::new(None, KeyRing::default());
    let mut rng = ChaCha12Rng::seed_from_u64(4);
    let mut understood = 0;
    for (from, _, datagram) in recorded.iter().cycle().take(20_000) {
        let mut body = codec.unwrap(datagram).unwrap();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..body.len());
            body[at] = rng.random();
        }
        let now_ms = world.now_ms;
        let forged = codec.wrap(&body, &[0; NONCE_BYTES]);
        world.call(1, |swim| {
            let output = swim.handle(now_ms, *from, &forged);
            understood += usize::from(output.events.is_empty());
            output
        });
    }
    assert!(understood > 5_000, "{understood}");
    world.run(60_000);
}

#[test]
fn the_protocol_does_no_io() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let swim = std::fs::read_dir(source.join("swim")).unwrap().map(|file| file.unwrap().path());
    let files: Vec<_> = swim.chain([source.join("codec.rs"), source.join("key.rs")]).collect();
    assert!(files.len() > 10);
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        for word in
            ["tokio", "std::time", "std::fs", "std::io", "Socket::", "rand::rng()", "HashMap"]
        {
            assert!(!text.contains(word), "{} uses {word}", path.display());
        }
    }
}
