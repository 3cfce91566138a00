//! Our own cluster under load: plain calls over shared connections, one attempt per request, so that a failure is counted
//! and not healed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft::rpc::client::{
    Answer, ClientServiceClient, OpenSession, Outcome, Query, QueryError, Submit, SubmitError,
    connect,
};
use raft::rpc::wire::Endpoint;
use state_machine::kv::command::{Command, decode_value};
use tarpc::client::RpcError;
use tarpc::context::Context;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::{Data, Kind, Target, Trouble};
use crate::client::Client;
use crate::error::{Error, Tried};
use crate::options::Options;

/// Between two looks for a leader.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Which nodes the connections go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Aim {
    /// All to the leader, also after it changed.
    Leader,
    /// All to the first node that answers; it passes requests on unless it leads.
    Any,
    /// To all named nodes in turn; those that do not lead pass requests on.
    Spread,
}

/// How the cluster is to be talked to.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Where the connections go.
    pub aim: Aim,
    /// Whether each client has a session, so that its writes are exactly-once.
    pub sessions: bool,
    /// How many connections there are.
    pub connections: usize,
}

/// A cluster of ours as the clients share it.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    way: Way,
    /// For what is not load: who leads?
    side: Client,
    lines: Vec<Mutex<Line>>,
    /// A command to write each key.
    puts: Vec<Bytes>,
    /// A query to read each key.
    gets: Vec<Bytes>,
}

/// A connection, and how often it was opened.
#[derive(Debug, Default)]
struct Line {
    opened: u64,
    client: Option<ClientServiceClient>,
    /// When it could last not be opened, and why.
    failed: Option<(Instant, Trouble)>,
}

impl Cluster {
    /// Opens all connections.
    ///
    /// # Errors
    /// There is no leader within the time of the options; nothing was written.
    pub async fn connect(options: Options, way: Way, data: &Data) -> Result<Arc<Self>, Error> {
        let side = Client::new(options.clone());
        let lines = (0..way.connections.max(1)).map(|_| Mutex::default()).collect();
        let put = |(key, value): (&Bytes, &Bytes)| {
            Command::Put { key: key.clone(), value: value.clone() }.encode()
        };
        let get = |key: &Bytes| Command::Get { key: key.clone() }.encode();
        let puts = data.keys.iter().zip(&data.values).map(put).collect::<Result<_, _>>();
        let gets = data.keys.iter().map(get).collect::<Result<_, _>>();
        let within = "keys and values are within the machine's limits";
        let (puts, gets) = (puts.expect(within), gets.expect(within));
        let cluster = Arc::new(Self { options, way, side, lines, puts, gets });
        let deadline = Instant::now() + cluster.options.timeout;
        // Wherever the connections go, nothing can be measured without a leader.
        while cluster.leader().await.is_none() {
            if Instant::now() >= deadline {
                let (waited, tried) = (cluster.options.timeout, Tried::default());
                return Err(Error::NoLeader { waited, tried });
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(cluster)
    }

    /// One client of many. They take the connections in turn.
    pub fn client(self: &Arc<Self>, number: usize) -> ClusterClient {
        ClusterClient {
            cluster: Arc::clone(self),
            line: number % self.lines.len(),
            opened: 0,
            client: None,
            session: 0,
            sequence: 0,
        }
    }

    /// The leader and its term, if a node says that it leads.
    pub async fn leader(&self) -> Option<(Endpoint, u64)> {
        let statuses = self.side.status_of_all().await.into_iter();
        statuses
            .filter_map(|(endpoint, status)| Some((endpoint, status.ok()?)))
            .filter(|(_, status)| status.role == "leader")
            .max_by_key(|(_, status)| status.term)
            .map(|(endpoint, status)| (endpoint, status.term))
    }

    /// Whether nodes are to pass requests on: not if each request is meant for the leader itself.
    fn forward(&self) -> bool {
        self.way.aim != Aim::Leader
    }

    async fn open(&self, line: usize) -> Result<ClientServiceClient, Trouble> {
        let named = &self.options.endpoints;
        let leader;
        let endpoints = match self.way.aim {
            Aim::Leader => {
                let none = || Trouble::new(Kind::Connection, &"no node says that it leads");
                leader = [self.leader().await.ok_or_else(none)?.0];
                &leader[..]
            }
            Aim::Any => named,
            Aim::Spread => &named[line % named.len()..][..1],
        };
        let mut last = None;
        for endpoint in endpoints {
            let opening = connect(endpoint, self.options.cluster, self.options.connect_timeout);
            match opening.await {
                Ok((client, _hello)) => return Ok(client),
                Err(error) => last = Some(Trouble::new(Kind::Connection, &error)),
            }
        }
        Err(last.expect("there is an endpoint"))
    }

    fn context(&self) -> Context {
        let mut context = tarpc::context::current();
        context.deadline = std::time::Instant::now() + self.options.timeout;
        context
    }
}

/// One client of a cluster of ours.
#[derive(Debug)]
pub struct ClusterClient {
    cluster: Arc<Cluster>,
    /// Which connection it shares.
    line: usize,
    /// Which opening of that connection `client` is of.
    opened: u64,
    client: Option<ClientServiceClient>,
    /// Zero = none.
    session: u64,
    sequence: u64,
}

impl ClusterClient {
    async fn connection(&mut self) -> Result<ClientServiceClient, Trouble> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let came = Instant::now();
        let mut line = self.cluster.lines[self.line].lock().await;
        if let Some((_, trouble)) = line.failed.as_ref().filter(|(at, _)| *at >= came) {
            // Another client tried meanwhile, for all who waited.
            return Err(trouble.clone());
        }
        if line.opened == self.opened {
            // Whoever comes first after a failure opens it again for all.
            line.client = None;
        }
        let client = if let Some(client) = &line.client {
            client.clone()
        } else {
            let opening = self.cluster.open(self.line).await;
            let client = opening.inspect_err(|trouble| {
                line.failed = Some((Instant::now(), trouble.clone()));
            })?;
            line.opened += 1;
            line.client.insert(client).clone()
        };
        self.opened = line.opened;
        self.client = Some(client.clone());
        Ok(client)
    }

    async fn open_session(&mut self, client: &ClientServiceClient) -> Result<(), Trouble> {
        let request = OpenSession { forward: self.cluster.forward(), ttl_ms: 0 };
        let opened = client.open_session(self.cluster.context(), request).await??;
        (self.session, self.sequence) = (opened.session, 0);
        Ok(())
    }

    async fn try_put(&mut self, key: usize) -> Result<(), Trouble> {
        let client = self.connection().await?;
        if self.cluster.way.sessions {
            if self.session == 0 {
                self.open_session(&client).await?;
            }
            self.sequence += 1;
        }
        let request = Submit {
            session: self.session,
            sequence: self.sequence,
            acked_below: self.sequence,
            command: self.cluster.puts[key].clone(),
            forward: self.cluster.forward(),
        };
        match client.submit(self.cluster.context(), request).await??.outcome {
            Outcome::Done(_) => Ok(()),
            Outcome::Refused(why) => {
                Err(Trouble::new(Kind::Refused, &String::from_utf8_lossy(&why)))
            }
            Outcome::AlreadyApplied => {
                Err(Trouble::new(Kind::WrongAnswer, &"a fresh command is said to be an old one"))
            }
        }
    }

    async fn try_get(&mut self, key: usize) -> Result<(), Trouble> {
        let client = self.connection().await?;
        let request =
            Query { query: self.cluster.gets[key].clone(), forward: self.cluster.forward() };
        let answer = client.query(self.cluster.context(), request).await??;
        match answer {
            Answer { outcome: Outcome::Done(result), .. } => match decode_value(&result) {
                Ok(Some(_value)) => Ok(()),
                Ok(None) => Err(Trouble::new(Kind::WrongAnswer, &"a key that was written is gone")),
                Err(error) => Err(Trouble::new(Kind::WrongAnswer, &error)),
            },
            Answer { outcome: Outcome::Refused(why), .. } => {
                Err(Trouble::new(Kind::Refused, &String::from_utf8_lossy(&why)))
            }
            Answer { outcome: Outcome::AlreadyApplied, .. } => {
                Err(Trouble::new(Kind::WrongAnswer, &"a read is said to be an old command"))
            }
        }
    }

    /// What a failure leaves to be done before the next request.
    fn after(&mut self, trouble: &Trouble) {
        match trouble.kind {
            Kind::Connection | Kind::Timeout | Kind::NotLeader | Kind::Unknown => {
                self.client = None;
            }
            Kind::Refused => self.session = 0,
            Kind::Busy | Kind::WrongAnswer => {}
        }
    }
}

impl Target for ClusterClient {
    async fn put(&mut self, key: usize) -> Result<(), Trouble> {
        let outcome = self.try_put(key).await;
        outcome.inspect_err(|trouble| self.after(trouble))
    }

    async fn get(&mut self, key: usize) -> Result<(), Trouble> {
        let outcome = self.try_get(key).await;
        outcome.inspect_err(|trouble| self.after(trouble))
    }
}

impl From<RpcError> for Trouble {
    fn from(error: RpcError) -> Self {
        let kind = match error {
            RpcError::DeadlineExceeded => Kind::Timeout,
            RpcError::Shutdown | RpcError::Send(_) | RpcError::Channel(_) => Kind::Connection,
            RpcError::Server(_) => Kind::Unknown,
        };
        Self::new(kind, &error)
    }
}

impl From<SubmitError> for Trouble {
    fn from(error: SubmitError) -> Self {
        let kind = match error {
            SubmitError::NotLeader { .. } => Kind::NotLeader,
            SubmitError::Busy => Kind::Busy,
            SubmitError::TooLarge { .. }
            | SubmitError::SessionExpired { .. }
            | SubmitError::OutsideWindow { .. }
            | SubmitError::AlreadyAcknowledged { .. } => Kind::Refused,
            SubmitError::CommittedNotApplied { .. } | SubmitError::Unknown { .. } => Kind::Unknown,
        };
        Self::new(kind, &error)
    }
}

impl From<QueryError> for Trouble {
    fn from(error: QueryError) -> Self {
        let kind = match error {
            QueryError::NotLeader { .. } => Kind::NotLeader,
            QueryError::Busy => Kind::Busy,
            QueryError::TooLarge { .. } => Kind::Refused,
            QueryError::Unavailable { .. } => Kind::Unknown,
        };
        Self::new(kind, &error)
    }
}
