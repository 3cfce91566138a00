//! What this node knows of itself and of the others, as JSON.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::api::Api;
use super::problem::{Kind, Problem};
use crate::rpc::client::{ClientService, NodeStatus};

/// Longest wait for the stages of this very process.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn status(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    Ok(Json(own_status(&api).await?.to_json()))
}

pub(super) async fn members(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let members = api.server.clone().members(tarpc::context::current());
    Ok(Json(json!(in_time(members).await?)))
}

pub(super) async fn own_status(api: &Api) -> Result<NodeStatus, Problem> {
    in_time(api.server.clone().status(tarpc::context::current())).await
}

pub(super) async fn in_time<T>(look: impl Future<Output = T>) -> Result<T, Problem> {
    let limit_s = LOOK_TIMEOUT.as_secs();
    let detail = || format!("its event loop has not answered for {limit_s} s, or it is stopping");
    let looked = tokio::time::timeout(LOOK_TIMEOUT, look).await;
    looked.map_err(|_elapsed| Problem::new(Kind::NotResponding, detail()))
}
