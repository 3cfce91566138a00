//! The key-value machine, a key per path.

use axum::extract::{Request, State};
use axum::http::Uri;
use axum::response::Response;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use state_machine::kv::command::{Command, CommandError, MAX_VALUE_BYTES, decode_value};

use super::api::{Answered, Api, Applied};
use super::body;
use super::problem::{Kind, Problem};

/// What every key's path begins with.
pub(super) const PREFIX: &str = "/v1/kv/";

pub(super) async fn put(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let (wish, key) = (api.wish(&head)?, key(&head.uri)?);
    let value = body::read(body, MAX_VALUE_BYTES).await?;
    let Applied { index, result } = api.submit(wish, encode(&Command::Put { key, value })?).await?;
    if result.as_ref().is_some_and(|result| !result.is_empty()) {
        return Err(foreign().at(index).after_effect());
    }
    Ok(body::nothing(index, result.is_some()))
}

pub(super) async fn delete(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let (wish, key) = (api.wish(&head)?, key(&head.uri)?);
    let Applied { index, result } = api.submit(wish, encode(&Command::Del { key })?).await?;
    match result.as_deref() {
        Some(b"1") => Ok(body::nothing(index, true)),
        None => Ok(body::nothing(index, false)),
        Some(b"0") => {
            let detail = "there was nothing to remove";
            Err(Problem::new(Kind::NoSuchKey, detail).at(index).after_effect())
        }
        Some(_) => Err(foreign().at(index).after_effect()),
    }
}

pub(super) async fn get(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let (wish, key) = (api.wish(&head)?, key(&head.uri)?);
    let Answered { index, result } = api.query(wish, encode(&Command::Get { key })?).await?;
    match decode_value(&result) {
        Ok(Some(value)) => Ok(body::raw(index, value)),
        Ok(None) => Err(Problem::new(Kind::NoSuchKey, "no value is set").at(index)),
        Err(_malformed) => Err(foreign().at(index)),
    }
}

/// A path without a key.
pub(super) async fn no_key() -> Problem {
    Problem::bad_request(format!("the key is missing: {PREFIX}KEY"))
}

fn key(uri: &Uri) -> Result<Bytes, Problem> {
    let written = uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let is_whole = |rest: &str| {
        rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !written.split('%').skip(1).all(is_whole) {
        let detail = "the key has a % without two hexadecimal digits; write % itself as %25";
        return Err(Problem::bad_request(detail));
    }
    Ok(percent_decode_str(written).collect::<Vec<u8>>().into())
}

fn encode(command: &Command) -> Result<Bytes, Problem> {
    command.encode().map_err(|error| {
        let kind = match error {
            CommandError::ValueTooLarge { .. } => Kind::TooLarge,
            CommandError::Empty
            | CommandError::NotText
            | CommandError::ManyLines
            | CommandError::UnknownVerb
            | CommandError::Missing { .. }
            | CommandError::TooMuch { .. }
            | CommandError::KeyNotPlain
            | CommandError::KeySize { .. }
            | CommandError::NotANumber
            | CommandError::CutShort => Kind::BadRequest,
        };
        Problem::new(kind, error.to_string())
    })
}

fn foreign() -> Problem {
    Problem::new(
        Kind::ForeignMachine,
        "does the cluster run another machine? POST /v1/submit and /v1/query serve any",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_any_bytes_percent_decoded_once() {
        for (path, expected) in [
            ("/v1/kv/k", &b"k"[..]),
            ("/v1/kv/a/b//c/", b"a/b//c/"),
            ("/v1/kv//k", b"/k"),
            ("/v1/kv/a%2Fb%20c+d", b"a/b c+d"),
            ("/v1/kv/%FF%00", b"\xff\x00"),
            ("/v1/kv/%2541", b"%41"),
            ("/v1/kv/k?timeout_ms=5", b"k"),
        ] {
            assert_eq!(key(&path.parse().unwrap()).unwrap(), expected, "{path}");
        }
        for path in ["/v1/kv/%", "/v1/kv/%4", "/v1/kv/%zz", "/v1/kv/a%%41"] {
            let problem = key(&path.parse().unwrap()).unwrap_err();
            assert!(problem.detail().contains("%25"), "{path}");
        }
    }
}
