//! Bodies: in, bounded in size and time; out, as they are.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures_util::StreamExt;

use super::headers::{INDEX, RESULT};
use super::problem::{Kind, Problem};

/// Longest wait for a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole body, if it has at most `limit_bytes`. One that says that it is longer is not read at all.
pub(super) async fn read(body: Body, limit_bytes: usize) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > limit_bytes as u64 {
        return Err(too_large(limit_bytes));
    }
    match tokio::time::timeout(BODY_TIMEOUT, gather(body, limit_bytes)).await {
        Ok(body) => body,
        Err(_elapsed) => {
            let limit_s = BODY_TIMEOUT.as_secs();
            let detail = format!("the body was not here within {limit_s} s");
            Err(Problem::new(Kind::BodyTimeout, detail))
        }
    }
}

async fn gather(body: Body, limit_bytes: usize) -> Result<Bytes, Problem> {
    let broken = |error| Problem::bad_request(format!("the body broke off: {error}"));
    let mut pieces = body.into_data_stream();
    let Some(first) = pieces.next().await.transpose().map_err(broken)? else {
        return Ok(Bytes::new());
    };
    let mut whole = BytesMut::from(first);
    while let Some(piece) = pieces.next().await.transpose().map_err(broken)? {
        if whole.len() + piece.len() > limit_bytes {
            return Err(too_large(limit_bytes));
        }
        whole.extend_from_slice(&piece);
    }
    if whole.len() > limit_bytes { Err(too_large(limit_bytes)) } else { Ok(whole.freeze()) }
}

fn too_large(limit_bytes: usize) -> Problem {
    Problem::new(Kind::TooLarge, format!("the body may have {limit_bytes} bytes at most"))
}

/// The machine's bytes, with their place in the log.
pub(super) fn raw(index: u64, bytes: Bytes) -> Response {
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(INDEX, index.into());
    response
}

/// Nothing but where the command stands; `is_kept` says whether its result is still known.
pub(super) fn nothing(index: u64, is_kept: bool) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(INDEX, index.into());
    if !is_kept {
        response.headers_mut().insert(RESULT, HeaderValue::from_static("not-kept"));
    }
    response
}
