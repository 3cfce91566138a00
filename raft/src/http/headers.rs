//! What a client says in headers: names for its command, and how far it may go.

use axum::http::{HeaderMap, HeaderName};

use super::problem::Problem;
use crate::rpc::client::SESSION_WINDOW;

/// Names the session: 16 hexadecimal digits.
pub(super) const SESSION: HeaderName = HeaderName::from_static("outrigger-session");
/// Names the command within its session: a decimal number from 1.
pub(super) const SEQUENCE: HeaderName = HeaderName::from_static("outrigger-sequence");
/// Lower sequence numbers are answered: a decimal number.
pub(super) const ACKED_BELOW: HeaderName = HeaderName::from_static("outrigger-acked-below");
/// Whether the request may be passed on: `yes` or `no`.
pub(super) const FORWARD: HeaderName = HeaderName::from_static("outrigger-forward");
/// Where a command stands in the log, or up to where a read saw it.
pub(super) const INDEX: HeaderName = HeaderName::from_static("outrigger-index");
/// What is to know of a result that is not there.
pub(super) const RESULT: HeaderName = HeaderName::from_static("outrigger-result");
/// Where the leader is.
pub(super) const LEADER: HeaderName = HeaderName::from_static("outrigger-leader");

/// A command's name; zeros when it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) session: u64,
    pub(super) sequence: u64,
    pub(super) acked_below: u64,
}

/// Reads a command's name.
pub(super) fn stamp(headers: &HeaderMap) -> Result<Stamp, Problem> {
    let session = one(headers, &SESSION)?.map(named_session).transpose()?;
    let sequence = one(headers, &SEQUENCE)?.map(|text| number(&SEQUENCE, text)).transpose()?;
    let acked_below = one(headers, &ACKED_BELOW)?.map(|text| number(&ACKED_BELOW, text));
    let acked_below = acked_below.transpose()?;
    match (session, sequence, acked_below) {
        (None, None, None) => Ok(Stamp::default()),
        (Some(session), Some(sequence), acked_below) => {
            if acked_below.is_some_and(|acked_below| acked_below > sequence) {
                return Err(bad(
                    &ACKED_BELOW,
                    "it is above the sequence number of this very command",
                ));
            }
            let oldest_kept = sequence.saturating_sub(SESSION_WINDOW - 1).max(1);
            Ok(Stamp { session, sequence, acked_below: acked_below.unwrap_or(oldest_kept) })
        }
        (None, _, _) => Err(bad(&SESSION, "it is missing; POST /v1/sessions gives one")),
        (Some(_), None, _) => {
            Err(bad(&SEQUENCE, "it is missing; a session's commands are numbered from 1"))
        }
    }
}

/// Whether the request may be passed on to the leader.
pub(super) fn forward(headers: &HeaderMap) -> Result<bool, Problem> {
    match one(headers, &FORWARD)? {
        None | Some("yes") => Ok(true),
        Some("no") => Ok(false),
        Some(_) => Err(bad(&FORWARD, "it is yes or no")),
    }
}

/// A session as it was given.
pub(super) fn session_number(text: &str) -> Option<u64> {
    let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = if is_hex { u64::from_str_radix(text, 16).ok() } else { None };
    number.filter(|number| *number != 0)
}

fn named_session(text: &str) -> Result<u64, Problem> {
    session_number(text).ok_or_else(|| {
        bad(&SESSION, "it is the session as POST /v1/sessions gave it, 16 hexadecimal digits")
    })
}

fn number(name: &HeaderName, text: &str) -> Result<u64, Problem> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_decimal { text.parse().ok() } else { None };
    number
        .filter(|number| *number != 0)
        .ok_or_else(|| bad(name, "it is a decimal number from 1 to 18446744073709551615"))
}

/// The one value of a header, if it is there.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad(name, "it is there more than once"));
    }
    value.to_str().map(Some).map_err(|_not_text| bad(name, "it is no plain text"))
}

fn bad(name: &HeaderName, reason: &str) -> Problem {
    Problem::bad_request(format!("header {name}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    const ID: &str = "000000000000002a";

    #[test]
    fn a_command_has_a_whole_name_or_none() {
        let named = |sequence, acked_below| Stamp { session: 0x2a, sequence, acked_below };
        for (fields, expected) in [
            (&[][..], Stamp::default()),
            (&[(SESSION, ID), (SEQUENCE, "7")], named(7, 1)),
            (&[(SESSION, ID), (SEQUENCE, "1024")], named(1024, 1)),
            (&[(SESSION, ID), (SEQUENCE, "1025")], named(1025, 2)),
            (&[(SESSION, ID), (SEQUENCE, "7"), (ACKED_BELOW, "7")], named(7, 7)),
        ] {
            assert_eq!(stamp(&of(fields)).unwrap(), expected, "{fields:?}");
        }
    }

    #[test]
    fn half_a_name_or_a_wrong_one_is_refused_with_the_header_that_is_to_blame() {
        for (fields, named) in [
            (&[(SEQUENCE, "1")][..], "outrigger-session: it is missing"),
            (&[(ACKED_BELOW, "1")], "outrigger-session: it is missing"),
            (&[(SESSION, ID)], "outrigger-sequence: it is missing"),
            (&[(SESSION, "2a"), (SEQUENCE, "1")], "outrigger-session"),
            (&[(SESSION, "+00000000000002a"), (SEQUENCE, "1")], "outrigger-session"),
            (&[(SESSION, "0000000000000000"), (SEQUENCE, "1")], "outrigger-session"),
            (&[(SESSION, ID), (SESSION, ID), (SEQUENCE, "1")], "more than once"),
            (&[(SESSION, ID), (SEQUENCE, "0")], "outrigger-sequence"),
            (&[(SESSION, ID), (SEQUENCE, "+1")], "outrigger-sequence"),
            (&[(SESSION, ID), (SEQUENCE, "18446744073709551616")], "outrigger-sequence"),
            (&[(SESSION, ID), (SEQUENCE, "1"), (ACKED_BELOW, "2")], "outrigger-acked-below"),
        ] {
            let problem = stamp(&of(fields)).unwrap_err();
            assert!(problem.detail().contains(named), "{fields:?}: {}", problem.detail());
        }
        let obscure = HeaderMap::from_iter([(SESSION, vec![0xff].try_into().unwrap())]);
        assert!(stamp(&obscure).unwrap_err().detail().contains("no plain text"));
    }

    #[test]
    fn passing_on_is_allowed_unless_it_is_forbidden() {
        assert!(forward(&of(&[])).unwrap());
        assert!(forward(&of(&[(FORWARD, "yes")])).unwrap());
        assert!(!forward(&of(&[(FORWARD, "no")])).unwrap());
        assert!(forward(&of(&[(FORWARD, "false")])).is_err());
    }
}
