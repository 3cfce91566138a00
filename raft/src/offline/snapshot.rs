//! `raft snapshot inspect`.

use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::Verdict;
use super::read_only::ReadOnlyDisk;
use super::report::{Report, id_json, membership_json, membership_text};
use crate::session::Outline;
use crate::snapshot::{self, Inspection, SnapshotError};

/// Prints what a file holds, and whether it is whole.
pub(super) fn inspect<W: Write>(file: &Path, report: &mut Report<W>) -> io::Result<Verdict> {
    let fault = match snapshot::inspect(&ReadOnlyDisk, file) {
        Ok(mut found) => {
            describe(&found, report)?;
            found.fault.take()
        }
        Err(error) => Some(error),
    };
    let Some(fault) = fault else {
        report.line(|| "whole", || json!({"type": "verdict", "whole": true}))?;
        return Ok(Verdict::Whole);
    };
    if let SnapshotError::Damaged(damage) = &fault {
        report.line(
            || format!("damaged: {damage}"),
            || json!({"type": "damage", "file": damage.file.display().to_string(), "offset": damage.offset, "what": damage.what}),
        )?;
    } else {
        report.error(&fault.to_string())?;
    }
    let is_damage =
        matches!(fault, SnapshotError::Damaged(_) | SnapshotError::UnknownVersion { .. });
    Ok(if is_damage { Verdict::Damaged } else { Verdict::Unreadable })
}

fn describe<W: Write>(found: &Inspection, report: &mut Report<W>) -> io::Result<()> {
    let Inspection { description, cluster, frames, image_bytes, machine_bytes, .. } = found;
    let meta = &description.meta;
    report.line(
        || {
            let machine = match &found.machine {
                Some((name, last)) => format!("{name:?} up to {last}, {machine_bytes} bytes"),
                None => format!("{machine_bytes} bytes"),
            };
            let sessions = match found.sessions {
                Some(Outline { folded, time_ms, sessions }) => format!(
                    "{sessions}, of entries up to {folded}, log time {time_ms} ms since 1970, {image_bytes} bytes"
                ),
                None => format!("{image_bytes} bytes"),
            };
            format!(
                "snapshot    {}\ncluster     {cluster:032x}\nlast entry  index {}, term {}\nmembership  of index {}: {}\n\
                 sessions    {sessions}\nmachine     {machine}\nfile        {} bytes, {frames} whole frames",
                description.id,
                meta.last.index,
                meta.last.term,
                meta.membership_index,
                membership_text(&meta.membership),
                description.bytes,
            )
        },
        || {
            json!({
                "type": "snapshot",
                "id": description.id.to_string(),
                "cluster": format!("{cluster:032x}"),
                "last": id_json(meta.last),
                "membership_index": meta.membership_index.0,
                "membership": membership_json(&meta.membership),
                "sessions": found.sessions.map(|outline| outline.sessions),
                "sessions_up_to": found.sessions.map(|outline| outline.folded.0),
                "log_time_ms": found.sessions.map(|outline| outline.time_ms),
                "sessions_bytes": image_bytes,
                "machine": found.machine.as_ref().map(|(name, last)| json!({"name": name, "last": id_json(*last)})),
                "machine_bytes": machine_bytes,
                "bytes": description.bytes,
                "frames": frames,
            })
        },
    )
}
