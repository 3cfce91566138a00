//! Results and errors, as text for people or as JSON for programs: one value on one line of standard output, whatever
//! happens.
//!
//! Numbers of the log are JSON numbers, ids are hexadecimal strings. A value that is no UTF-8 text stands under a name
//! that ends in `_hex`, in hexadecimal.

use std::fmt::Write;

use bytes::Bytes;
use clap::ValueEnum;
use raft_client::{
    Answer, Endpoint, Error, LeaderHint, List, LogFilter, MemberStatus, NodeStatus, Receipt, Stamp,
};
use serde_json::{Value, json};

use crate::measure::Measured;
use crate::run::Failure;

/// For whom to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Sentences and tables, for people.
    Human,
    /// One value on one line, for programs.
    Json,
}

/// What came of a verb.
#[derive(Debug)]
pub(crate) enum Report {
    Put { key: String, value: String, receipt: Receipt<()> },
    Value { key: String, value: Bytes, read_index: u64 },
    Removed { key: String, receipt: Receipt<bool> },
    Number { key: String, receipt: Receipt<i64> },
    Swapped { key: String, value: String, receipt: Receipt<()> },
    Length { key: String, receipt: Receipt<u64> },
    Listed { answer: Answer<List> },
    LogFilter(LogFilter),
    Submitted { receipt: Receipt<Bytes> },
    Answered { answer: Answer<Bytes> },
    Status(Box<NodeStatus>),
    Statuses(Vec<(Endpoint, Result<NodeStatus, String>)>),
    Members(Vec<MemberStatus>),
    Measured(Box<Measured>),
    Healthy,
    Leads(LeaderHint),
    Left { node: u64 },
    SnapshotTaken { node: u64, index: u64, bytes: u64 },
}

impl Report {
    /// What to print, its last line end included.
    pub(crate) fn text(&self, format: Format) -> Vec<u8> {
        let mut text = match format {
            Format::Human => self.human(),
            Format::Json => self.json().to_string().into_bytes(),
        };
        text.push(b'\n');
        text
    }

    fn human(&self) -> Vec<u8> {
        let text = match self {
            Self::Put { key, value, .. } | Self::Swapped { key, value, .. } => {
                format!("Success! Set \"{key}\" to: \"{value}\"")
            }
            Self::Removed { key, receipt } => match receipt.result {
                Some(true) => format!("Success! Removed \"{key}\""),
                Some(false) => format!("There was no \"{key}\" to remove"),
                None => no_longer_kept(receipt.index),
            },
            Self::Number { receipt, .. } => match receipt.result {
                Some(number) => number.to_string(),
                None => no_longer_kept(receipt.index),
            },
            Self::Length { receipt, .. } => match receipt.result {
                Some(bytes) => bytes.to_string(),
                None => no_longer_kept(receipt.index),
            },
            Self::Listed { answer } => lines_of_list(&answer.result),
            Self::LogFilter(LogFilter { node, filter }) => format!("{node} logs {filter}"),
            Self::Submitted { receipt } => match &receipt.result {
                Some(result) if result.is_empty() => {
                    format!("Success! Applied at index {}", receipt.index)
                }
                Some(result) => return result.to_vec(),
                None => no_longer_kept(receipt.index),
            },
            Self::Value { value, .. } => return value.to_vec(),
            Self::Answered { answer } => return answer.result.to_vec(),
            Self::Status(status) => lines_of(status),
            Self::Statuses(statuses) => table_of_statuses(statuses),
            Self::Members(members) => table_of_members(members),
            Self::Measured(measured) => measured.text(),
            Self::Healthy => "healthy".to_owned(),
            Self::Leads(leader) => {
                format!("Success! {:016x} at {} leads", leader.node, leader.address)
            }
            Self::Left { node } => format!("Success! {node:016x} has left"),
            Self::SnapshotTaken { node, index, bytes } => {
                format!("Success! {node:016x} holds a snapshot up to entry {index}, {bytes} bytes")
            }
        };
        text.into_bytes()
    }

    fn json(&self) -> Value {
        match self {
            Self::Put { key, value, receipt } => {
                json_of_write(receipt, [("key", json!(key)), ("value", json!(value))])
            }
            Self::Removed { key, receipt } => {
                json_of_write(receipt, [("key", json!(key)), ("removed", json!(receipt.result))])
            }
            Self::Number { key, receipt } => {
                json_of_write(receipt, [("key", json!(key)), ("value", json!(receipt.result))])
            }
            Self::Swapped { key, value, receipt } => json_of_write(
                receipt,
                [("key", json!(key)), ("value", json!(value)), ("swapped", json!(true))],
            ),
            Self::Length { key, receipt } => {
                json_of_write(receipt, [("key", json!(key)), ("bytes", json!(receipt.result))])
            }
            Self::Listed { answer } => json_of_list(answer),
            Self::LogFilter(LogFilter { node, filter }) => {
                json!({ "node": node, "filter": filter })
            }
            Self::Submitted { receipt } => {
                let result = receipt.result.as_ref();
                json_of_write(receipt, [result.map_or(("result", Value::Null), json_of_result)])
            }
            Self::Value { key, value, read_index } => {
                let (name, value) = json_of_bytes("value", "value_hex", value);
                json!({ "key": key, name: value, "read_index": read_index })
            }
            Self::Answered { answer } => {
                let (name, result) = json_of_result(&answer.result);
                json!({ name: result, "read_index": answer.read_index })
            }
            Self::Status(status) => status.to_json(),
            Self::Statuses(statuses) => statuses.iter().map(json_of_one).collect(),
            Self::Members(members) => json!(members),
            Self::Measured(measured) => measured.json(),
            Self::Healthy => json!({ "healthy": true }),
            Self::Leads(leader) => json!({ "leader": leader.to_json() }),
            Self::Left { node } => json!({ "left": format!("{node:016x}") }),
            Self::SnapshotTaken { node, index, bytes } => {
                json!({ "node": format!("{node:016x}"), "snapshot_index": index, "bytes": bytes })
            }
        }
    }
}

/// What went wrong, for people, its last line end included.
pub(crate) fn explain(failure: &Failure) -> String {
    format!("raft-client: {failure}\n")
}

/// The same for programs.
pub(crate) fn explain_json(failure: &Failure) -> String {
    let mut object = json!({ "error": failure.kind(), "message": failure.to_string().trim_end() });
    if let Failure::NotFound { key, read_index } = failure {
        object["key"] = json!(key);
        object["value"] = Value::Null;
        object["read_index"] = json!(read_index);
    }
    if let Failure::Election(measured) = failure {
        object["message"] = json!(format!("an election happened: {}", measured.terms()));
        object["measured"] = measured.json();
    }
    if let Failure::Forgotten { key, index, stamp } = failure {
        object["key"] = json!(key);
        object["index"] = json!(index);
        add_stamp(&mut object, *stamp);
    }
    if let Failure::Mismatch { key, present, index, stamp } = failure {
        object["key"] = json!(key);
        let none = ("present", Value::Null);
        let (name, value) =
            present.as_ref().map_or(none, |value| json_of_bytes("present", "present_hex", value));
        object[name] = value;
        object["index"] = json!(index);
        add_stamp(&mut object, *stamp);
    }
    if let Failure::Request(Error::CommittedNotApplied { index, .. }) = failure {
        object["index"] = json!(index);
    }
    if let Failure::Request(
        Error::Unknown { stamp, .. } | Error::CommittedNotApplied { stamp, .. },
    ) = failure
    {
        add_stamp(&mut object, *stamp);
    }
    format!("{object}\n")
}

fn add_stamp(object: &mut Value, stamp: Stamp) {
    object["session"] = json!(format!("{:016x}", stamp.session));
    object["sequence"] = json!(stamp.sequence);
}

fn no_longer_kept(index: u64) -> String {
    format!("It was applied at index {index}; what it came to is no longer kept")
}

fn json_of_write<T, const N: usize>(
    receipt: &Receipt<T>,
    parts: [(&'static str, Value); N],
) -> Value {
    let mut object = json!({ "index": receipt.index });
    add_stamp(&mut object, receipt.stamp);
    for (name, value) in parts {
        object[name] = value;
    }
    object
}

fn json_of_result(result: &Bytes) -> (&'static str, Value) {
    json_of_bytes("result", "result_hex", result)
}

fn json_of_bytes(
    name: &'static str,
    name_hex: &'static str,
    bytes: &[u8],
) -> (&'static str, Value) {
    match str::from_utf8(bytes) {
        Ok(text) => (name, json!(text)),
        Err(_not_text) => {
            let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
            (name_hex, json!(hex))
        }
    }
}

/// A pair per line; what would spoil a line is shown escaped.
fn lines_of_list(list: &List) -> String {
    let shown = |bytes: &Bytes| match str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    };
    let mut lines: Vec<String> = list
        .pairs
        .iter()
        .map(|(key, value)| match value {
            Some(value) => format!("{} = {}", shown(key), shown(value)),
            None => shown(key),
        })
        .collect();
    match list.pairs.last() {
        None => lines.push("No such keys".to_owned()),
        Some((key, _)) if list.more && shown(key).as_bytes() == key && !key.contains(&b'\'') => {
            lines.push(format!("… there is more: go on with --after '{}'", shown(key)));
        }
        Some(_) if list.more => {
            lines.push("… there is more, after a key that cannot be typed".to_owned());
        }
        Some(_) => {}
    }
    lines.join("\n")
}

fn json_of_list(answer: &Answer<List>) -> Value {
    let pair = |(key, value): &(Bytes, Option<Bytes>)| {
        let (name, key) = json_of_bytes("key", "key_hex", key);
        let mut object = json!({ name: key });
        if let Some(value) = value {
            let (name, value) = json_of_bytes("value", "value_hex", value);
            object[name] = value;
        }
        object
    };
    let List { pairs, more } = &answer.result;
    let mut object = json!({
        "pairs": pairs.iter().map(pair).collect::<Value>(),
        "more": more,
        "read_index": answer.read_index,
    });
    if let Some((last, _)) = pairs.last().filter(|_| *more) {
        let (name, last) = json_of_bytes("after", "after_hex", last);
        object[name] = last;
    }
    object
}

fn json_of_one((endpoint, status): &(Endpoint, Result<NodeStatus, String>)) -> Value {
    let endpoint = endpoint.to_string();
    match status {
        Ok(status) => json!({ "endpoint": endpoint, "status": status.to_json() }),
        Err(reason) => json!({ "endpoint": endpoint, "error": reason }),
    }
}

fn lines_of(status: &NodeStatus) -> String {
    let leader = status.leader.as_ref().map_or_else(
        || "unknown".to_owned(),
        |leader| format!("{:016x} at {}", leader.node, leader.address),
    );
    let committed = if status.membership_committed { "committed" } else { "not yet committed" };
    let fsync = if status.fsync { "on" } else { "OFF: an acknowledged write may be lost" };
    let mut rows = vec![
        row(["name", &status.name]),
        row(["id", &status.id]),
        row(["cluster", status.cluster.as_deref().unwrap_or("none yet")]),
        row(["role", &status.role]),
        row(["pid", &status.pid.to_string()]),
        row(["boot", &status.boot.to_string()]),
        row(["term", &status.term.to_string()]),
        row(["leader", &leader]),
        row(["commit_index", &status.commit_index.to_string()]),
        row(["applied_index", &status.applied_index.to_string()]),
        row(["first_index", &status.first_index.to_string()]),
        row(["last_index", &status.last_index.to_string()]),
        row(["snapshot_index", &status.snapshot_index.to_string()]),
        row(["snapshot_bytes", &status.snapshot_bytes.to_string()]),
        row(["log_bytes", &status.log_bytes.to_string()]),
        row(["voters", &format!("{} ({committed})", status.voters.join(" "))]),
    ];
    for (name, ids) in [("outgoing", &status.outgoing), ("learners", &status.learners)] {
        if !ids.is_empty() {
            rows.push(row([name, &ids.join(" ")]));
        }
    }
    rows.push(row(["http_address", &status.http_address]));
    rows.push(row(["state_machine", &status.state_machine]));
    rows.push(row(["member", &status.member]));
    rows.push(row(["fsync", fsync]));
    rows.push(row(["version", &status.version]));
    table(&rows)
}

fn table_of_statuses(statuses: &[(Endpoint, Result<NodeStatus, String>)]) -> String {
    let heads = [
        "ENDPOINT", "NAME", "ROLE", "TERM", "COMMIT", "APPLIED", "PID", "ID", "VERSION", "MACHINE",
    ];
    let rows = statuses.iter().map(|(endpoint, status)| match status {
        Ok(status) => vec![
            endpoint.to_string(),
            status.name.clone(),
            status.role.clone(),
            status.term.to_string(),
            status.commit_index.to_string(),
            status.applied_index.to_string(),
            status.pid.to_string(),
            status.id.clone(),
            status.version.clone(),
            status.state_machine.clone(),
        ],
        Err(reason) => vec![endpoint.to_string(), reason.clone()],
    });
    table(&[row(heads)].into_iter().chain(rows).collect::<Vec<_>>())
}

fn table_of_members(members: &[MemberStatus]) -> String {
    let rows = members.iter().map(|member| {
        row([
            &member.name,
            &member.id,
            &member.state,
            &member.configured,
            &member.raft_address,
            &member.gossip_address,
            &member.http_address,
        ])
    });
    let heads = row(["NAME", "ID", "STATE", "CONFIGURED", "RAFT", "GOSSIP", "HTTP"]);
    table(&[heads].into_iter().chain(rows).collect::<Vec<_>>())
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell.to_owned() }).into()
}

/// Columns as wide as their widest cell; the last cell of a row counts for none, it has all the room it needs.
fn table(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (column, cell) in row.iter().take(row.len().saturating_sub(1)).enumerate() {
            widths.resize(widths.len().max(column + 1), 0);
            widths[column] = widths[column].max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths.get(column).copied().unwrap_or_default();
            write!(line, "{cell:width$}  ").expect("a String takes everything");
        }
        text.push_str(if at == 0 { "" } else { "\n" });
        text.push_str(line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use raft_client::{Refusal, Tried};

    use super::*;

    fn receipt<T>(result: Option<T>) -> Receipt<T> {
        Receipt { stamp: Stamp { session: 0x2a, sequence: 7 }, index: 12, result }
    }

    fn human(report: &Report) -> String {
        String::from_utf8(report.text(Format::Human)).unwrap()
    }

    fn json(report: &Report) -> Value {
        serde_json::from_slice(&report.text(Format::Json)).unwrap()
    }

    #[test]
    fn put_prints_the_line_that_people_know() {
        let report = Report::Put {
            key: "pizzatoppings".to_owned(),
            value: "peporoni peppr cheddar anchoves onn it".to_owned(),
            receipt: receipt(Some(())),
        };
        let line =
            "Success! Set \"pizzatoppings\" to: \"peporoni peppr cheddar anchoves onn it\"\n";
        assert_eq!(human(&report), line);
    }

    #[test]
    fn writes_name_the_stamp_for_programs() {
        let report = Report::Number { key: "k".to_owned(), receipt: receipt(Some(-3)) };
        assert_eq!(human(&report), "-3\n");
        let expected = json!({
            "key": "k", "value": -3, "index": 12, "session": "000000000000002a", "sequence": 7
        });
        assert_eq!(json(&report), expected);
    }

    #[test]
    fn binary_values_are_printed_raw_and_told_in_hex() {
        let value = Bytes::from_static(b"\xff\x00");
        let report = Report::Value { key: "k".to_owned(), value, read_index: 3 };
        assert_eq!(report.text(Format::Human), b"\xff\x00\n");
        assert_eq!(json(&report), json!({ "key": "k", "value_hex": "ff00", "read_index": 3 }));
    }

    #[test]
    fn lists_say_whether_and_how_to_go_on() {
        let pair = |key: &'static [u8], value: Option<&'static [u8]>| {
            (Bytes::from_static(key), value.map(Bytes::from_static))
        };
        let listed = |pairs, more| Report::Listed {
            answer: Answer { read_index: 9, result: List { pairs, more } },
        };
        let some = listed(vec![pair(b"a", Some(b"1")), pair(b"b", Some(b"x\ny\xff"))], true);
        let lines = "a = 1\nb = x\\ny\\xff\n… there is more: go on with --after 'b'\n";
        assert_eq!(human(&some), lines);
        let expected = json!({
            "pairs": [{ "key": "a", "value": "1" }, { "key": "b", "value_hex": "780a79ff" }],
            "more": true, "after": "b", "read_index": 9
        });
        assert_eq!(json(&some), expected);
        assert_eq!(human(&listed(vec![pair(b"a", None)], false)), "a\n");
        assert_eq!(human(&listed(Vec::new(), false)), "No such keys\n");
        let none = json!({ "pairs": [], "more": false, "read_index": 9 });
        assert_eq!(json(&listed(Vec::new(), false)), none);
    }

    #[test]
    fn a_mismatch_tells_what_is_there() {
        let stamp = Stamp { session: 0x2a, sequence: 7 };
        let mismatch =
            |present| Failure::Mismatch { key: "k".to_owned(), present, index: 12, stamp };
        let there = mismatch(Some(Bytes::from_static(b"old")));
        assert_eq!((there.exit_code(), there.kind()), (1, "mismatch"));
        assert_eq!(explain(&there), "raft-client: refused: \"k\" is \"old\"\n");
        let told: Value = serde_json::from_str(&explain_json(&there)).unwrap();
        assert_eq!((&told["present"], &told["index"]), (&json!("old"), &json!(12)));
        let absent: Value = serde_json::from_str(&explain_json(&mismatch(None))).unwrap();
        assert_eq!(absent["present"], Value::Null);
    }

    #[test]
    fn answers_of_any_machine_are_printed_as_they_are() {
        let empty = Report::Submitted { receipt: receipt(Some(Bytes::new())) };
        assert_eq!(human(&empty), "Success! Applied at index 12\n");
        let forgotten = Report::Submitted { receipt: receipt(None) };
        assert!(human(&forgotten).contains("applied at index 12"));
        assert_eq!(json(&forgotten)["result"], Value::Null);
        let answer = Answer { read_index: 4, result: Bytes::from_static(b"rows") };
        let answered = Report::Answered { answer };
        assert_eq!(human(&answered), "rows\n");
        assert_eq!(json(&answered), json!({ "result": "rows", "read_index": 4 }));
    }

    #[test]
    fn tables_are_aligned_and_long_last_cells_widen_nothing() {
        let rows =
            [row(["A", "B"]), row(["long", "b"]), row(["a cell with all the room it needs"])];
        assert_eq!(table(&rows), "A     B\nlong  b\na cell with all the room it needs");
    }

    #[test]
    fn failures_tell_kind_exit_code_and_how_to_go_on() {
        let waited = Duration::from_secs(1);
        let stamp = Stamp { session: 0x2a, sequence: 7 };
        let tried = Tried::default;
        for (failed, kind, exit_code) in [
            (Failure::Usage("no\n".to_owned()), "usage", 2),
            (Failure::NotFound { key: "k".to_owned(), read_index: 3 }, "not-found", 1),
            (Failure::Unhealthy { reason: "r".to_owned() }, "unhealthy", 1),
            (Refusal::WindowFull.into(), "busy", 1),
            (Refusal::SessionExpired { session: 1 }.into(), "refused", 1),
            (Error::Unknown { waited, tried: tried(), stamp }.into(), "unknown", 3),
            (Error::NoAnswer { waited, tried: tried() }.into(), "no-answer", 3),
            (Error::NoLeader { waited, tried: tried() }.into(), "no-leader", 4),
            (Error::CommittedNotApplied { index: 1, stamp }.into(), "committed-not-applied", 5),
        ] {
            let json: Value = serde_json::from_str(&explain_json(&failed)).unwrap();
            assert_eq!((failed.exit_code(), &json["error"]), (exit_code, &json!(kind)));
            assert_eq!(json["message"], json!(failed.to_string().trim_end()));
            let may_be_repeated = matches!(exit_code, 5) || kind == "unknown";
            assert_eq!(json["session"] == "000000000000002a", may_be_repeated, "{json}");
            assert_eq!(json["sequence"] == 7, may_be_repeated, "{json}");
            assert!(explain(&failed).ends_with('\n'));
        }
    }
}
