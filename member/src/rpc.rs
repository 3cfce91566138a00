//! The contract of `member`: what a raft process (or any other program on the node) may ask of it.
//!
//! Gossip *suggests*: the view says who seems to be there and where. It never says who votes.
//! The answers hold plain values only; node and cluster ids are whatever raft has registered with `set_tags`.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::swim::Swim;
pub use crate::swim::{State, Tags, TagsError};
use crate::wire::{Endpoint, Hello, HelloError, Io, Service, client_transport, serve_connection};

/// Longest time that `watch` holds a call before it answers with an unchanged view, in milliseconds. A call whose own
/// deadline is nearer is answered a little before that.
pub const WATCH_HOLD_MS: u64 = 5_000;

/// Most seeds that a member keeps, those of its command line included.
pub const MAX_SEEDS: usize = 16;

/// What a member process answers. Handlers translate and enqueue; the daemon's one loop does the work.
#[tarpc::service]
pub trait MemberService {
    /// Who this member is, now.
    async fn identity() -> Identity;

    /// Long poll for the view. Answers at once when the view's version differs from `since` (0 always differs, and so
    /// does the version of an earlier run of the process); else with the next change, or unchanged after at most
    /// [`WATCH_HOLD_MS`] and before the caller's deadline. Every answer is the complete view.
    async fn watch(since: u64) -> View;

    /// Adds seeds (`host:port` each), which are tried for ever, and tries them at once. Undoes a `leave`.
    ///
    /// On an error nothing is added.
    async fn join(seeds: Vec<String>) -> Result<(), JoinError>;

    /// Leaves: tells the others "left", which is not a failure. The process goes on answering probes, so that nobody
    /// takes it for dead, until it is stopped, or returns by `join` or a restart. Leaving twice is no error.
    async fn leave() -> Result<(), LeaveError>;

    /// Replaces the tags, tells the others under a new incarnation and keeps them over restarts. Unchanged tags cost
    /// nothing. A new `cluster` is in force at once: members of other clusters vanish from the view.
    ///
    /// On an error nothing is changed.
    async fn set_tags(tags: Tags) -> Result<(), TagsError>;
}

/// Who a member is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Random, made at first start and kept in the data directory; never zero. Not the node id.
    pub id: u64,
    /// For people only; not unique.
    pub name: String,
    /// `ip:port` that the others gossip with.
    pub gossip_address: String,
    /// `ip:port` that listens for joins, when this member is an introducer.
    pub introducer_address: Option<String>,
    /// The cluster it belongs to; `None` until raft has registered one.
    pub cluster: Option<u128>,
    /// Grows with every restart, refutation and change of tags.
    pub incarnation: u64,
    /// As last set.
    pub tags: Tags,
    /// Version of the program.
    pub version: String,
}

/// What this member believes about everyone. Two members may believe different things.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Grows with every change while the process runs; starts anew with it; never zero.
    pub version: u64,
    /// Sorted by id; holds this member too, and dead and left ones until they are forgotten.
    pub members: Vec<MemberView>,
}

impl View {
    /// What this member believes now.
    pub fn of(swim: &Swim) -> Self {
        let members = swim.view().into_iter().map(|(id, standing, profile)| MemberView {
            id: id.0,
            name: profile.name.clone(),
            gossip_address: profile.address.to_string(),
            state: standing.state,
            incarnation: standing.incarnation.0,
            tags: profile.tags.clone(),
        });
        Self { version: swim.view_version(), members: members.collect() }
    }
}

/// What is believed about one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Random id of its data directory. Not the node id: that is a tag.
    pub id: u64,
    /// For people only; not unique.
    pub name: String,
    /// `ip:port` that it gossips on.
    pub gossip_address: String,
    /// Believed state.
    pub state: State,
    /// Of the member's newest own word or of the accusation against it.
    pub incarnation: u64,
    /// As the member last told them.
    pub tags: Tags,
}

/// Why seeds were not added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum JoinError {
    /// A seed is not `host:port`.
    #[error("seed {seed:?} is not usable: {reason}; give it as host:port")]
    Malformed {
        /// The seed, cut to a printable length.
        seed: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There would be too many.
    #[error(
        "{wanted} seeds are more than the limit of {limit}; name a few stable members, they tell of the others"
    )]
    TooMany {
        /// How many there would be.
        wanted: usize,
        /// [`MAX_SEEDS`].
        limit: usize,
    },
    /// The process is about to end.
    #[error("this member is stopping")]
    Stopping,
}

/// Why leaving failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum LeaveError {
    /// The process is about to end.
    #[error("this member is stopping")]
    Stopping,
}

/// Why a connection to a member was not made, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// Nobody could be reached.
    #[error("cannot reach the member at {endpoint}: {source}; is it running?")]
    Unreachable {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        source: io::Error,
    },
    /// Whoever is there is not a member of this version.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// A malformed or oversized frame, or the connection broke.
    #[error("connection closed: {0}")]
    Broken(#[from] io::Error),
}

/// A member serves whoever may reach its socket; which cluster it belongs to is what raft tells it over this very
/// connection, so the hello does not insist on one.
fn hello() -> Hello {
    Hello::new(Service::Member, 0, 0, 0)
}

/// Connects within `limit`. The client never reconnects: make a new one when a call fails with `Shutdown`.
///
/// # Errors
/// When nobody answers in time, or someone else does.
pub async fn connect(
    endpoint: &Endpoint,
    limit: Duration,
) -> Result<MemberServiceClient, ConnectionError> {
    let connected = endpoint.connect(limit).await;
    let mut io = connected
        .map_err(|source| ConnectionError::Unreachable { endpoint: endpoint.clone(), source })?;
    hello().open(&mut io).await?;
    let config = tarpc::client::Config::default();
    Ok(MemberServiceClient::new(config, client_transport(io)).spawn())
}

/// Serves one connection until it closes.
///
/// # Errors
/// When the caller is a stranger, sends what cannot be read, or the connection breaks.
pub async fn serve<S>(mut io: Io, service: S) -> Result<(), ConnectionError>
where
    S: MemberService + Clone,
{
    hello().answer(&mut io, |_| Ok(())).await?;
    serve_connection(io, service.serve()).await?;
    Ok(())
}
