//! Part 3B: what a majority holds is agreed on, in one order, at little cost; without a majority there is nothing.

use raft::consensus::{Index, LogId};

use super::{SECOND, on_both_networks};

#[test]
fn basic_agree() {
    on_both_networks(3, |mut lab| {
        let mut before = Index(0);
        for _ in 0..3 {
            let known = lab.world.invariants.committed.last();
            let index = lab.one(3);
            assert!(index > known, "entry {index} was applied before it was proposed");
            assert!(index > before, "entry {index} comes after entry {before}");
            before = index;
        }
    });
}

/// Each command goes to each server once.
#[test]
fn rpc_bytes() {
    const COMMAND_BYTES: usize = 5000;
    const SLACK_BYTES: usize = 50_000;
    on_both_networks(3, |mut lab| {
        lab.one(3);
        let (sent, started) = (lab.world.network.bytes, lab.started_bytes);
        for _ in 0..10 {
            lab.one_of(COMMAND_BYTES, 3);
        }
        let bytes = lab.world.network.bytes - sent;
        let expected = 3 * (lab.started_bytes - started);
        assert!(bytes <= expected + SLACK_BYTES, "{bytes} bytes, expected {expected}");
    });
}

/// Followers fail one after the other.
#[test]
fn follower_failure() {
    on_both_networks(3, |mut lab| {
        lab.one(3);
        let leader = lab.check_one_leader();
        lab.disconnect(lab.after(leader, 1));
        lab.one(2);
        lab.sleep(SECOND);
        lab.one(2);

        let leader = lab.check_one_leader();
        lab.disconnect(lab.after(leader, 1));
        lab.disconnect(lab.after(leader, 2));
        let command = lab.start(leader).expect("it leads");
        lab.sleep(2 * SECOND);
        assert_eq!(lab.appliers(command), 0, "{command} has no majority");
    });
}

/// Leaders fail one after the other.
#[test]
fn leader_failure() {
    on_both_networks(3, |mut lab| {
        lab.one(3);
        let first = lab.check_one_leader();
        lab.disconnect(first);
        lab.one(2);
        lab.sleep(SECOND);
        lab.one(2);

        let second = lab.check_one_leader();
        lab.disconnect(second);
        let started: Vec<LogId> = lab.all().filter_map(|server| lab.start(server)).collect();
        assert!(!started.is_empty(), "the one that is cut off still leads");
        lab.sleep(2 * SECOND);
        for command in started {
            assert_eq!(lab.appliers(command), 0, "{command} has no majority");
        }
    });
}

/// A follower is cut off, comes back and catches up.
#[test]
fn fail_agree() {
    on_both_networks(3, |mut lab| {
        lab.one(3);
        let leader = lab.check_one_leader();
        let follower = lab.after(leader, 1);
        lab.disconnect(follower);
        lab.one(2);
        lab.one(2);
        lab.sleep(SECOND);
        lab.one(2);
        lab.one(2);

        lab.connect(follower);
        lab.one(3);
        lab.sleep(SECOND);
        lab.one(3);
    });
}

/// Three of five are cut off: nothing is agreed on until they are back.
#[test]
fn fail_no_agree() {
    on_both_networks(5, |mut lab| {
        lab.one(5);
        let leader = lab.check_one_leader();
        let cut_off = [1, 2, 3].map(|steps| lab.after(leader, steps));
        lab.disconnect_all(&cut_off);
        let command = lab.start(leader).expect("it leads");
        lab.sleep(2 * SECOND);
        assert_eq!(lab.appliers(command), 0, "{command} has no majority");

        lab.connect_all(&cut_off);
        let leader = lab.check_one_leader();
        let next = lab.start(leader).expect("it leads");
        // The entry without a majority may stay or go, and the leaders since then began with one each.
        assert!(next.index >= command.index, "{next} goes back behind {command}");
        lab.one(5);
    });
}

/// Five commands at the same moment all find their place.
#[test]
fn concurrent_starts() {
    on_both_networks(3, |mut lab| {
        lab.one(3);
        let leader = lab.check_one_leader();
        let started: Vec<LogId> = (0..5).map(|_| lab.start(leader).expect("it leads")).collect();
        assert!(started.is_sorted_by(|a, b| a.index.next() == b.index), "{started:?}");
        let last = *started.last().expect("five");
        assert!(lab.await_appliers(last, 3, 10 * SECOND), "{last} is not applied everywhere");
        for command in started {
            assert_eq!(lab.appliers(command), 3, "{command} is missing");
        }
    });
}

/// An old leader comes back with entries that nobody else has.
#[test]
fn rejoin() {
    on_both_networks(3, |mut lab| {
        lab.one(3);
        let first = lab.check_one_leader();
        lab.disconnect(first);
        let stale = [(); 3].map(|()| lab.start(first).expect("it leads"));
        lab.one(2);

        let second = lab.check_one_leader();
        lab.disconnect(second);
        lab.connect(first);
        lab.one(2);

        lab.connect(second);
        lab.one(3);
        for command in stale {
            assert_eq!(lab.appliers(command), 0, "{command} never had a majority");
        }
    });
}

/// Fifty entries without a majority on either side of a partition, and fifty that have one in between.
#[test]
fn backup() {
    on_both_networks(5, |mut lab| {
        lab.one(5);
        let first = lab.check_one_leader();
        let [partner, c, d, e] = [1, 2, 3, 4].map(|steps| lab.after(first, steps));
        lab.disconnect_all(&[c, d, e]);
        lab.start_many(first, 50);
        lab.sleep(SECOND / 2);

        lab.disconnect_all(&[first, partner]);
        lab.connect_all(&[c, d, e]);
        lab.one_after_another(50, 3);

        let second = lab.check_one_leader();
        let other = if second == c { d } else { c };
        lab.disconnect(other);
        lab.start_many(second, 50);
        lab.sleep(SECOND / 2);

        lab.all().for_each(|server| lab.disconnect(server));
        lab.connect_all(&[first, partner, other]);
        lab.one_after_another(50, 3);

        lab.all().for_each(|server| lab.connect(server));
        lab.one(5);
    });
}

/// An election, ten commands and an idle second take few requests.
#[test]
fn count() {
    const ELECTION_REQUESTS: u64 = 30;
    const COMMANDS: u64 = 10;
    const IDLE_REQUESTS: u64 = 60;
    on_both_networks(3, |mut lab| {
        let leader = lab.check_one_leader();
        let elected = lab.world.network.requests;
        assert!((1..=ELECTION_REQUESTS).contains(&elected), "{elected} requests to elect a leader");

        let last = lab.start_many(leader, COMMANDS + 1);
        assert!(lab.await_appliers(last, 3, 10 * SECOND), "{last} is not applied everywhere");
        let agreed = lab.world.network.requests - elected;
        let limit = (COMMANDS + 1 + 3) * 3;
        assert!(agreed <= limit, "{agreed} requests for {COMMANDS} commands, of {limit}");

        let before = lab.world.network.requests;
        lab.sleep(SECOND);
        let idle = lab.world.network.requests - before;
        assert!(idle <= IDLE_REQUESTS, "{idle} requests in a second without commands");
    });
}
