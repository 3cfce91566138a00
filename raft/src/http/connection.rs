//! HTTP connections: bounded in time and size, and finished in order when the process stops.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio_util::either::Either;
use tokio_util::task::TaskTracker;

use super::socket::{limit_unacknowledged, write_at_once};
use crate::rpc::wire::Io;

/// Longest wait for a request's head, and so for the next request on a connection that is kept open.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time, in milliseconds, for which written bytes may stay without acknowledgement: a client that reads nothing
/// must not keep its place for ever.
const WRITE_TIMEOUT_MS: u32 = 30_000;
/// Most header fields of a request.
const MAX_HEADERS: usize = 64;
/// Most bytes of a request's head: the longest key with every byte percent-encoded, and as much again.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// How long a stopping process waits for answers to leave.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);
const TURNED_AWAY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\nretry-after: 1\r\n\r\n";

/// All HTTP connections of the process.
#[derive(Clone, Debug)]
pub struct Connections {
    tracker: TaskTracker,
    stopping: watch::Receiver<bool>,
    head_timeout: Duration,
}

impl Connections {
    /// None yet. When `stopping` becomes true each ends after the request that is under way.
    pub fn new(stopping: watch::Receiver<bool>) -> Self {
        Self { tracker: TaskTracker::new(), stopping, head_timeout: HEAD_TIMEOUT }
    }

    /// For tests that cannot wait as long.
    #[cfg(test)]
    pub(super) fn with_head_timeout(self, head_timeout: Duration) -> Self {
        Self { head_timeout, ..self }
    }

    /// Waits until all have ended, a second at most.
    pub async fn finish(&self) {
        self.tracker.close();
        if tokio::time::timeout(FINISH_TIMEOUT, self.tracker.wait()).await.is_err() {
            tracing::debug!(connections = self.tracker.len(), "HTTP connections are cut short");
        }
    }

    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.clone()
    }

    /// Serves one, and holds `held` as long as it lasts.
    pub(super) fn spawn<T: Send + 'static>(&self, io: Io, router: Router, held: T) {
        let (stopping, head_timeout) = (self.stopping(), self.head_timeout);
        end_if_unread(&io);
        self.tracker.spawn(async move {
            if let Err(error) = serve(io, router, stopping, head_timeout).await {
                tracing::debug!(%error, "HTTP connection dropped");
            }
            drop(held);
        });
    }
}

/// Ends a connection whose other end takes nothing of what is written.
fn end_if_unread(io: &Io) {
    if let Either::Left(stream) = io
        && let Err(error) = limit_unacknowledged(stream, WRITE_TIMEOUT_MS)
    {
        tracing::debug!(%error, "no limit on writing");
    }
}

async fn serve(
    io: Io,
    router: Router,
    mut stopping: watch::Receiver<bool>,
    head_timeout: Duration,
) -> Result<(), hyper::Error> {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        end = connection.as_mut() => return end,
        _ = stopping.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// Says that there is no room for one more, without waiting for anybody.
pub(super) fn turn_away(io: Io) {
    tracing::debug!("too many HTTP connections: one more is closed");
    // A fresh socket has room for this; who has sent a lot already may see a reset instead.
    if let Either::Left(stream) = io
        && let Err(error) = write_at_once(stream, TURNED_AWAY)
    {
        tracing::debug!(%error, "nor could it be told so");
    }
}
