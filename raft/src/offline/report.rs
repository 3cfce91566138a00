//! Output: lines for people, or one JSON object per line.

use std::fmt::Display;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::Format;
use crate::consensus::{LogId, Membership, NodeId};

/// Where results go.
pub(super) struct Report<W> {
    format: Format,
    output: W,
}

impl<W: Write> Report<W> {
    pub(super) fn new(format: Format, output: W) -> Self {
        Self { format, output }
    }

    /// One line; of the two forms the wanted one is made.
    pub(super) fn line<T: Display>(
        &mut self,
        human: impl FnOnce() -> T,
        json: impl FnOnce() -> Value,
    ) -> io::Result<()> {
        match self.format {
            Format::Human => writeln!(self.output, "{}", human()),
            Format::Json => writeln!(self.output, "{}", json()),
        }
    }

    /// Something to know about the result.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        self.line(|| format!("note: {text}"), || json!({"type": "note", "text": text}))
    }

    /// Why there is no result, or no whole one.
    pub(super) fn error(&mut self, text: &str) -> io::Result<()> {
        self.line(|| format!("error: {text}"), || json!({"type": "error", "text": text}))
    }
}

/// Others' bytes on one line: as text if they are one.
pub(super) fn printable(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// `index` and `term`.
pub(super) fn id_json(id: LogId) -> Value {
    json!({"index": id.index.0, "term": id.term.0})
}

/// Who votes and who listens, for people.
pub(super) fn membership_text(membership: &Membership) -> String {
    let named = |id: &NodeId| match membership.nodes.get(id) {
        Some(info) if !info.name.is_empty() => {
            format!("{id} ({})", printable(info.name.as_bytes()))
        }
        _ => id.to_string(),
    };
    let list = |what, ids: &std::collections::BTreeSet<NodeId>| {
        let names: Vec<_> = ids.iter().map(named).collect();
        (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")))
    };
    let parts = [
        list("voters", &membership.voters),
        list("outgoing", &membership.outgoing),
        list("learners", &membership.learners),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Who votes and who listens, for programs.
pub(super) fn membership_json(membership: &Membership) -> Value {
    let list = |ids: &std::collections::BTreeSet<NodeId>| {
        let node = |id: &NodeId| {
            let info = membership.nodes.get(id).cloned().unwrap_or_default();
            json!({
                "id": id.to_string(), "name": info.name,
                "raft_address": info.raft_address, "http_address": info.http_address,
            })
        };
        ids.iter().map(node).collect::<Vec<_>>()
    };
    json!({
        "voters": list(&membership.voters),
        "outgoing": list(&membership.outgoing),
        "learners": list(&membership.learners),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_others_stay_on_their_line() {
        assert_eq!(printable("PUT ä b".as_bytes()), "PUT ä b");
        assert_eq!(printable(b"PUT a\nb"), "PUT a\\nb");
        assert_eq!(printable(b"\x01\xff"), "\\x01\\xff");
    }
}
