//! Counts false deaths, by one definition for every protocol.
//!
//! A **false death** is a life of a member (see [`Gossip::life`](crate::gossip::Gossip::life)) that anyone declared
//! dead while the member was up and connected: its process ran, had not said good-bye, and could exchange datagrams
//! with whoever declared it. It counts once, however many hear of it, and the first declaration decides: what others
//! repeat later of a death that was declared rightly, in a pause say, is no new error. A member that just came back from a
//! pause, or that a partition just gave back, has [`GRACE_MS`] until deaths of it count, because the declaration may
//! have been under way. Whoever errs, errs: a process that was itself away, and then declares the others dead,
//! is counted like any other.

use std::collections::BTreeMap;

use crate::gossip::News;

/// How long after a pause or partition of its subject a death is not counted, in ms.
pub(crate) const GRACE_MS: u64 = 2_000;

/// What was so when someone declared a life over.
pub(crate) struct Circumstances {
    pub(crate) now_ms: u64,
    /// The life is one of a process that is gone.
    pub(crate) earlier_process: bool,
    /// The subject's process runs and takes part.
    pub(crate) runs: bool,
    /// Since when it runs without a pause.
    pub(crate) runs_since_ms: u64,
    /// Subject and declarer are in one part of the network.
    pub(crate) reached: bool,
    /// Since when they are, at least.
    pub(crate) reached_since_ms: u64,
}

impl Circumstances {
    fn is_false(&self) -> bool {
        let since_ms = self.runs_since_ms.max(self.reached_since_ms);
        self.runs && self.reached && !self.earlier_process && self.now_ms >= since_ms + GRACE_MS
    }
}

/// Lives that were declared over.
#[derive(Default)]
pub(crate) struct Tally {
    /// Whether falsely.
    lives: BTreeMap<(usize, u64), bool>,
    /// False deaths.
    pub(crate) false_deaths: u64,
    /// How many beliefs they led to: members times false deaths if everyone believes each.
    pub(crate) false_beliefs: u64,
    /// Deaths of members that were away, crashed or gone.
    pub(crate) right_deaths: u64,
}

impl Tally {
    pub(crate) fn declared_dead(&mut self, news: News, circumstances: &Circumstances) {
        let known = self.lives.entry((news.subject, news.life));
        let falsely = *known.or_insert_with(|| {
            let falsely = circumstances.is_false();
            self.false_deaths += u64::from(falsely);
            self.right_deaths += u64::from(!falsely);
            falsely
        });
        self.false_beliefs += u64::from(falsely);
    }
}
