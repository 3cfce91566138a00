//! Which handler a request goes to.

use axum::Router;
use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Method};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};

use super::api::Api;
use super::problem::{Kind, Problem};
use super::{health, kv, metrics, raw, status};

pub(super) fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/submit", post(raw::submit))
        .route("/v1/query", post(raw::query))
        .route("/v1/sessions", post(raw::open_session))
        .route("/v1/sessions/{session}", put(raw::renew_session).delete(raw::close_session))
        .route("/v1/kv/", get(kv::no_key).put(kv::no_key).delete(kv::no_key))
        .route("/v1/kv/{*key}", put(kv::put).get(kv::get).delete(kv::delete))
        .route("/v1/status", get(status::status))
        .route("/v1/members", get(status::members))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(refuse_other_sites))
        .with_state(api)
}

async fn no_such_route() -> Problem {
    let detail = "there are /v1/submit, /v1/query, /v1/sessions, /v1/sessions/ID, /v1/kv/KEY, /v1/status, /v1/members, /livez, /readyz and /metrics";
    Problem::new(Kind::NoSuchRoute, detail)
}

async fn method_not_allowed() -> Problem {
    Problem::new(Kind::MethodNotAllowed, "the header Allow lists those that it takes")
}

/// Nobody is asked for a password here, so a web page must not simply have its readers' browsers write. A page whose own
/// name is made to lead here (DNS rebinding) still can: README names that case.
async fn refuse_other_sites(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads || !is_of_another_site(request.headers()) {
        return next.run(request).await;
    }
    let detail = "the header Origin names another host than the header Host";
    Problem::new(Kind::CrossOrigin, detail).into_response()
}

fn is_of_another_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    text(ORIGIN).is_some_and(|origin| origin.split_once("://").map(|(_, host)| host) != text(HOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_no_origin_and_pages_have_their_own() {
        for (origin, other) in [
            (None, false),
            (Some("http://localhost:6003"), false),
            (Some("http://evil.example"), true),
            (Some("http://localhost:80"), true),
            (Some("null"), true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, "localhost:6003".parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(is_of_another_site(&headers), other, "{origin:?}");
        }
    }
}
