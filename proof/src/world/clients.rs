//! Clients: each does one thing at a time, and follows it to its end by the same rules as the library: a retry under a session has the
//! same number, whatever node it goes to; without a session there is none.

use bytes::Bytes;
use raft::command::Kind;
use raft::consensus::NodeId;
use rand::RngExt;

use super::World;
use super::agenda::{MS, SECOND, Time};
use super::event::{Body, Call as Request, Event, Packet, Reply};
use super::operation::{decode, encode, random};
use super::plan::Plant;
use super::random::{Rng, stream};
use crate::history::{Answer, Call, History, Operation, Outcome};

/// Keys that are in use at a time. One that has seen enough is followed by a new one, so that histories stay short.
const KEYS: usize = 6;
const OPERATIONS_PER_KEY: u64 = 80;
/// An operation that is not over by then is given up.
const PATIENCE: Time = 12 * SECOND;

/// A moment at which a client goes on.
#[derive(Clone, Copy, Debug)]
pub enum Wakeup {
    /// It wants something.
    Next,
    /// An attempt has had no answer.
    Late(u64),
    /// It tries again.
    Again(u64),
}

/// All of them.
pub struct Clients {
    all: Vec<Client>,
    keys: [(u64, u64); KEYS],
    serial: u64,
    last_key: u64,
    /// What they saw.
    pub history: History,
    /// Operations that were answered.
    pub answered: u64,
    /// Whether they want anything new.
    pub stopped: bool,
    rng: Rng,
}

#[derive(Default)]
struct Client {
    session: u64,
    sequence: u64,
    /// Lower numbers are settled.
    acked_below: u64,
    target: usize,
    /// Counts attempts, over all operations.
    attempt: u64,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    what: What,
    request: Request,
    invoked: Time,
    /// Whether an earlier attempt may have been applied.
    in_doubt: bool,
}

enum What {
    Open,
    Operation { key: String, call: Call, in_session: bool },
}

impl Clients {
    /// So many, none of which has begun.
    pub fn new(count: usize, seed: u64) -> Self {
        let mut keys = [(0, 0); KEYS];
        (0..).zip(&mut keys).for_each(|(number, key)| key.0 = number);
        Self {
            all: (0..count).map(|_| Client::default()).collect(),
            keys,
            serial: 0,
            last_key: KEYS as u64 - 1,
            history: History::default(),
            answered: 0,
            stopped: false,
            rng: stream(seed, "clients"),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Whether nothing is under way.
    pub fn are_idle(&self) -> bool {
        self.all.iter().all(|client| client.under_way.is_none())
    }

    /// All keys so far.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        (0..=self.last_key).map(name)
    }

    fn next_operation(&mut self) -> (String, Call) {
        let place = self.rng.random_range(0..KEYS);
        let (key, used) = &mut self.keys[place];
        *used += 1;
        if *used > OPERATIONS_PER_KEY {
            self.last_key += 1;
            (*key, *used) = (self.last_key, 1);
        }
        let key = *key;
        self.serial += 1;
        (name(key), random(key, self.serial, &mut self.rng))
    }
}

fn name(key: u64) -> String {
    format!("k{key}")
}

impl World {
    /// A client goes on.
    pub fn client(&mut self, number: usize, wakeup: Wakeup) {
        let client = &mut self.clients.all[number];
        match wakeup {
            Wakeup::Next if client.under_way.is_none() && !self.clients.stopped => {
                self.begin_operation(number);
            }
            Wakeup::Late(attempt) if client.attempt == attempt => {
                if let Some(under_way) = &mut client.under_way {
                    under_way.in_doubt = true;
                }
                self.try_again(number, None);
            }
            Wakeup::Again(attempt) if client.attempt == attempt => self.attempt(number),
            Wakeup::Next | Wakeup::Late(_) | Wakeup::Again(_) => {}
        }
    }

    fn begin_operation(&mut self, number: usize) {
        let clients = &mut self.clients;
        let without = clients.rng.random_bool(0.1);
        let client = &mut clients.all[number];
        let (what, request) = if client.session == 0 && !without {
            let (kind, body) = (Kind::OpenSession, Bytes::new());
            let request = Request::Submit { kind, session: 0, sequence: 0, acked_below: 0, body };
            (What::Open, request)
        } else {
            let (key, call) = clients.next_operation();
            let client = &mut clients.all[number];
            let body = encode(&key, &call);
            let request = if matches!(call, Call::Get) {
                Request::Query(body)
            } else {
                let kind = Kind::Apply;
                let (session, sequence, acked_below) = if without {
                    (0, 0, 0)
                } else {
                    client.sequence += 1;
                    (client.session, client.sequence, client.acked_below)
                };
                Request::Submit { kind, session, sequence, acked_below, body }
            };
            (What::Operation { key, call, in_session: !without }, request)
        };
        let invoked = self.now;
        let client = &mut self.clients.all[number];
        client.under_way = Some(UnderWay { what, request, invoked, in_doubt: false });
        self.attempt(number);
    }

    fn attempt(&mut self, number: usize) {
        let now = self.now;
        let client = &mut self.clients.all[number];
        let Some(under_way) = &client.under_way else { return };
        if now > under_way.invoked + PATIENCE {
            return self.give_up(number);
        }
        client.attempt += 1;
        let (attempt, to) = (client.attempt, client.target);
        let body = Body::Request(number, attempt, under_way.request.clone());
        let late = self.clients.rng.random_range(600 * MS..1_500 * MS);
        self.at(late, Event::Client(number, Wakeup::Late(attempt)));
        if let Some(delay) = self.network.deliver_client() {
            self.at(delay, Event::Packet(Box::new(Packet { from: None, to, body })));
        }
    }

    /// Goes to another node, unless the request must not be made twice.
    fn try_again(&mut self, number: usize, leader: Option<NodeId>) {
        let slots = self.slots.len();
        let hinted = leader.and_then(|leader| self.places.get(&leader)).copied();
        let pause = self.clients.rng.random_range(5 * MS..150 * MS);
        let client = &mut self.clients.all[number];
        client.target = hinted.unwrap_or_else(|| self.clients.rng.random_range(0..slots));
        client.attempt += 1;
        let attempt = client.attempt;
        let may_repeat = client
            .under_way
            .as_ref()
            .is_some_and(|under_way| !under_way.in_doubt || under_way.is_repeatable());
        if may_repeat {
            self.renumber(number);
            self.at(pause, Event::Client(number, Wakeup::Again(attempt)));
        } else {
            self.give_up(number);
        }
    }

    /// A planted violation: a retry looks like another command.
    fn renumber(&mut self, number: usize) {
        let client = &mut self.clients.all[number];
        if self.plan.plant == Some(Plant::RetryUnderNewNumber)
            && let Some(UnderWay { request: Request::Submit { sequence, .. }, .. }) =
                &mut client.under_way
            && client.session != 0
        {
            client.sequence += 1;
            *sequence = client.sequence;
        }
    }

    /// An answer arrives.
    pub fn hear_reply(&mut self, number: usize, attempt: u64, reply: Reply) {
        let client = &mut self.clients.all[number];
        if client.attempt != attempt {
            return;
        }
        let Some(under_way) = &mut client.under_way else { return };
        match reply {
            Reply::Applied(index, outcome) => {
                self.check_acknowledged(index);
                self.finish(number, Some(index), &outcome);
            }
            Reply::Read(outcome) => self.finish(number, None, &outcome),
            Reply::NotLeader(leader) => self.try_again(number, leader),
            Reply::Busy => self.try_again(number, None),
            Reply::Unknown => {
                under_way.in_doubt = true;
                self.try_again(number, None);
            }
            Reply::Expired => {
                // Whether an earlier attempt was applied can no longer be told.
                client.session = 0;
                let in_doubt = under_way.in_doubt;
                let at = self.now;
                self.end(number, if in_doubt { Outcome::Unknown } else { Outcome::Refused { at } });
            }
            Reply::Turn(_) | Reply::Leave(_) => {}
        }
    }

    fn finish(&mut self, number: usize, index: Option<u64>, said: &raft::rpc::client::Outcome) {
        let at = self.now;
        let client = &mut self.clients.all[number];
        let Some(under_way) = &client.under_way else { return };
        match (&under_way.what, index) {
            (What::Open, Some(session)) => {
                *client = Client {
                    session,
                    target: client.target,
                    attempt: client.attempt,
                    ..Client::default()
                };
                self.next(number);
            }
            (What::Open, None) => {}
            (What::Operation { call, .. }, _) => {
                // Applied, and its result is no longer kept: that is known, too.
                let answer = decode(call, said).unwrap_or(Answer::Applied);
                self.clients.answered += 1;
                self.end(number, Outcome::Ok { at, answer });
            }
        }
    }

    fn give_up(&mut self, number: usize) {
        self.coverage.count("operations that clients gave up");
        let client = &self.clients.all[number];
        let in_doubt = client.under_way.as_ref().is_some_and(|under_way| under_way.in_doubt);
        let at = self.now;
        self.end(number, if in_doubt { Outcome::Unknown } else { Outcome::Refused { at } });
    }

    fn end(&mut self, number: usize, outcome: Outcome) {
        let client = &mut self.clients.all[number];
        client.attempt += 1;
        if let Some(UnderWay { what, invoked, .. }) = client.under_way.take()
            && let What::Operation { key, call, in_session } = what
        {
            if in_session {
                client.acked_below = client.sequence + 1;
            }
            let read_nothing = matches!(call, Call::Get) && !matches!(outcome, Outcome::Ok { .. });
            if !read_nothing {
                let client = number as u64;
                self.clients.history.push(Operation { client, key, call, invoked, outcome });
            }
        }
        self.next(number);
    }

    fn next(&mut self, number: usize) {
        let client = &mut self.clients.all[number];
        client.under_way = None;
        client.attempt += 1;
        let think = self.plan.think;
        let pause = self.clients.rng.random_range(think / 2..=think);
        self.at(pause, Event::Client(number, Wakeup::Next));
    }
}

impl UnderWay {
    /// Whether doing it twice does no harm.
    fn is_repeatable(&self) -> bool {
        match &self.what {
            What::Open | What::Operation { call: Call::Get, .. } => true,
            What::Operation { in_session, .. } => *in_session,
        }
    }
}
