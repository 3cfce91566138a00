//! Whether this node is at work, and whether requests should be sent to it.

use std::fmt::Write;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};

use super::api::Api;
use super::problem::{Kind, Problem};
use super::status::{in_time, own_status};
use crate::rpc::client::NodeStatus;

/// Committed entries that the machine may lack of a node that is ready: about a second's work.
const MAX_APPLIED_LAG: u64 = 100_000;
/// How long the log may take to finish something.
const MAX_LOG_STALL: Duration = Duration::from_secs(2);

/// One thing that must be right.
#[derive(Debug, PartialEq, Eq)]
struct Check {
    name: &'static str,
    /// What is wrong.
    trouble: Option<String>,
    /// Whether the node is not ready then.
    is_needed: bool,
}

/// Asks the first stage: it answers as long as the event loop turns. Says nothing of the cluster, so that a supervisor does
/// not restart a node for what a restart cannot mend.
pub(super) async fn livez(State(api): State<Api>) -> Result<Response, Problem> {
    let is_gone = || Problem::new(Kind::NotResponding, "this node is stopping");
    in_time(api.server.look()).await?.ok_or_else(is_gone)?;
    Ok(text(StatusCode::OK, "ok\n".to_owned()))
}

pub(super) async fn readyz(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let is_verbose = match request.uri().query() {
        None => false,
        Some("verbose") => true,
        Some(_) => return Err(Problem::bad_request("the query string: only ?verbose is known")),
    };
    let checks = checks(&own_status(&api).await?, api.shared.metrics.log_stalled());
    let is_ready = checks.iter().all(|check| check.trouble.is_none() || !check.is_needed);
    Ok(if is_ready && !is_verbose {
        text(StatusCode::OK, "ok\n".to_owned())
    } else if is_ready {
        text(StatusCode::OK, report(&checks) + "readyz check passed\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, report(&checks) + "readyz check failed\n")
    })
}

fn checks(status: &NodeStatus, log_stalled: Duration) -> Vec<Check> {
    let needed = |name, trouble| Check { name, trouble, is_needed: true };
    vec![
        needed("membership", membership_trouble(status)),
        needed("leader", status.leader.is_none().then(|| "no leader is known".to_owned())),
        needed("log", log_trouble(log_stalled)),
        needed("machine", trouble_unless("attached", &status.state_machine)),
        needed("applied-lag", lag_trouble(status)),
        Check {
            name: "member",
            trouble: trouble_unless("connected", &status.member),
            is_needed: false,
        },
    ]
}

fn membership_trouble(status: &NodeStatus) -> Option<String> {
    if status.cluster.is_none() {
        return Some("it belongs to no cluster yet".to_owned());
    }
    let mut configured = status.voters.iter().chain(&status.outgoing).chain(&status.learners);
    let is_in = configured.any(|id| *id == status.id);
    (!is_in).then(|| "the configuration does not name this node".to_owned())
}

fn log_trouble(stalled: Duration) -> Option<String> {
    let trouble = || format!("no write has been finished for {} ms", stalled.as_millis());
    (stalled > MAX_LOG_STALL).then(trouble)
}

fn lag_trouble(status: &NodeStatus) -> Option<String> {
    let lag = status.commit_index.saturating_sub(status.applied_index);
    let trouble = || format!("{lag} committed entries are not applied yet");
    (lag > MAX_APPLIED_LAG).then(trouble)
}

fn trouble_unless(right: &str, state: &str) -> Option<String> {
    (state != right).then(|| state.to_owned())
}

fn report(checks: &[Check]) -> String {
    let mut text = String::new();
    for Check { name, trouble, is_needed } in checks {
        let line = match trouble {
            None => format!("[+]{name} ok"),
            Some(trouble) if *is_needed => format!("[-]{name} {trouble}"),
            Some(trouble) => format!("[-]{name} {trouble} (ready without it)"),
        };
        writeln!(text, "{line}").expect("a String takes everything");
    }
    text
}

fn text(status: StatusCode, text: String) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
    ];
    (status, headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::client::LeaderHint;

    fn sound() -> NodeStatus {
        NodeStatus {
            name: "n".to_owned(),
            id: "a".to_owned(),
            cluster: Some("c".to_owned()),
            role: "follower".to_owned(),
            pid: 1,
            boot: 1,
            term: 1,
            leader: Some(LeaderHint { node: 2, address: "h:1".to_owned() }),
            commit_index: MAX_APPLIED_LAG + 5,
            applied_index: 5,
            last_index: MAX_APPLIED_LAG + 5,
            voters: vec!["b".to_owned()],
            outgoing: Vec::new(),
            learners: vec!["a".to_owned()],
            membership_committed: true,
            state_machine: "attached".to_owned(),
            member: "connected".to_owned(),
            fsync: true,
            version: "0".to_owned(),
            http_address: "h:2".to_owned(),
            first_index: 1,
            snapshot_index: 0,
            snapshot_bytes: 0,
            log_bytes: 0,
        }
    }

    /// Names of what is wrong, and the whole report.
    fn judge(status: &NodeStatus, stalled: Duration) -> (Vec<&'static str>, String) {
        let checks = checks(status, stalled);
        let wrong = checks.iter().filter(|check| check.trouble.is_some());
        (wrong.map(|check| check.name).collect(), report(&checks))
    }

    #[test]
    fn a_sound_learner_is_ready() {
        let (wrong, report) = judge(&sound(), MAX_LOG_STALL);
        assert_eq!(wrong, [""; 0]);
        assert_eq!(report.lines().next(), Some("[+]membership ok"));
        assert_eq!(report.lines().count(), 6);
    }

    #[test]
    fn each_check_sees_its_own_trouble() {
        type Harm = fn(&mut NodeStatus);
        let harms: [(Harm, &str, &str); 6] = [
            (|s| s.cluster = None, "membership", "[-]membership it belongs to no cluster yet"),
            (|s| s.learners.clear(), "membership", "does not name this node"),
            (|s| s.leader = None, "leader", "[-]leader no leader is known"),
            (|s| s.state_machine = "gone".to_owned(), "machine", "[-]machine gone\n"),
            (|s| s.commit_index += 1, "applied-lag", "100001 committed entries"),
            (|s| s.member = "away".to_owned(), "member", "[-]member away (ready without it)"),
        ];
        for (harm, name, words) in harms {
            let mut status = sound();
            harm(&mut status);
            let (wrong, report) = judge(&status, Duration::ZERO);
            assert_eq!(wrong, [name]);
            assert!(report.contains(words), "{report}");
        }
        let (wrong, report) = judge(&sound(), MAX_LOG_STALL + Duration::from_millis(1));
        assert_eq!(wrong, ["log"]);
        assert!(report.contains("[-]log no write has been finished for 2001 ms"), "{report}");
    }
}
