//! What is printed: answers on standard output, errors on standard error; for people or as one line of JSON.

use std::borrow::Cow;
use std::fmt::Write as _;

use raft::rpc::client::{MemberStatus, NodeStatus};
use raft::rpc::wire::Endpoint;
use serde_json::{Value, json};

use crate::cli::Format;
use crate::error::{Error, Refusal};

/// A node that was asked, and its answer.
pub type Asked = (Endpoint, Result<NodeStatus, String>);

/// Something to print, and the exit code that goes with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Printed {
    /// For standard output: a value is printed byte for byte.
    pub out: Option<Vec<u8>>,
    /// For standard error.
    pub err: Option<String>,
    /// See `--help`.
    pub exit_code: u8,
}

impl Printed {
    /// An answer.
    pub fn answer(format: Format, human: impl Into<Vec<u8>>, json: &Value) -> Self {
        let out = match format {
            Format::Human => human.into(),
            Format::Json => json.to_string().into_bytes(),
        };
        Self { out: Some(out), err: None, exit_code: 0 }
    }

    /// GET of a key that is not there: an answer, but not the one that was hoped for.
    pub fn absent(format: Format, key: &str, read_index: u64) -> Self {
        match format {
            Format::Human => {
                Self { out: None, err: Some(format!("there is no key \"{key}\"")), exit_code: 1 }
            }
            Format::Json => {
                let json = json!({ "key": key, "value": null, "read_index": read_index });
                Self { exit_code: 1, ..Self::answer(format, "", &json) }
            }
        }
    }

    /// A failure.
    pub fn failure(format: Format, error: &Error) -> Self {
        let exit_code = exit_code(error);
        match format {
            Format::Human => Self { out: None, err: Some(error.to_string()), exit_code },
            Format::Json => {
                let json = json!({ "error": kind(error), "message": error.to_string() });
                Self { exit_code, ..Self::answer(format, "", &json) }
            }
        }
    }
}

fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Refused(_) => 1,
        Error::Unknown { .. } | Error::Misunderstood { .. } => 3,
        Error::NoLeader { .. } | Error::NoAnswer { .. } => 4,
        Error::CommittedNotApplied { .. } => 5,
    }
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Refused(Refusal::Busy { .. } | Refusal::WindowFull) => "busy",
        Error::Refused(_) => "refused",
        Error::Unknown { .. } => "unknown",
        Error::Misunderstood { .. } => "misunderstood",
        Error::NoLeader { .. } => "no-leader",
        Error::NoAnswer { .. } => "no-answer",
        Error::CommittedNotApplied { .. } => "committed-not-applied",
    }
}

/// Bytes as text, as far as they are text.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// One node's status for people.
pub fn status(status: &NodeStatus) -> String {
    let leader = status.leader.as_ref().map_or("none".to_owned(), |leader| leader.address.clone());
    let cluster = status.cluster.as_deref().unwrap_or("none yet");
    let fsync =
        if status.fsync { "" } else { "\nfsync          OFF: acknowledged writes may be lost" };
    format!(
        "name           {}\nid             {}\ncluster        {cluster}\nrole           {}\npid            {}\nterm           {}\n\
         leader         {leader}\ncommit_index   {}\napplied_index  {}\nlast_index     {}\nvoters         {}\nlearners       {}\n\
         state machine  {}\nmember         {}\nversion        {}{fsync}",
        status.name,
        status.id,
        status.role,
        status.pid,
        status.term,
        status.commit_index,
        status.applied_index,
        status.last_index,
        status.voters.join(" "),
        status.learners.join(" "),
        status.state_machine,
        status.member,
        status.version,
    )
}

/// All nodes' status for people: a line each.
pub fn status_table(all: &[Asked]) -> String {
    let header =
        ["endpoint", "name", "id", "role", "pid", "term", "commit", "applied", "state machine"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for (endpoint, outcome) in all {
        rows.push(match outcome {
            Ok(status) => vec![
                endpoint.to_string(),
                status.name.clone(),
                status.id.clone(),
                status.role.clone(),
                status.pid.to_string(),
                status.term.to_string(),
                status.commit_index.to_string(),
                status.applied_index.to_string(),
                status.state_machine.clone(),
            ],
            Err(reason) => vec![endpoint.to_string(), format!("no answer: {reason}")],
        });
    }
    table(&rows)
}

/// All nodes' status for programs.
pub fn status_json(all: &[Asked]) -> Value {
    let row = |(endpoint, outcome): &Asked| match outcome {
        Ok(status) => json!({ "endpoint": endpoint.to_string(), "status": status }),
        Err(reason) => json!({ "endpoint": endpoint.to_string(), "error": reason }),
    };
    all.iter().map(row).collect()
}

/// Members for people: a line each.
pub fn members_table(members: &[MemberStatus]) -> String {
    let header = ["name", "id", "state", "configured", "raft", "gossip"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for member in members {
        rows.push(vec![
            member.name.clone(),
            member.id.clone(),
            member.state.clone(),
            member.configured.clone(),
            member.raft_address.clone(),
            member.gossip_address.clone(),
        ]);
    }
    table(&rows)
}

/// Columns as wide as their widest cell; the last cell of a row is not counted and may be as long as it likes.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells =
            rows.iter().filter(|row| row.len() > column + 1).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:width$}  ").expect("a string takes everything");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Tried;
    use crate::session::Stamp;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let waited = Duration::from_millis(1);
        let stamp = Stamp { session: 1, sequence: 1 };
        let tried = Tried::default();
        for (error, code) in [
            (Error::Refused(Refusal::WindowFull), 1),
            (Error::Unknown { waited, tried: tried.clone(), stamp }, 3),
            (Error::NoLeader { waited, tried: tried.clone() }, 4),
            (Error::NoAnswer { waited, tried }, 4),
            (Error::CommittedNotApplied { index: 1, stamp }, 5),
        ] {
            for format in [Format::Human, Format::Json] {
                let printed = Printed::failure(format, &error);
                assert_eq!(printed.exit_code, code, "{error}");
                assert_ne!(printed.out.is_none(), printed.err.is_none(), "{error}");
            }
        }
    }

    #[test]
    fn table_lines_up_and_lets_the_last_cell_run() {
        let rows = [vec!["a", "bb", "c"], vec!["aaa", "b", "c"], vec!["x", "a long word"]];
        let rows = rows.map(|row| row.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(table(&rows), "a    bb  c\naaa  b   c\nx    a long word");
    }
}
