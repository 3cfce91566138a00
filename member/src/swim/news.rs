//! What news does to our beliefs, and what others believe of us.

use super::member::{Incarnation, MemberId, Standing, State};
use super::message::Update;
use super::suspicion::SuspicionStep;
use super::table::Merged;
use super::{Event, Swim};

impl Swim {
    /// Takes news in and passes on what is new.
    pub(super) fn learn(&mut self, now_ms: u64, update: Update) {
        if update.id == self.id {
            self.hear_of_ourselves(&update);
            return;
        }
        let stranger = |(_, profile): &(Incarnation, super::Profile)| {
            !self.codec.is_compatible(profile.tags.cluster)
        };
        if update.profile.as_ref().is_some_and(stranger) {
            return;
        }
        match self.table.merge(&update, now_ms, &self.settings, &mut self.rng) {
            Merged::Nothing => {}
            Merged::Full => self.output.events.push(Event::TableFull { id: update.id }),
            Merged::Confirmed => self.news.push(&update),
            Merged::News { before } => self.pass_on(now_ms, update, before),
        }
    }

    fn pass_on(&mut self, now_ms: u64, update: Update, before: Option<State>) {
        self.view_version += 1;
        let accused_by_others = update.accuser.is_some_and(|accuser| accuser != self.id);
        if accused_by_others {
            self.table.want_second_opinion(update.id);
        }
        let Some(entry) = self.table.get(update.id) else { return };
        let after = entry.standing();
        if before != Some(after.state) {
            self.output.events.push(Event::StateChanged {
                id: update.id,
                name: entry.profile().name.clone(),
                address: entry.address(),
                before,
                after: after.state,
                incarnation: after.incarnation,
            });
        }
        // Belated words must not displace the news of the state that they arrived behind.
        let spread = if update.profile.is_some() { entry.update(update.id) } else { update };
        self.news.push(&spread);
        if self.table.is_lonely() {
            self.timers.try_again_soon(now_ms, &self.settings);
        }
    }

    /// Our probe of `id` failed: suspects it, or confirms that it is suspect.
    pub(super) fn accuse(&mut self, now_ms: u64, id: MemberId) {
        let Some(entry) = self.table.get(id).filter(|entry| entry.is_live()) else { return };
        let standing = Standing::new(State::Suspect, entry.standing().incarnation);
        if standing.incarnation.may_accuse() {
            self.learn(now_ms, Update { id, standing, accuser: Some(self.id), profile: None });
        }
    }

    /// Calls suspects whose time is nearly over, and buries those whose time is.
    pub(super) fn run_suspicions(&mut self, now_ms: u64) {
        for (id, step) in self.table.due_suspects(now_ms, self.patience_ms()) {
            match step {
                SuspicionStep::Wait => {}
                SuspicionStep::Call => {
                    let seq = self.next_seq();
                    self.ping(id, seq);
                }
                SuspicionStep::Bury => self.bury(now_ms, id),
            }
        }
    }

    /// How long a suspect may take to answer our call.
    pub(super) fn patience_ms(&self) -> u64 {
        self.health.stretch(self.settings.probe_interval_ms)
    }

    fn bury(&mut self, now_ms: u64, id: MemberId) {
        if let Some(entry) = self.table.get(id) {
            let standing = Standing::new(State::Dead, entry.standing().incarnation);
            self.learn(now_ms, Update { id, standing, accuser: None, profile: None });
        }
    }

    /// What someone says of us. Only we decide what is true of us, but to be believed we must outbid it.
    fn hear_of_ourselves(&mut self, update: &Update) {
        if self.is_our_own_word(update) || !self.contradicts(update) {
            return;
        }
        let elsewhere = update.profile.as_ref().map(|(_, profile)| profile.address);
        let elsewhere = elsewhere.filter(|address| *address != self.profile.address);
        if let Some(address) = elsewhere {
            self.output.events.push(Event::IdConflict { address });
        }
        let claim = update.standing.state;
        if matches!(claim, State::Suspect | State::Dead) {
            self.health.worsen(1);
        }
        self.outbid(update.standing);
    }

    fn is_our_own_word(&self, update: &Update) -> bool {
        let same_words = update.profile.as_ref().is_none_or(|(_, words)| *words == self.profile);
        update.standing == self.own && same_words
    }

    fn contradicts(&self, update: &Update) -> bool {
        update.standing.incarnation > self.own.incarnation
            || update.standing == self.own
            || self.own.is_replaced_by(update.standing)
    }

    fn outbid(&mut self, claim: Standing) {
        match self.own.state {
            State::Left => {
                self.own.incarnation = claim.incarnation.max(self.own.incarnation);
                self.spread_own_news();
            }
            State::Alive | State::Suspect | State::Dead => {
                self.renew(claim.incarnation);
                let incarnation = self.own.incarnation;
                if claim.state != State::Alive {
                    self.output.events.push(Event::Refuted { claim: claim.state, incarnation });
                }
            }
        }
    }

    /// We are alive, with an incarnation above `heard`.
    pub(super) fn renew(&mut self, heard: Incarnation) {
        self.own = Standing::new(State::Alive, heard.max(self.own.incarnation).next());
        self.spread_own_news();
    }

    pub(super) fn spread_own_news(&mut self) {
        self.view_version += 1;
        let update = self.own_update();
        self.news.push(&update);
    }

    pub(super) fn stop_spreading(&mut self, forgotten: &[MemberId]) {
        for id in forgotten {
            self.news.forget(*id);
            self.view_version += 1;
        }
    }
}
