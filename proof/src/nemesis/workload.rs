//! The clients: each does one operation after another on a few shared keys, and notes down what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use raft::rpc::wire::Endpoint;
use raft_client::{Client, Error, Options, Receipt, Swap};
use rand::rngs::ChaCha12Rng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::Plan;
use crate::history::{Answer, Call, History, Key, Operation, Outcome};

/// Short, so that a client has something to say about a fault before it is over.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Of one client; a closed loop without pauses would make a history that nobody needs.
const PAUSE_MS: std::ops::Range<u64> = 5..20;
/// After so long, all go on to fresh keys: lists that are read whole stay short.
const KEYS_LAST: Duration = Duration::from_secs(20);
const LISTS: u64 = 3;
const COUNTERS: u64 = 3;
const REGISTERS: u64 = 4;
/// Most bytes that make a register's value longer.
const PADDING: usize = 1000;
/// Beside the history, so that the log soon begins later than at its first entry: who was away then needs a snapshot.
const BALLAST_BYTES: usize = 128 << 10;
const BALLAST_PAUSE: Duration = Duration::from_millis(50);
const BALLAST_KEYS: u64 = 4;
const LAST_READS: usize = 20;

/// Load under way.
pub(super) struct Workload {
    stop: watch::Sender<bool>,
    clients: JoinSet<Done>,
    ballast: JoinHandle<()>,
    last: Reader,
    answered: Arc<AtomicU64>,
}

/// What one client did, and what it could not make sense of.
#[derive(Default)]
struct Done {
    operations: Vec<Operation>,
    wrong: Option<String>,
}

/// All that the clients saw.
pub(super) struct Ended {
    pub(super) history: History,
    /// The value of each key in the end.
    pub(super) finals: BTreeMap<Key, String>,
    /// What none of them may see.
    pub(super) wrong: Vec<String>,
}

/// Who reads every key in the end.
struct Reader {
    client: Client,
    number: u64,
    began: Instant,
}

impl Workload {
    pub(super) fn start(plan: &Plan, endpoints: &[Endpoint]) -> Self {
        let (stop, stopping) = watch::channel(false);
        let began = Instant::now();
        let answered = Arc::<AtomicU64>::default();
        let mut clients = JoinSet::new();
        for number in 0..plan.clients {
            let user = User {
                client: client(endpoints, number),
                number,
                began,
                chance: ChaCha12Rng::seed_from_u64(plan.seed.wrapping_mul(1000) + number),
                last_seen: BTreeMap::new(),
                answered: Arc::clone(&answered),
            };
            clients.spawn(user.run(stopping.clone()));
        }
        let last = Reader { client: client(endpoints, 0), number: plan.clients, began };
        let ballast = tokio::spawn(load_ballast(client(endpoints, 0)));
        Self { stop, clients, ballast, last, answered }
    }

    /// How many operations so far.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Lets every client finish, and reads each key. What was seen is never lost: of a run that goes wrong it is wanted most.
    pub(super) async fn finish(mut self) -> Ended {
        self.stop.send_replace(true);
        self.ballast.abort();
        let mut history = History::default();
        let mut wrong = Vec::new();
        while let Some(done) = self.clients.join_next().await {
            match done {
                Ok(done) => {
                    wrong.extend(done.wrong);
                    done.operations.into_iter().for_each(|operation| history.push(operation));
                }
                Err(panic) => wrong.push(format!("a client ended: {panic}")),
            }
        }
        let keys: BTreeSet<Key> =
            history.operations().iter().map(|operation| operation.key.clone()).collect();
        let mut finals = BTreeMap::new();
        for key in keys {
            match self.last.read(&key).await {
                Ok((operation, value)) => {
                    history.push(operation);
                    finals.insert(key, value.unwrap_or_default());
                }
                Err(why) => {
                    wrong.push(format!("{why:#}"));
                    break;
                }
            }
        }
        Ended { history, finals, wrong }
    }
}

impl Reader {
    async fn read(&self, key: &Key) -> anyhow::Result<(Operation, Option<String>)> {
        let mut failure = None;
        for _ in 0..LAST_READS {
            let invoked = nanos_since(self.began);
            match submit(&self.client, key, &Call::Get).await {
                Ok(answer) => {
                    let value =
                        if let Answer::Value(value) = &answer { value.clone() } else { None };
                    let outcome = Outcome::Ok { at: nanos_since(self.began), answer };
                    let (client, key) = (self.number, key.clone());
                    return Ok((
                        Operation { client, key, call: Call::Get, invoked, outcome },
                        value,
                    ));
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("no try")?).with_context(|| format!("the last read of {key}"))
    }
}

/// One client.
struct User {
    client: Client,
    number: u64,
    began: Instant,
    chance: ChaCha12Rng,
    /// To expect it in a compare-and-set.
    last_seen: BTreeMap<Key, Option<String>>,
    /// By all of them.
    answered: Arc<AtomicU64>,
}

impl User {
    async fn run(mut self, stopping: watch::Receiver<bool>) -> Done {
        let mut done = Done::default();
        let mut serial = 0;
        while !*stopping.borrow() {
            serial += 1;
            let (key, call) = self.choose(serial);
            let invoked = nanos_since(self.began);
            let outcome = match self.follow(&key, &call).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    done.wrong = Some(format!("client {}: {call:?}: {error}", self.number));
                    return done;
                }
            };
            if matches!(outcome, Outcome::Ok { .. }) {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            if let Outcome::Ok {
                answer: Answer::Value(value) | Answer::NotSwapped(value), ..
            } = &outcome
            {
                self.last_seen.insert(key.clone(), value.clone());
            }
            let client = self.number;
            done.operations.push(Operation { client, key, call, invoked, outcome });
            sleep(Duration::from_millis(self.chance.random_range(PAUSE_MS))).await;
        }
        done
    }

    /// Values are said once only, so that each tells where it came from.
    fn choose(&mut self, serial: u64) -> (Key, Call) {
        let era = self.began.elapsed().as_secs() / KEYS_LAST.as_secs();
        let name = format!("{}.{serial};", self.number);
        let kind = self.chance.random_range(0..LISTS + COUNTERS + REGISTERS);
        let reads = self.chance.random_bool(0.4);
        if kind < LISTS {
            let call = if reads { Call::Get } else { Call::Append(name) };
            return (format!("list{kind}.{era}"), call);
        }
        if kind < LISTS + COUNTERS {
            let call = if reads { Call::Get } else { Call::Increment };
            return (format!("counter{}.{era}", kind - LISTS), call);
        }
        let key = format!("register{}.{era}", kind - LISTS - COUNTERS);
        let new = format!("{name}{}", "x".repeat(self.chance.random_range(0..PADDING)));
        let call = match self.chance.random_range(0..20) {
            _ if reads => Call::Get,
            0 => Call::Delete,
            1..8 => {
                let expected = self.last_seen.get(&key).cloned().unwrap_or_default();
                Call::CompareAndSet { expected, new }
            }
            _ => Call::Put(new),
        };
        (key, call)
    }

    /// To its end. Of those whose outcome is not known, half are sent again under their name.
    ///
    /// # Errors
    /// An answer that no node may give.
    async fn follow(&mut self, key: &Key, call: &Call) -> Result<Outcome, Error> {
        let first = submit(&self.client, key, call).await;
        let repeated = match &first {
            Err(Error::Unknown { stamp, .. } | Error::CommittedNotApplied { stamp, .. })
                if self.chance.random_bool(0.5) =>
            {
                Some(submit(&self.client.repeating(*stamp), key, call).await)
            }
            Ok(_) | Err(_) => None,
        };
        let at = nanos_since(self.began);
        Ok(match repeated.unwrap_or(first) {
            Ok(answer) => Outcome::Ok { at, answer },
            Err(Error::Refused(_) | Error::NoLeader { .. }) => Outcome::Refused { at },
            Err(
                Error::Unknown { .. }
                | Error::CommittedNotApplied { .. }
                | Error::Undecided { .. }
                | Error::NoAnswer { .. },
            ) => Outcome::Unknown,
            Err(error @ Error::Misunderstood { .. }) => return Err(error),
        })
    }
}

async fn load_ballast(client: Client) {
    let value = vec![b'b'; BALLAST_BYTES];
    for number in 0.. {
        let key = format!("ballast{}", number % BALLAST_KEYS);
        // Whatever came of it.
        let _outcome = client.put(key, value.clone()).await;
        sleep(BALLAST_PAUSE).await;
    }
}

/// Each begins with another node.
fn client(endpoints: &[Endpoint], number: u64) -> Client {
    let mut endpoints = endpoints.to_vec();
    let first = usize::try_from(number).unwrap_or_default() % endpoints.len();
    endpoints.rotate_left(first);
    let mut options = Options::new(endpoints);
    options.timeout = TIMEOUT;
    options.patience = Duration::from_millis(500);
    options.connect_timeout = Duration::from_millis(500);
    options.discover = false;
    Client::new(options)
}

async fn submit(client: &Client, key: &Key, call: &Call) -> Result<Answer, Error> {
    let key = key.clone();
    Ok(match call.clone() {
        Call::Put(value) => said(client.put(key, value).await?, |()| Answer::Applied),
        Call::Append(text) => said(client.append(key, text).await?, Answer::Length),
        Call::Increment => said(client.incr(key, 1).await?, Answer::Number),
        Call::CompareAndSet { expected, new } => {
            let expected = expected.map(Into::into);
            said(client.compare_and_set(key, expected, new).await?, |swap| match swap {
                Swap::Done => Answer::Swapped,
                Swap::Mismatch { present } => Answer::NotSwapped(present.as_deref().map(text)),
            })
        }
        Call::Delete => said(client.delete(key).await?, Answer::Removed),
        Call::Get => Answer::Value(client.get(key).await?.result.as_deref().map(text)),
    })
}

fn said<T>(receipt: Receipt<T>, answer: impl FnOnce(T) -> Answer) -> Answer {
    receipt.result.map_or(Answer::Applied, answer)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn nanos_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
