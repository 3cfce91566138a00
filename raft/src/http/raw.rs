//! Commands and queries of any machine, as bytes, and sessions.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::api::{Answered, Api, Applied};
use super::body;
use super::headers::{SESSION, session_number};
use super::problem::Problem;
use crate::rpc::client::{MAX_COMMAND_BYTES, SessionChange};

pub(super) async fn submit(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let wish = api.wish(&head)?;
    let command = body::read(body, MAX_COMMAND_BYTES).await?;
    let Applied { index, result } = api.submit(wish, command).await?;
    Ok(match result {
        Some(result) => body::raw(index, result),
        None => body::nothing(index, false),
    })
}

pub(super) async fn query(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let wish = api.wish(&head)?;
    let query = body::read(body, MAX_COMMAND_BYTES).await?;
    let Answered { index, result } = api.query(wish, query).await?;
    Ok(body::raw(index, result))
}

pub(super) async fn open_session(
    State(api): State<Api>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let opened = api.open_session(&head).await?;
    let session = format!("{:016x}", opened.session);
    let document = json!({ "session": session, "ttl_ms": opened.ttl_ms });
    let mut response = (StatusCode::CREATED, Json(document)).into_response();
    // Digits always are a header value.
    if let Ok(session) = HeaderValue::try_from(session) {
        response.headers_mut().insert(SESSION, session);
    }
    Ok(response)
}

pub(super) async fn renew_session(
    state: State<Api>,
    session: Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    change_session(state, session, request, SessionChange::Renew).await
}

pub(super) async fn close_session(
    state: State<Api>,
    session: Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    change_session(state, session, request, SessionChange::Close).await
}

async fn change_session(
    State(api): State<Api>,
    Path(session): Path<String>,
    request: Request,
    change: SessionChange,
) -> Result<StatusCode, Problem> {
    let (head, _) = request.into_parts();
    let session = session_number(&session).ok_or_else(|| {
        Problem::bad_request("the path ends with the session, 16 hexadecimal digits")
    })?;
    api.change_session(&head, session, change).await?;
    Ok(StatusCode::NO_CONTENT)
}
