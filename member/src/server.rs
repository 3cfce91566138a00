//! Answers `MemberService`: translates and enqueues, decides nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tarpc::context::Context;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::rpc::{
    self, Identity, JoinError, LeaveError, MAX_SEEDS, MemberService, Tags, TagsError, View,
    WATCH_HOLD_MS,
};
use crate::seeds::Seed;
use crate::wire::Listener;

/// Commands that wait for the daemon's loop; one more makes its caller wait.
pub const MAX_COMMANDS: usize = 64;
/// Connections to `MemberService` at a time, by TCP and by socket file each; one more is closed at once. Counted apart,
/// so that nobody on the network can shut out our own raft.
pub const MAX_CONNECTIONS: usize = 64;
/// Pause after a failed accept (too many open files, most often).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A held `watch` is answered this long before its caller's deadline, so that the answer arrives in time.
const ANSWER_AHEAD: Duration = Duration::from_millis(100);

/// What the loop is asked to do; each is answered once it is done.
#[derive(Debug)]
pub enum Command {
    /// Add these seeds and try them.
    Join(Vec<Seed>, oneshot::Sender<Result<(), JoinError>>),
    /// Leave.
    Leave(oneshot::Sender<Result<(), LeaveError>>),
    /// Replace the tags, which have been checked.
    SetTags(Tags, oneshot::Sender<Result<(), TagsError>>),
}

/// What the loop publishes after every change.
#[derive(Clone, Debug)]
pub struct Published {
    /// Who we are.
    pub identity: Identity,
    /// Whom we know.
    pub view: Arc<View>,
}

/// One per connection, all on the same queue.
#[derive(Clone, Debug)]
pub struct MemberServer {
    commands: mpsc::Sender<Command>,
    published: watch::Receiver<Published>,
}

impl MemberServer {
    /// Enqueues to `commands`, reads from `published`.
    pub fn new(commands: mpsc::Sender<Command>, published: watch::Receiver<Published>) -> Self {
        Self { commands, published }
    }

    async fn ask<T, E>(
        &self,
        stopping: E,
        command: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Command,
    ) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        match self.commands.send(command(reply)).await {
            Ok(()) => answer.await.unwrap_or(Err(stopping)),
            Err(_closed) => Err(stopping),
        }
    }
}

impl MemberService for MemberServer {
    async fn identity(self, _: Context) -> Identity {
        self.published.borrow().identity.clone()
    }

    async fn watch(mut self, context: Context, since: u64) -> View {
        let left = context.deadline.saturating_duration_since(Instant::now());
        let hold = Duration::from_millis(WATCH_HOLD_MS).min(left.saturating_sub(ANSWER_AHEAD));
        let changed = self.published.wait_for(|published| published.view.version != since);
        // Neither the end of the hold nor the end of the loop keeps the last view from the caller.
        let _outcome = timeout(hold, changed).await.map(|found| found.is_ok());
        let view = Arc::clone(&self.published.borrow().view);
        Arc::unwrap_or_clone(view)
    }

    async fn join(self, _: Context, seeds: Vec<String>) -> Result<(), JoinError> {
        if seeds.len() > MAX_SEEDS {
            return Err(JoinError::TooMany { wanted: seeds.len(), limit: MAX_SEEDS });
        }
        let seeds = seeds.iter().map(|text| text.parse()).collect::<Result<Vec<Seed>, _>>();
        let seeds = seeds.map_err(|error| JoinError::Malformed {
            seed: error.shown,
            reason: error.reason.to_owned(),
        })?;
        self.ask(JoinError::Stopping, |reply| Command::Join(seeds, reply)).await
    }

    async fn leave(self, _: Context) -> Result<(), LeaveError> {
        self.ask(LeaveError::Stopping, Command::Leave).await
    }

    async fn set_tags(self, _: Context, tags: Tags) -> Result<(), TagsError> {
        tags.check()?;
        self.ask(TagsError::Stopping, |reply| Command::SetTags(tags, reply)).await
    }
}

/// Accepts connections at each listener until the returned set is dropped.
pub fn serve(listeners: [Option<Listener>; 2], server: &MemberServer) -> JoinSet<()> {
    let mut services = JoinSet::new();
    for listener in listeners.into_iter().flatten() {
        services.spawn(accept(listener, server.clone()));
    }
    services
}

async fn accept(listener: Listener, server: MemberServer) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let io = match listener.accept().await {
            Ok(io) => io,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&free).try_acquire_owned() else {
            warn!(MAX_CONNECTIONS, "too many connections; one closed");
            continue;
        };
        let server = server.clone();
        connections.spawn(async move {
            if let Err(error) = rpc::serve(io, server).await {
                debug!(%error, "connection ended");
            }
            drop(place);
        });
    }
}
