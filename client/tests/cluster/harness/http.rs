//! A client by HTTP, as a program without our library would be one: it repeats a command under its session and number
//! until it is told that it is applied.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::load::Adds;
use super::wait::PATIENCE;

/// Longest wait for the answer to one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(12);
/// Pause after an attempt that failed, so that a cluster without a leader is not flooded.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: u16,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
}

impl Reply {
    /// A header; empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("ours are text"))
            .unwrap_or_default()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Whether another attempt may succeed. After these the outcome is told to be unknown, pending, or surely nothing.
    fn is_passing(&self) -> bool {
        matches!(self.status, 202 | 503 | 504)
    }
}

/// A client. It stays with a node until an attempt there fails.
pub(crate) struct HttpCaller {
    addresses: Vec<String>,
    at: usize,
    connection: Option<SendRequest<Full<Bytes>>>,
    session: String,
    next_sequence: u64,
    failures: Vec<String>,
}

impl HttpCaller {
    /// Knows these nodes and begins with one of them; no session yet.
    pub(crate) fn new(addresses: Vec<String>, first: usize) -> Self {
        let at = first % addresses.len();
        let (session, failures) = (String::new(), Vec::new());
        Self { addresses, at, connection: None, session, next_sequence: 1, failures }
    }

    /// One request, once.
    pub(crate) async fn ask(
        &mut self,
        line: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Reply, String> {
        let (method, path) = line.split_once(' ').expect("METHOD PATH");
        let mut request = Request::builder().method(method).uri(path).header("host", "cluster");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("well formed");
        let answer = timeout(ATTEMPT_TIMEOUT, self.exchange(request)).await;
        let answer = answer.unwrap_or_else(|_elapsed| Err("no answer in time".to_owned()));
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Reply, String> {
        let text = |error: hyper::Error| error.to_string();
        let mut connection = match self.connection.take() {
            Some(connection) if connection.is_ready() => connection,
            _ => {
                let address = &self.addresses[self.at];
                let stream =
                    TcpStream::connect(address).await.map_err(|error| error.to_string())?;
                let (connection, task) =
                    http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
                // Its end reaches whoever uses the connection.
                tokio::spawn(async move { drop(task.await) });
                connection
            }
        };
        let answer = connection.send_request(request).await.map_err(text)?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(text)?.to_bytes();
        self.connection = Some(connection);
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// Repeats a request, at one node after the other, until its answer is not a passing failure.
    pub(crate) async fn until_done(
        &mut self,
        line: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let begun = Instant::now();
        loop {
            let trouble = match self.ask(line, headers, body.to_owned()).await {
                Ok(reply) if reply.is_passing() => reply.text(),
                Ok(reply) => return reply,
                Err(error) => error,
            };
            assert!(begun.elapsed() < PATIENCE, "{line}: still {trouble}");
            self.failures.push(trouble);
            self.at = (self.at + 1) % self.addresses.len();
            self.connection = None;
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Submits a line under a fresh number until it is applied.
    pub(crate) async fn submit(&mut self, command: &str) -> Reply {
        let sequence = self.next_sequence.to_string();
        self.next_sequence += 1;
        let session = self.session.clone();
        let name = [("outrigger-session", &*session), ("outrigger-sequence", &*sequence)];
        self.until_done("POST /v1/submit", &name, command).await
    }
}

impl Adds for HttpCaller {
    async fn open_session(&mut self) {
        let reply = self.until_done("POST /v1/sessions", &[], "").await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.header("outrigger-session").clone_into(&mut self.session);
    }

    async fn increment(&mut self, key: &str) -> Option<i64> {
        let reply = self.submit(&format!("INCR {key}")).await;
        match StatusCode::from_u16(reply.status) {
            Ok(StatusCode::OK) => Some(reply.text().parse().expect("INCR answers in decimal")),
            Ok(StatusCode::NO_CONTENT) if reply.header("outrigger-result") == "not-kept" => None,
            _ => panic!("session {}: {reply:?}", self.session),
        }
    }

    async fn append(&mut self, key: &str, text: &str) {
        let reply = self.submit(&format!("APPEND {key} {text}")).await;
        assert!([200, 204].contains(&reply.status), "session {}: {reply:?}", self.session);
    }

    fn failures(self) -> Vec<String> {
        self.failures
    }
}
