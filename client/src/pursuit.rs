//! Following one request to its end: attempts, the pauses between them, and what they leave known.
//!
//! An attempt that stays silent is joined by another one elsewhere, not dropped: a node that hangs is left behind, and
//! a command that waits for the leader's state machine keeps its place. Attempts of one command share its stamp, so
//! however many arrive, it is applied once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use raft::rpc::client::ClientServiceClient;
use raft::rpc::wire::Endpoint;
use tarpc::client::RpcError;
use tarpc::context::Context;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, warn};

use crate::backoff::Backoff;
use crate::connections::Connections;
use crate::discovery;
use crate::error::Refusal;
use crate::leader::Route;
use crate::options::Options;
use crate::verdict::{Certainty, Failure, GivenUp, History, Next};

/// An attempt ends after this many times the patience of one, so that few of them are open at once.
const LONGEST_ATTEMPT: u32 = 10;

/// Whether an attempt that stays silent is joined by another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Joined,
    Alone,
}

/// What all requests of a client share.
#[derive(Debug)]
pub(crate) struct Pursuer {
    pub(crate) options: Options,
    pub(crate) connections: Connections,
    route: Mutex<Route>,
}

impl Pursuer {
    pub(crate) fn new(options: Options) -> Self {
        let connections = Connections::new(options.cluster, options.connect_timeout);
        let route = Mutex::new(Route::new(&options.endpoints));
        Self { options, connections, route }
    }

    pub(crate) fn route(&self) -> MutexGuard<'_, Route> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks until there is an answer, or one that no other attempt would change, or `deadline`.
    pub(crate) async fn pursue<T, E, F>(
        self: &Arc<Self>,
        deadline: Instant,
        ask: impl Fn(ClientServiceClient, Context) -> F,
    ) -> Result<T, GivenUp>
    where
        E: Into<Failure>,
        F: Future<Output = Result<Result<T, E>, RpcError>>,
    {
        self.follow(deadline, Manner::Joined, ask).await
    }

    /// The same for what must not be asked for twice: one attempt at a time, and none after one whose outcome is not known.
    pub(crate) async fn pursue_alone<T, E, F>(
        self: &Arc<Self>,
        deadline: Instant,
        ask: impl Fn(ClientServiceClient, Context) -> F,
    ) -> Result<T, GivenUp>
    where
        E: Into<Failure>,
        F: Future<Output = Result<Result<T, E>, RpcError>>,
    {
        self.follow(deadline, Manner::Alone, ask).await
    }

    async fn follow<T, E, F>(
        self: &Arc<Self>,
        deadline: Instant,
        manner: Manner,
        ask: impl Fn(ClientServiceClient, Context) -> F,
    ) -> Result<T, GivenUp>
    where
        E: Into<Failure>,
        F: Future<Output = Result<Result<T, E>, RpcError>>,
    {
        let mut pursuit = Pursuit::new(self, deadline);
        let mut attempts = FuturesUnordered::new();
        let mut start = Instant::now();
        loop {
            // Past the deadline only the open attempts are left; each ends by then, and says whether anything was sent.
            let may_start = start < deadline || attempts.is_empty();
            tokio::select! {
                biased;
                Some((endpoint, outcome)) = attempts.next(), if !attempts.is_empty() => match outcome {
                    Ok(answer) => {
                        self.route().serves(&endpoint);
                        return Ok(answer);
                    }
                    Err(failure) => {
                        let failure: Failure = failure;
                        let is_open = failure.certainty != Certainty::NotApplied;
                        match pursuit.after(&endpoint, failure) {
                            Ok(_) if is_open && manner == Manner::Alone => {
                                return Err(pursuit.give_up(None));
                            }
                            Ok(pause) => start = Instant::now() + pause,
                            Err(refusal) => return Err(pursuit.give_up(Some(refusal))),
                        }
                    }
                },
                () = sleep_until(start.min(deadline)), if may_start => {
                    let now = Instant::now();
                    if now < deadline {
                        let endpoint = pursuit.next_endpoint();
                        let (longest, next) = match manner {
                            Manner::Joined => {
                                (self.options.patience * LONGEST_ATTEMPT, self.options.patience)
                            }
                            Manner::Alone => (deadline - now, deadline - now),
                        };
                        attempts.push(self.attempt(endpoint, deadline.min(now + longest), &ask));
                        start = now + next;
                    } else if attempts.is_empty() {
                        return Err(pursuit.give_up(None));
                    } else {
                        start = deadline;
                    }
                }
            }
        }
    }

    /// One attempt at one endpoint, and where it was made. Ends by `until`.
    pub(crate) async fn attempt<T, E, F>(
        self: &Arc<Self>,
        endpoint: Endpoint,
        until: Instant,
        ask: impl Fn(ClientServiceClient, Context) -> F,
    ) -> (Endpoint, Result<T, Failure>)
    where
        E: Into<Failure>,
        F: Future<Output = Result<Result<T, E>, RpcError>>,
    {
        let connection = match self.connections.get(&endpoint, until).await {
            Ok(connection) => connection,
            Err(failure) => return (endpoint, Err(failure)),
        };
        if connection.fresh && self.options.discover {
            tokio::spawn(discovery::discover(Arc::clone(self), connection.client.clone()));
        }
        let mut context = tarpc::context::current();
        context.deadline = until.into_std();
        let outcome = match timeout_at(until, ask(connection.client.clone(), context)).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(refused))) => Err(refused.into()),
            Ok(Err(error)) => {
                if !matches!(error, RpcError::Server(_)) {
                    self.connections.broken(&endpoint, &connection);
                }
                Err(error.into())
            }
            // The other end may be gone without a word, and then nothing else would tell for a quarter of an hour. What is
            // under way over it keeps it.
            Err(_elapsed) => {
                self.connections.broken(&endpoint, &connection);
                Err(Failure::silent())
            }
        };
        (endpoint, outcome)
    }
}

/// The way of one request.
struct Pursuit<'a> {
    pursuer: &'a Pursuer,
    /// When the caller came: an earlier step may have taken some of its time.
    began: Instant,
    history: History,
    /// Endpoints that failed since the last pause. When none is left, it is time for a pause.
    tried: BTreeSet<Endpoint>,
    /// Endpoints that are of no use to this request, and why.
    set_aside: BTreeMap<Endpoint, Refusal>,
    /// Endpoints whose answer is still out.
    open: Vec<Endpoint>,
    backoff: Backoff,
}

impl<'a> Pursuit<'a> {
    fn new(pursuer: &'a Pursuer, deadline: Instant) -> Self {
        let now = Instant::now();
        Self {
            pursuer,
            began: deadline.checked_sub(pursuer.options.timeout).unwrap_or(now),
            history: History::default(),
            tried: BTreeSet::new(),
            set_aside: BTreeMap::new(),
            open: Vec::new(),
            backoff: Backoff::default(),
        }
    }

    /// Where the next attempt goes. What was asked before and is still silent comes last.
    fn next_endpoint(&mut self) -> Endpoint {
        for silent in &self.open {
            self.pursuer.route().failed(silent);
        }
        let endpoint = self.untried().unwrap_or_else(|| {
            self.tried.clear();
            self.pick(&[]).expect("`after` stops when all endpoints are set aside")
        });
        self.open.push(endpoint.clone());
        endpoint
    }

    /// Who has not failed since the last pause, and owes no answer either.
    fn untried(&self) -> Option<Endpoint> {
        self.pick(&self.open)
    }

    fn pick(&self, others: &[Endpoint]) -> Option<Endpoint> {
        let avoid = self.tried.iter().chain(self.set_aside.keys()).chain(others).cloned().collect();
        self.pursuer.route().pick(&avoid)
    }

    /// Takes a failure in. Returns how long to wait before the next attempt, or why there should be none.
    fn after(&mut self, endpoint: &Endpoint, failure: Failure) -> Result<Duration, Refusal> {
        if let Some(at) = self.open.iter().position(|open| open == endpoint) {
            self.open.swap_remove(at);
        }
        self.history.add(endpoint, &failure);
        debug!(%endpoint, reason = failure.reason, "attempt failed");
        match failure.next {
            Next::Stop(refusal) => return Err(refusal),
            Next::Pause => return Ok(self.backoff.pause(&mut rand::rng())),
            Next::SetAside(refusal) => {
                warn!(%endpoint, reason = %refusal, "endpoint left aside");
                self.pursuer.route().failed(endpoint);
                self.set_aside.insert(endpoint.clone(), refusal.clone());
                let useless = self.set_aside.keys().cloned().collect();
                if self.pursuer.route().pick(&useless).is_none() {
                    return Err(refusal);
                }
            }
            Next::Elsewhere(hint) => {
                self.tried.insert(endpoint.clone());
                self.pursuer.route().failed(endpoint);
                if let Some(leader) = hint {
                    self.pursuer.route().hinted(&leader);
                }
            }
        }
        let found_another = self.untried().is_some();
        Ok(if found_another { Duration::ZERO } else { self.backoff.pause(&mut rand::rng()) })
    }

    fn give_up(mut self, refusal: Option<Refusal>) -> GivenUp {
        for endpoint in &self.open {
            self.history.abandon(endpoint);
        }
        GivenUp { history: self.history, refusal, waited: self.began.elapsed() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found where whole processes ran in a simulated network: connections went dead, the next ones were refused at once, and a client
    /// tried again until it had no port left.
    #[tokio::test]
    async fn nodes_that_owe_an_answer_and_refuse_the_next_attempt_are_not_asked_without_a_pause() {
        let endpoints = ["a:1", "b:1", "c:1"].map(|text| text.parse().unwrap()).to_vec();
        let count = endpoints.len();
        let pursuer = Pursuer::new(Options::new(endpoints));
        let mut pursuit = Pursuit::new(&pursuer, Instant::now() + Duration::from_secs(1));
        for _ in 0..count {
            pursuit.next_endpoint();
        }
        for _ in 0..10 {
            let mut pauses = (0..count).map(|_| {
                let endpoint = pursuit.next_endpoint();
                pursuit.after(&endpoint, Failure::not_connected_in_time()).unwrap()
            });
            assert!(pauses.any(|pause| !pause.is_zero()), "each was tried, and there is no pause");
        }
    }
}
