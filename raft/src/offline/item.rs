//! What stands in the log, a line each.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::report::{Report, id_json, membership_json, membership_text, printable};
use crate::command::Command;
use crate::consensus::{Entry, Payload, SnapshotMeta};
use crate::wal::{Held, Item};

/// So much is shown of what a command holds.
const BODY_BYTES: usize = 60;

/// Prints an item.
pub(super) fn print<W: Write>(item: &Item, report: &mut Report<W>) -> io::Result<()> {
    match item {
        Item::Segment { file, log, held } => report.line(
            || format!("{}  log {log:016x}, {}", file.display(), held_text(held)),
            || {
                json!({
                    "type": "segment", "file": file.display().to_string(), "log": format!("{log:016x}"), "after": id_json(held.last),
                    "base": held.base.as_ref().map(|base| id_json(base.last)), "term": held.hard_state.term.0,
                    "vote": held.hard_state.vote.map(|vote| vote.to_string()), "commit_index": held.commit_index.0,
                    "membership": held.membership.as_ref().map(|(_, membership)| membership_json(membership)),
                })
            },
        ),
        Item::HardState(state) => {
            let vote = state.vote.map(|vote| vote.to_string());
            report.line(
                || {
                    let whom = vote.as_deref().unwrap_or("nobody");
                    row("", "hard state", &format!("term {}, vote for {whom}", state.term))
                },
                || json!({"type": "hard-state", "term": state.term.0, "vote": vote}),
            )
        }
        Item::Truncation(from) => report.line(
            || row("", "truncation", &format!("entries from {from} on are dropped")),
            || json!({"type": "truncation", "from": from.0}),
        ),
        Item::CommitHint(index) => report.line(
            || row("", "commit", &format!("up to {index}")),
            || json!({"type": "commit-hint", "index": index.0}),
        ),
        Item::Base { meta, keeps_suffix } => print_base(meta, *keeps_suffix, report),
        Item::Entry(entry) => print_entry(entry, report),
    }
}

fn print_base<W: Write>(
    meta: &SnapshotMeta,
    keeps_suffix: bool,
    report: &mut Report<W>,
) -> io::Result<()> {
    report.line(
        || {
            let rest = if keeps_suffix { "what follows stays" } else { "the rest is dropped, too" };
            let members = membership_text(&meta.membership);
            row("", "base", &format!("the log starts after {}, {rest}; {members}", meta.last))
        },
        || {
            json!({
                "type": "base", "last": id_json(meta.last), "keeps_suffix": keeps_suffix,
                "membership": membership_json(&meta.membership), "membership_index": meta.membership_index.0,
            })
        },
    )
}

fn print_entry<W: Write>(entry: &Entry, report: &mut Report<W>) -> io::Result<()> {
    let (kind, text, json) = match &entry.payload {
        Payload::Noop => ("no-op", String::new(), json!({})),
        Payload::Membership(membership) => {
            let json = json!({"membership": membership_json(membership)});
            ("membership", membership_text(membership), json)
        }
        Payload::Command(payload) => {
            if let Some(command) = Command::decode(payload) {
                let (text, json) = describe(&command);
                ("command", text, json)
            } else {
                let text = format!("{} bytes that are no command of raft", payload.len());
                ("unknown", text, json!({"bytes": payload.len()}))
            }
        }
    };
    let id = entry.id;
    report.line(
        || row(&id.to_string(), kind, &text),
        || {
            let mut line = json!({
                "type": "entry", "index": id.index.0, "term": id.term.0, "kind": kind,
            });
            if let (Value::Object(line), Value::Object(more)) = (&mut line, json) {
                line.extend(more);
            }
            line
        },
    )
}

fn describe(command: &Command) -> (String, Value) {
    let Command { kind, time_ms, session, sequence, acked_below, body } = command;
    let kind = kind_name(&format!("{kind:?}"));
    let shown = printable(&body[..shown_bytes(body)]);
    let more = if body.len() > BODY_BYTES { "…" } else { "" };
    let text = format!(
        "{kind}, session {session}, sequence {sequence}, acknowledged below {acked_below}, time {time_ms} ms, \
         {} bytes: {shown}{more}",
        body.len()
    );
    let json = json!({
        "command": kind, "session": session, "sequence": sequence, "acked_below": acked_below, "time_ms": time_ms,
        "body_bytes": body.len(), "body": shown,
    });
    (text, json)
}

/// How much of a body is shown: no letter is cut in half.
fn shown_bytes(body: &[u8]) -> usize {
    let most = body.len().min(BODY_BYTES);
    let is_text = |count: &usize| str::from_utf8(&body[..*count]).is_ok();
    (most.saturating_sub(3)..=most).rev().find(is_text).unwrap_or(most)
}

/// `OpenSession` as `open-session`.
fn kind_name(variant: &str) -> String {
    let mut name = String::new();
    for letter in variant.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

fn held_text(held: &Held) -> String {
    let base = held.base.as_ref().map_or(String::new(), |base| format!(" (base {})", base.last));
    let vote = held.hard_state.vote.map_or("nobody".to_owned(), |vote| vote.to_string());
    format!(
        "starts after {}{base}; committed up to {}, term {}, vote for {vote}",
        held.last, held.commit_index, held.hard_state.term
    )
}

fn row(id: &str, kind: &str, text: &str) -> String {
    format!("{id:>12}  {kind:<10}  {text}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_bodies_are_cut_between_letters() {
        assert_eq!(shown_bytes(b"PUT a b"), 7);
        assert_eq!(shown_bytes(&[b'a'; 100]), BODY_BYTES);
        assert_eq!(shown_bytes("a".repeat(59).replace('a', "ä").as_bytes()), BODY_BYTES);
        assert_eq!(shown_bytes(format!("a{}", "ä".repeat(59)).as_bytes()), BODY_BYTES - 1);
        assert_eq!(shown_bytes(&[0xff; 100]), BODY_BYTES);
    }

    #[test]
    fn kinds_are_named_as_words() {
        assert_eq!((&*kind_name("Apply"), &*kind_name("OpenSession")), ("apply", "open-session"));
    }
}
