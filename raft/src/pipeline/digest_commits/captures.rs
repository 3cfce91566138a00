//! The wish for a session table that a snapshot needs. A machine may be ahead of what has passed here since our start:
//! then the wish waits, for a while.

use super::events::{Capture, CaptureRefused};
use super::history::History;
use crate::consensus::Index;

/// Ticks that a wish waits.
const PATIENCE_TICKS: u64 = 3_000;

/// The wish that waits, if there is one.
#[derive(Debug, Default)]
pub(super) struct Captures {
    waiting: Option<(Capture, u64)>,
}

impl Captures {
    /// A newer wish is for a newer snapshot: the older one is of no use any more.
    pub(super) fn wait(&mut self, capture: Capture, now: u64) {
        if let Some((older, _)) = self.waiting.replace((capture, now + PATIENCE_TICKS)) {
            drop(older.reply.send(Err(CaptureRefused::Superseded)));
        }
    }

    /// Answers, once the table and the results in it are far enough.
    pub(super) fn settle(&mut self, history: &History, results_up_to: Index) {
        let up_to = history.folded().min(results_up_to);
        if let Some((capture, _)) = self.waiting.take_if(|(capture, _)| capture.at_least <= up_to) {
            drop(capture.reply.send(Ok(history.image())));
        }
    }

    pub(super) fn expire(&mut self, now: u64, folded: Index) {
        if let Some((capture, _)) = self.waiting.take_if(|(_, expires)| *expires <= now) {
            let late = CaptureRefused::Late { folded, at_least: capture.at_least };
            drop(capture.reply.send(Err(late)));
        }
    }
}
