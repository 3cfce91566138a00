//! Part 3C: what is on disk is all that a server needs.

use raft::consensus::LogId;
use rand::RngExt;

use super::{Lab, SECOND, on_both_networks, over_seeds};

/// Looks at a command that was accepted, in ticks: after this long its client turns to the next one.
const CLIENT_PATIENCE: u64 = SECOND * 38 / 100;

#[test]
fn persist1() {
    on_both_networks(3, |mut lab| {
        lab.one(3);
        lab.restart_all();
        lab.one(3);

        let leader = lab.check_one_leader();
        lab.shut_down(leader);
        lab.restart(leader);
        lab.one(3);

        let leader = lab.check_one_leader();
        lab.shut_down(leader);
        let index = lab.one(2);
        lab.restart(leader);
        lab.await_all(index);

        let leader = lab.check_one_leader();
        let follower = lab.after(leader, 1);
        lab.shut_down(follower);
        lab.one(2);
        lab.restart(follower);
        lab.one(3);
    });
}

/// Five servers, of which other ones are down in each round.
#[test]
fn persist2() {
    on_both_networks(5, |mut lab| {
        for _ in 0..5 {
            lab.one(5);
            let leader = lab.check_one_leader();
            let [a, b, c, d] = [1, 2, 3, 4].map(|steps| lab.after(leader, steps));
            lab.shut_down(a);
            lab.shut_down(b);
            lab.one(3);

            lab.shut_down(leader);
            lab.shut_down(c);
            lab.shut_down(d);
            lab.restart(a);
            lab.restart(b);
            lab.sleep(SECOND);
            lab.restart(c);
            lab.one(3);

            lab.restart(d);
            lab.restart(leader);
        }
        lab.one(5);
    });
}

/// A leader and one follower crash while the other follower is cut off.
#[test]
fn persist3() {
    on_both_networks(3, |mut lab| {
        lab.one(3);
        let leader = lab.check_one_leader();
        let (follower, cut_off) = (lab.after(leader, 1), lab.after(leader, 2));
        lab.disconnect(cut_off);
        lab.one(2);

        lab.shut_down(leader);
        lab.shut_down(follower);
        lab.connect(cut_off);
        lab.restart(leader);
        lab.one(2);

        lab.restart(follower);
        lab.one(3);
    });
}

/// Figure 8 of the paper: a thousand leaders begin an entry and crash, mostly before it is committed.
#[test]
fn figure8() {
    over_seeds(|seed| {
        let mut lab = Lab::new(seed, 5);
        lab.one(1);
        let mut up = 5;
        for _ in 0..1000 {
            let leader = lab.all().filter(|&server| lab.start(server).is_some()).last();
            lab.sleep_for_a_while();
            if let Some(leader) = leader {
                lab.shut_down(leader);
                up -= 1;
            }
            let server = lab.random_server();
            if up < 3 && !lab.is_up(server) {
                lab.restart(server);
                up += 1;
            }
        }
        lab.all().for_each(|server| lab.restart(server));
        lab.one(5);
    });
}

/// The same with leaders that are cut off, on a network that loses messages and delays answers for seconds.
#[test]
fn figure8_unreliable() {
    over_seeds(|seed| {
        let mut lab = Lab::new(seed, 5).unreliable();
        lab.one(1);
        let mut connected = 5;
        for round in 0..1000 {
            if round == 200 {
                lab.long_reordering();
            }
            let mut leads = |server| lab.start(server).is_some() && lab.is_connected(server);
            let leader = (0..5).filter(|&server| leads(server)).last();
            lab.sleep_for_a_while();
            if let Some(leader) = leader.filter(|_| lab.world.rng.random_bool(0.5)) {
                lab.disconnect(leader);
                connected -= 1;
            }
            let server = lab.random_server();
            if connected < 3 && !lab.is_connected(server) {
                lab.connect(server);
                connected += 1;
            }
        }
        lab.all().for_each(|server| lab.connect(server));
        lab.one(5);
    });
}

/// Five commands at a time, forty-nine times.
#[test]
fn unreliable_agree() {
    on_both_networks(5, |mut lab| {
        for _ in 1..50 {
            for _ in 0..4 {
                let leader = lab.all().find_map(|server| lab.start(server));
                lab.sleep(u64::from(leader.is_none()));
            }
            lab.one(1);
        }
        lab.reliable_again();
        lab.one(5);
    });
}

#[test]
fn reliable_churn() {
    over_seeds(|seed| churn(Lab::new(seed, 5)));
}

#[test]
fn unreliable_churn() {
    over_seeds(|seed| churn(Lab::new(seed, 5).unreliable()));
}

/// Three clients at work while servers are cut off, crash and come back. No command that a client saw applied is missing.
fn churn(mut lab: Lab) {
    let mut clients = [Client::new(0), Client::new(1), Client::new(2)];
    for _ in 0..20 {
        if lab.world.rng.random_bool(0.2) {
            let server = lab.random_server();
            lab.disconnect(server);
        }
        if lab.world.rng.random_bool(0.5) {
            let server = lab.random_server();
            lab.restart(server);
            lab.connect(server);
        }
        if lab.world.rng.random_bool(0.2) {
            let server = lab.random_server();
            lab.shut_down(server);
        }
        for _ in 0..SECOND * 7 / 10 {
            lab.tick();
            for client in &mut clients {
                client.tick(&mut lab);
            }
        }
    }
    lab.reliable_again();
    for server in lab.all() {
        lab.restart(server);
        lab.connect(server);
    }
    lab.one(5);
    let seen: Vec<LogId> = clients.into_iter().flat_map(|client| client.applied).collect();
    assert!(!seen.is_empty(), "the clients were never served");
    for command in seen {
        assert_eq!(lab.appliers(command), 5, "{command} was applied and is missing");
    }
}

struct Client {
    number: u64,
    waiting: Option<(LogId, u64)>,
    pause: u64,
    applied: Vec<LogId>,
}

impl Client {
    fn new(number: u64) -> Self {
        Self { number, waiting: None, pause: 0, applied: Vec::new() }
    }

    /// Asks everybody to start a command, and waits a little for the last one that took it.
    fn tick(&mut self, lab: &mut Lab) {
        if let Some((command, ticks)) = self.waiting {
            if lab.appliers(command) > 0 {
                self.applied.push(command);
                self.waiting = None;
            } else {
                self.waiting = (ticks < CLIENT_PATIENCE).then_some((command, ticks + 1));
            }
        } else if self.pause > 0 {
            self.pause -= 1;
        } else {
            let command = lab.all().filter_map(|server| lab.start(server)).last();
            self.waiting = command.map(|command| (command, 0));
            self.pause = if command.is_none() { 2 + self.number } else { 0 };
        }
    }
}

impl Lab {
    /// One time in ten up to half a second, else up to 13 milliseconds.
    fn sleep_for_a_while(&mut self) {
        let ticks = if self.random(10) == 0 { self.random(SECOND / 2) } else { self.random(2) };
        self.sleep(ticks);
    }

    fn await_all(&mut self, index: raft::consensus::Index) {
        let command = self.world.invariants.committed.id(index).expect("it is committed");
        let limit = 10 * SECOND;
        assert!(self.await_appliers(command, self.servers, limit), "not all have {command}");
    }
}
