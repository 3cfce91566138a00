//! Clients that never rest, and what they saw.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use proof::history::{Answer, Call, History, Operation, Outcome, PIECE_END};
use raft_client::{Client, Error, Options, Receipt, Swap};
use rand::rngs::ChaCha12Rng;
use rand::{RngExt, SeedableRng};
use turmoil::Sim;

use super::cluster::Cluster;

/// How long a request is followed: less than some faults last, so that outcomes become unknown.
const TIMEOUT: Duration = Duration::from_secs(4);
/// How long a silent node is waited for alone.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longest pause between two requests of a client, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 60;
/// Keys of each kind.
const KEYS: u64 = 3;

/// All clients of a run.
#[derive(Clone, Default)]
pub struct Clients {
    history: Rc<RefCell<History>>,
    ending: Rc<Cell<bool>>,
    running: Rc<Cell<usize>>,
}

impl Clients {
    /// Starts one on a host of its own, which knows these nodes.
    pub fn start(&self, cluster: &mut Cluster, number: u64, seed: u64, endpoints: &[String]) {
        let one = One {
            number,
            client: client(endpoints, TIMEOUT),
            random: ChaCha12Rng::seed_from_u64(seed ^ (number << 32)),
            serial: 0,
            history: Rc::clone(&self.history),
        };
        let (ending, running) = (Rc::clone(&self.ending), Rc::clone(&self.running));
        running.set(running.get() + 1);
        let host = format!("client-{number}");
        cluster.clients.push(host.clone());
        cluster.sim.client(host, async move {
            one.work_until(&ending).await;
            running.set(running.get() - 1);
            Ok(())
        });
    }

    /// Tells all to end with the request that is under way.
    pub fn end(&self) {
        self.ending.set(true);
    }

    /// Whether all have ended.
    pub fn have_ended(&self) -> bool {
        self.running.get() == 0
    }

    /// Requests that were answered so far.
    pub fn answered(&self) -> usize {
        self.history.borrow().tally().answered
    }

    /// What they saw.
    pub fn history(&self) -> History {
        self.history.borrow().clone()
    }

    /// Reads every key that was used, as one more client.
    pub fn read_all(&self, sim: &mut Sim<'static>, endpoints: &[String]) -> Rc<Cell<bool>> {
        let one = One {
            number: 0,
            client: client(endpoints, Duration::from_secs(30)),
            random: ChaCha12Rng::seed_from_u64(0),
            serial: 0,
            history: Rc::clone(&self.history),
        };
        let done = Rc::new(Cell::new(false));
        let is_done = Rc::clone(&done);
        sim.client("reader", async move {
            let mut one = one;
            for key in (0..KEYS).flat_map(|key| Kind::ALL.map(|kind| kind.key(key))) {
                one.request(key, Call::Get).await;
            }
            is_done.set(true);
            Ok(())
        });
        done
    }
}

/// A client of the library with these timings.
pub fn client(endpoints: &[String], timeout: Duration) -> Client {
    let endpoints = endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect();
    Client::new(Options { timeout, patience: PATIENCE, ..Options::new(endpoints) })
}

/// What is done to a key, so that each means something.
#[derive(Clone, Copy)]
enum Kind {
    Register,
    Counter,
    List,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Register, Self::Counter, Self::List];

    fn key(self, number: u64) -> String {
        match self {
            Self::Register => format!("register-{number}"),
            Self::Counter => format!("counter-{number}"),
            Self::List => format!("list-{number}"),
        }
    }
}

struct One {
    number: u64,
    client: Client,
    random: ChaCha12Rng,
    /// Makes each of its values the only one of its kind.
    serial: u64,
    history: Rc<RefCell<History>>,
}

impl One {
    async fn work_until(mut self, ending: &Cell<bool>) {
        while !ending.get() {
            let (key, call) = self.choose();
            self.request(key, call).await;
            let pause = self.random.random_range(0..LONGEST_PAUSE_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    fn choose(&mut self) -> (String, Call) {
        self.serial += 1;
        let value = format!("{}.{}", self.number, self.serial);
        let kind = Kind::ALL[self.random.random_range(0..Kind::ALL.len())];
        let key = kind.key(self.random.random_range(0..KEYS));
        let choice = self.random.random_range(0..10);
        let call = match (kind, choice) {
            (_, 0..3) => Call::Get,
            (Kind::Counter, _) => Call::Increment,
            (Kind::List, _) => Call::Append(format!("{value}{PIECE_END}")),
            (Kind::Register, 3..7) => Call::Put(value),
            (Kind::Register, 7) => Call::Delete,
            (Kind::Register, _) => {
                let expected = self.some_value_of(&key);
                Call::CompareAndSet { expected, new: value }
            }
        };
        (key, call)
    }

    /// A value that stood there once, so that some swaps succeed.
    fn some_value_of(&self, key: &str) -> Option<String> {
        let history = self.history.borrow();
        let last = history.operations().iter().rev().find(|operation| operation.key == key)?;
        match (&last.call, &last.outcome) {
            (Call::Put(value) | Call::CompareAndSet { new: value, .. }, _) => Some(value.clone()),
            (_, Outcome::Ok { answer: Answer::Value(value), .. }) => value.clone(),
            _ => None,
        }
    }

    async fn request(&mut self, key: String, call: Call) {
        let invoked = now();
        let outcome = match self.answer(&key, &call).await {
            Ok(answer) => Outcome::Ok { at: now(), answer },
            Err(Error::Unknown { .. } | Error::CommittedNotApplied { .. }) => Outcome::Unknown,
            Err(Error::Refused(_) | Error::NoLeader { .. } | Error::NoAnswer { .. }) => {
                Outcome::Refused { at: now() }
            }
            Err(error) => panic!("client {} wanted {call:?} of {key}: {error}", self.number),
        };
        let client = self.number;
        self.history.borrow_mut().push(Operation { client, key, call, invoked, outcome });
    }

    async fn answer(&self, key: &str, call: &Call) -> Result<Answer, Error> {
        let (client, name) = (&self.client, key.to_owned());
        Ok(match call.clone() {
            Call::Put(value) => known(client.put(name, value).await?, |()| Answer::Applied),
            Call::Append(text) => known(client.append(name, text).await?, Answer::Length),
            Call::Increment => known(client.incr(name, 1).await?, Answer::Number),
            Call::Delete => known(client.delete(name).await?, Answer::Removed),
            Call::CompareAndSet { expected, new } => {
                let swap = client.compare_and_set(name, expected.map(Bytes::from), new).await?;
                known(swap, |swap| match swap {
                    Swap::Done => Answer::Swapped,
                    Swap::Mismatch { present } => Answer::NotSwapped(present.as_ref().map(text)),
                })
            }
            Call::Get => Answer::Value(client.get(name).await?.result.as_ref().map(text)),
        })
    }
}

fn known<T>(receipt: Receipt<T>, answer: impl FnOnce(T) -> Answer) -> Answer {
    receipt.result.map_or(Answer::Applied, answer)
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).expect("all values are text")
}

/// Simulated nanoseconds since the beginning.
fn now() -> u64 {
    let elapsed = turmoil::sim_elapsed().expect("inside the simulation");
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}
