//! HTTP: the clients' contract for everything that speaks no tarpc, such as `curl`, and what an operator's tools read.
//!
//! A second front end to the same [`ClientServer`](crate::server): a request by HTTP takes the way of any other, is passed on
//! to the leader likewise, and ends with the same certainty about whether a command happened.
//!
//! | route | does | answers |
//! |---|---|---|
//! | `POST /v1/submit` | submits the body, a command of the machine | 200, the machine's answer |
//! | `POST /v1/query` | asks the machine the body, linearizably | 200, the machine's answer |
//! | `PUT /v1/kv/{key}` | sets a key of the key-value machine to the body | 204 |
//! | `GET /v1/kv/{key}` | reads it | 200, the value; 404 when there is none |
//! | `DELETE /v1/kv/{key}` | removes it | 204; 404 when there was nothing to remove |
//! | `POST /v1/sessions` | opens a session; `?ttl_ms=N` says how long it lives unused, a day at most, else an hour | 201, `{"session": "…", "ttl_ms": N}` |
//! | `PUT /v1/sessions/{id}` | renews it, as a command under it does | 204; 410 when it is not known any more |
//! | `DELETE /v1/sessions/{id}` | closes it | 204, also when it is closed already |
//! | `GET /v1/status`, `GET /v1/members` | this node's view of itself and of the others | 200, JSON as of `raft-client --output json` |
//! | `GET /livez` | whether the process is at work | 200 or 503 |
//! | `GET /readyz` | whether requests should be sent here; `?verbose` lists the checks | 200 or 503 |
//! | `GET /metrics` | for Prometheus | 200, text |
//!
//! A key is everything after `/v1/kv/`, slashes included, percent-decoded: any bytes can be written as `%XX`.
//!
//! **Request headers.** `Outrigger-Session` (as it was given) and `Outrigger-Sequence` (from 1, another one for each
//! command) make a retry safe: the same pair is applied once, and a repetition gets the first one's answer.
//! `Outrigger-Acked-Below` says that the answers of all lower sequence numbers were received; without it those of the last
//! 1,024 are kept. `Outrigger-Forward: no` forbids passing the request on. `?timeout_ms=N` bounds the wait, once
//! the body is here, as `--request-timeout-ms` does.
//!
//! **Response headers.** `Outrigger-Index`: where the command stands in the log, or up to where the read saw it.
//! `Outrigger-Result: not-kept`: a repeated command was applied before, and its result is forgotten; the status is 204.
//! `Outrigger-Leader`: where to send the request instead, as `http://host:port`.
//!
//! **Failures** are problem documents (RFC 9457) whose member `outcome` says what is known of the command: it is
//! `applied`, surely not applied by this request (`refused`), in the log for good but not applied yet (`committed`), or
//! nobody knows (`unknown`). After a 504 `unknown`, and after a connection that broke, repeat it under the same session
//! and sequence number.
//!
//! | status | `type`: `urn:outrigger:problem:`… | outcome |
//! |---|---|---|
//! | 202 | `committed-not-applied` | committed |
//! | 400 | `bad-request` | refused |
//! | 403 | `cross-origin`: a web page of another site | refused |
//! | 404 | `no-such-key` | refused; of a DELETE: applied |
//! | 404, 405 | `no-such-route`, `method-not-allowed` | refused |
//! | 408 | `body-timeout` | refused |
//! | 409 | `outside-window` | refused |
//! | 409 | `already-acknowledged` | unknown: this request was not applied, an earlier one of that number may have been |
//! | 410 | `session-expired` | unknown: likewise; repeating it under that session is of no use |
//! | 413 | `too-large` | refused |
//! | 421 | `not-the-leader`, when passing on was forbidden | refused |
//! | 422 | `refused-by-machine`: the machine's rules say no; nothing was changed | refused |
//! | 502 | `foreign-machine`: the cluster runs another machine than the key-value one | applied; of a GET: refused |
//! | 503 | `no-leader`, `busy`, `not-responding` | refused |
//! | 504 | `unknown` | unknown |
//! | 504 | `unavailable`: a read was not answered in time | refused |
//!
//! What is no HTTP at all is answered by its bare status (400, 414, 431), or by the end of the connection.

mod api;
mod body;
mod connection;
mod headers;
mod health;
mod kv;
mod metrics;
mod problem;
mod raw;
mod routes;
mod socket;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use self::connection::Connections;

use self::api::Api;
use crate::rpc::wire::Listener;
use crate::server::Shared;

/// Pause after a failed accept (too many open files, say), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the process is told to stop: then the port is closed, and requests under way are finished.
pub async fn run(listener: Listener, shared: Shared, room: usize, connections: Connections) {
    let metrics = Arc::clone(&shared.metrics);
    let slots = Arc::new(Semaphore::new(room));
    let router = routes::router(Api::new(shared));
    let mut stopping = connections.stopping();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(io) => match Arc::clone(&slots).try_acquire_owned() {
                Ok(slot) => {
                    connections.spawn(io, router.clone(), (slot, metrics.http_connections.issue()));
                }
                Err(_none) => {
                    metrics.http_turned_away.add();
                    connection::turn_away(io);
                }
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
