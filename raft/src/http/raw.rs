//! Commands and queries of any machine, as bytes.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::api::{Answered, Api, Applied};
use super::body;
use super::headers::SESSION;
use super::problem::Problem;
use crate::rpc::client::MAX_COMMAND_BYTES;

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
    let session = format!("{:016x}", api.open_session(api.wish(&head)?).await?);
    let mut response = (StatusCode::CREATED, Json(json!({ "session": session }))).into_response();
    // Digits always are a header value.
    if let Ok(session) = HeaderValue::try_from(session) {
        response.headers_mut().insert(SESSION, session);
    }
    Ok(response)
}
