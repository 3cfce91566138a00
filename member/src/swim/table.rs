//! The view: everyone else we know of, and in which order they are probed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use rand::RngExt;
use rand::rngs::ChaCha12Rng;
use rand::seq::SliceRandom;

use super::member::{Incarnation, MemberId, Profile, Standing, State};
use super::message::Update;
use super::settings::{MAX_MEMBERS, Settings};
use super::suspicion::{Suspicion, SuspicionStep};

/// What we know of one other member.
///
/// Invariant: `suspicion` is there exactly while the state is [`State::Suspect`]; `profile_incarnation` is never
/// above the standing's.
#[derive(Clone, Debug)]
pub struct Entry {
    standing: Standing,
    profile: Profile,
    profile_incarnation: Incarnation,
    changed_ms: u64,
    suspicion: Option<Suspicion>,
}

impl Entry {
    /// Believed state and the incarnation it is about.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The member's own words.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Where it gossips.
    pub fn address(&self) -> SocketAddr {
        self.profile.address
    }

    /// Whether nothing is held against it.
    pub fn is_alive(&self) -> bool {
        self.standing.state == State::Alive
    }

    /// Whether it takes part: alive, or suspected of not being so.
    pub fn is_live(&self) -> bool {
        match self.standing.state {
            State::Alive | State::Suspect => true,
            State::Dead | State::Left => false,
        }
    }

    /// All that we know, as news.
    pub fn update(&self, id: MemberId) -> Update {
        let profile = Some((self.profile_incarnation, self.profile.clone()));
        Update { profile, ..self.verdict(id) }
    }

    /// The state alone, as news for those who know the member; not for one that is alive.
    pub fn verdict(&self, id: MemberId) -> Update {
        let accuser = self.suspicion.as_ref().map(Suspicion::first_accuser);
        Update { id, standing: self.standing, accuser, profile: None }
    }

    /// Whether `member` stands behind the current suspicion.
    pub fn is_accused_by(&self, member: MemberId) -> bool {
        self.suspicion.as_ref().is_some_and(|suspicion| suspicion.is_accused_by(member))
    }
}

/// What an update changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// Nothing: it is old, or of a member that it says too little about.
    Nothing,
    /// Nobody may be added: there are [`MAX_MEMBERS`] that are not dead.
    Full,
    /// A running suspicion has one more accuser.
    Confirmed,
    /// Something; `before` is the former state, if the member was known.
    News {
        /// Former state.
        before: Option<State>,
    },
}

/// Everyone else.
///
/// Invariant: `live` counts the members that take part, and `suspects` are those under suspicion; every datagram asks
/// for both.
#[derive(Clone, Debug, Default)]
pub struct Table {
    members: BTreeMap<MemberId, Entry>,
    live: usize,
    suspects: BTreeSet<MemberId>,
    round: Vec<MemberId>,
    next_in_round: usize,
    second_opinions: VecDeque<MemberId>,
}

impl Table {
    /// Looks someone up.
    pub fn get(&self, id: MemberId) -> Option<&Entry> {
        self.members.get(&id)
    }

    /// Everyone, by id.
    pub fn iter(&self) -> impl Iterator<Item = (MemberId, &Entry)> {
        self.members.iter().map(|(id, entry)| (*id, entry))
    }

    /// Everyone once, by id, starting behind `after` and going round.
    pub fn iter_from(&self, after: MemberId) -> impl Iterator<Item = (MemberId, &Entry)> {
        let behind = self.iter().filter(move |(id, _)| *id > after);
        behind.chain(self.iter().filter(move |(id, _)| *id <= after))
    }

    /// How many take part, ourselves included.
    pub fn live_count(&self) -> usize {
        1 + self.live
    }

    /// Whether nobody else takes part.
    pub fn is_lonely(&self) -> bool {
        self.live == 0
    }

    /// At most `count` random others that `wanted` accepts.
    pub fn sample(
        &self,
        rng: &mut ChaCha12Rng,
        count: usize,
        wanted: impl Fn(MemberId, &Entry) -> bool,
    ) -> Vec<(MemberId, SocketAddr)> {
        let mut candidates: Vec<_> = self
            .iter()
            .filter(|(id, entry)| wanted(*id, entry))
            .map(|(id, entry)| (id, entry.address()))
            .collect();
        let (chosen, _) = candidates.partial_shuffle(rng, count);
        chosen.to_vec()
    }

    /// Takes news in. State and profile are two registers, each ordered by incarnation: an accusation may be newer
    /// than the words it goes with, and those may still arrive later.
    pub fn merge(
        &mut self,
        update: &Update,
        now_ms: u64,
        settings: &Settings,
        rng: &mut ChaCha12Rng,
    ) -> Merged {
        let members = self.live_count();
        let Some(entry) = self.members.get_mut(&update.id) else {
            return self.add(update, now_ms, settings, rng);
        };
        let before = entry.standing.state;
        let new_words = entry.take_profile(update);
        let merged = if entry.standing.is_replaced_by(update.standing) {
            entry.stand(update, now_ms, members, settings);
            Merged::News { before: Some(before) }
        } else if entry.confirm(update) {
            Merged::Confirmed
        } else if new_words {
            Merged::News { before: Some(before) }
        } else {
            Merged::Nothing
        };
        let after = entry.standing.state;
        self.count(update.id, Some(before), Some(after));
        if !is_live(before) && is_live(after) {
            self.insert_into_round(update.id, rng);
        }
        merged
    }

    /// Keeps the invariant when a member comes, changes or is forgotten.
    fn count(&mut self, id: MemberId, before: Option<State>, after: Option<State>) {
        self.live -= usize::from(before.is_some_and(is_live));
        self.live += usize::from(after.is_some_and(is_live));
        if after == Some(State::Suspect) {
            self.suspects.insert(id);
        } else {
            self.suspects.remove(&id);
        }
    }

    fn forget(&mut self, id: MemberId) -> bool {
        let forgotten = self.members.remove(&id);
        if let Some(entry) = &forgotten {
            self.count(id, Some(entry.standing.state), None);
        }
        forgotten.is_some()
    }

    fn add(
        &mut self,
        update: &Update,
        now_ms: u64,
        settings: &Settings,
        rng: &mut ChaCha12Rng,
    ) -> Merged {
        let Some((profile_incarnation, profile)) = update.profile.clone() else {
            return Merged::Nothing;
        };
        if self.members.len() >= MAX_MEMBERS && !self.forget_the_longest_gone() {
            return Merged::Full;
        }
        let members = self.live_count() + 1;
        let mut entry = Entry {
            standing: update.standing,
            profile,
            profile_incarnation,
            changed_ms: now_ms,
            suspicion: None,
        };
        entry.stand(update, now_ms, members, settings);
        if entry.is_live() {
            self.insert_into_round(update.id, rng);
        }
        self.count(update.id, None, Some(entry.standing.state));
        self.members.insert(update.id, entry);
        Merged::News { before: None }
    }

    /// Makes room for one; tells whether it could.
    fn forget_the_longest_gone(&mut self) -> bool {
        let gone = self.iter().filter(|(_, entry)| !entry.is_live());
        let longest = gone.min_by_key(|(_, entry)| entry.changed_ms).map(|(id, _)| id);
        longest.is_some_and(|id| self.forget(id))
    }

    /// Forgets those for whom `keep` is false, and returns them.
    pub fn retain(&mut self, keep: impl Fn(&Entry) -> bool) -> Vec<MemberId> {
        let gone: Vec<_> =
            self.iter().filter(|(_, entry)| !keep(entry)).map(|(id, _)| id).collect();
        for id in &gone {
            self.forget(*id);
        }
        gone
    }

    /// Forgets those that were dead or left already at `before_ms`, and returns them.
    pub fn forget_gone_before(&mut self, before_ms: u64) -> Vec<MemberId> {
        self.retain(|entry| entry.is_live() || entry.changed_ms >= before_ms)
    }

    /// Whom a suspicion makes us call or bury now. `patience_ms` is how long a suspect may take to answer our call.
    pub fn due_suspects(
        &mut self,
        now_ms: u64,
        patience_ms: u64,
    ) -> Vec<(MemberId, SuspicionStep)> {
        let mut due = Vec::new();
        for id in &self.suspects {
            let suspicion = self.members.get_mut(id).and_then(|entry| entry.suspicion.as_mut());
            let step = suspicion.map_or(SuspicionStep::Wait, |it| it.step(now_ms, patience_ms));
            if step != SuspicionStep::Wait {
                due.push((*id, step));
            }
        }
        due
    }

    /// When [`Table::due_suspects`] has something to say.
    pub fn next_suspicion_ms(&self, patience_ms: u64) -> Option<u64> {
        let suspicion = |id| self.members.get(id).and_then(|entry| entry.suspicion.as_ref());
        let suspicions = self.suspects.iter().filter_map(suspicion);
        suspicions.map(|suspicion| suspicion.wakeup_ms(patience_ms)).min()
    }

    /// We were away for so long: nobody could refute.
    pub fn put_off_suspicions(&mut self, away_ms: u64) {
        for suspicion in self.members.values_mut().filter_map(|entry| entry.suspicion.as_mut()) {
            suspicion.put_off(away_ms);
        }
    }

    /// Probes this suspect next: somebody else accuses it, and the sooner we confirm or it refutes, the better.
    pub fn want_second_opinion(&mut self, id: MemberId) {
        if self.second_opinions.len() < MAX_MEMBERS {
            self.second_opinions.push_back(id);
        }
    }

    /// Whom to probe now: suspects that await our opinion, else the next of a round in random order, in which
    /// everyone has one turn (SWIM §4.3).
    pub fn next_probe(&mut self, me: MemberId, rng: &mut ChaCha12Rng) -> Option<MemberId> {
        while let Some(id) = self.second_opinions.pop_front() {
            let awaited =
                |entry: &Entry| entry.standing.state == State::Suspect && !entry.is_accused_by(me);
            if self.get(id).is_some_and(awaited) {
                return Some(id);
            }
        }
        self.next_of_round().or_else(|| {
            self.round =
                self.iter().filter(|(_, entry)| entry.is_live()).map(|(id, _)| id).collect();
            self.round.shuffle(rng);
            self.next_in_round = 0;
            self.next_of_round()
        })
    }

    fn next_of_round(&mut self) -> Option<MemberId> {
        let rest = self.round.get(self.next_in_round..).unwrap_or_default();
        let skipped =
            rest.iter().position(|id| self.members.get(id).is_some_and(Entry::is_live))?;
        self.next_in_round += skipped + 1;
        self.round.get(self.next_in_round - 1).copied()
    }

    /// A newcomer gets a random turn in the current round.
    fn insert_into_round(&mut self, id: MemberId, rng: &mut ChaCha12Rng) {
        self.round.drain(..self.next_in_round);
        self.next_in_round = 0;
        self.round.retain(|known| *known != id);
        let place = rng.random_range(0..=self.round.len());
        self.round.insert(place, id);
    }

    /// Equal for equal views, `own` included, whoever computes it.
    pub fn digest(&self, id: MemberId, own: Standing) -> u64 {
        let fingerprints = self
            .iter()
            .map(|(id, entry)| fingerprint(id, entry.standing, entry.profile_incarnation));
        fingerprints.fold(fingerprint(id, own, own.incarnation), u64::wrapping_add)
    }
}

fn is_live(state: State) -> bool {
    matches!(state, State::Alive | State::Suspect)
}

/// Mixes one member into 64 bits (the finalizer of `SplitMix64`).
fn fingerprint(id: MemberId, standing: Standing, profile: Incarnation) -> u64 {
    let mix = |value: u64| {
        let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    };
    let state = match standing.state {
        State::Alive => 1,
        State::Suspect => 2,
        State::Dead => 3,
        State::Left => 4,
    };
    [standing.incarnation.0, profile.0, state]
        .into_iter()
        .fold(mix(id.0), |hash, part| mix(hash.wrapping_add(part)))
}

impl Entry {
    fn take_profile(&mut self, update: &Update) -> bool {
        let newer = update.profile.as_ref().filter(|(of, _)| *of > self.profile_incarnation);
        if let Some((of, profile)) = newer {
            self.profile_incarnation = *of;
            self.profile.clone_from(profile);
        }
        newer.is_some()
    }

    fn stand(&mut self, update: &Update, now_ms: u64, members: usize, settings: &Settings) {
        self.standing = update.standing;
        self.changed_ms = now_ms;
        self.suspicion = update
            .accuser
            .filter(|_| update.standing.state == State::Suspect)
            .map(|accuser| Suspicion::start(now_ms, accuser, members, settings));
    }

    fn confirm(&mut self, update: &Update) -> bool {
        match (&mut self.suspicion, update.accuser) {
            (Some(suspicion), Some(accuser)) if self.standing == update.standing => {
                suspicion.confirm(accuser)
            }
            (Some(_) | None, Some(_) | None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::super::member::Tags;
    use super::*;

    struct World {
        table: Table,
        rng: ChaCha12Rng,
        settings: Settings,
        now_ms: u64,
    }

    impl World {
        fn new() -> Self {
            let rng = ChaCha12Rng::seed_from_u64(1);
            Self { table: Table::default(), rng, settings: Settings::default(), now_ms: 0 }
        }

        fn with_alive(ids: std::ops::Range<u64>) -> Self {
            let mut world = Self::new();
            for id in ids {
                world.merge(&alive(id, 1));
            }
            world
        }

        fn merge(&mut self, update: &Update) -> Merged {
            self.table.merge(update, self.now_ms, &self.settings, &mut self.rng)
        }

        fn probes(&mut self, count: usize) -> Vec<u64> {
            let next = || self.table.next_probe(MemberId(1_000_000), &mut self.rng).map(|id| id.0);
            std::iter::repeat_with(next).take(count).flatten().collect()
        }
    }

    fn news(id: u64, state: State, incarnation: u64) -> Update {
        let standing = Standing::new(state, Incarnation(incarnation));
        let accuser = (state == State::Suspect).then_some(MemberId(900));
        Update { id: MemberId(id), standing, accuser, profile: None }
    }

    fn alive(id: u64, incarnation: u64) -> Update {
        let address = SocketAddr::from(([10, 0, 0, 1], 6_000));
        let profile = Profile { name: format!("m{incarnation}"), address, tags: Tags::default() };
        let profile = Some((Incarnation(incarnation), profile));
        Update { profile, ..news(id, State::Alive, incarnation) }
    }

    const CHANGED: fn(State) -> Merged = |before| Merged::News { before: Some(before) };

    #[test]
    fn news_of_a_stranger_needs_its_own_words() {
        let mut world = World::new();
        assert_eq!(world.merge(&news(1, State::Dead, 4)), Merged::Nothing);
        assert_eq!(world.merge(&alive(1, 3)), Merged::News { before: None });
        assert_eq!(world.merge(&alive(1, 3)), Merged::Nothing);
    }

    #[test]
    fn words_that_arrive_behind_the_accusation_are_still_taken() {
        let mut world = World::with_alive(1..2);
        assert_eq!(world.merge(&news(1, State::Suspect, 2)), CHANGED(State::Alive));
        assert_eq!(world.merge(&alive(1, 2)), CHANGED(State::Suspect));
        let entry = world.table.get(MemberId(1)).unwrap();
        assert_eq!((entry.standing.state, entry.profile.name.as_str()), (State::Suspect, "m2"));
    }

    #[test]
    fn stale_news_never_resurrects() {
        let mut world = World::with_alive(1..2);
        assert_eq!(world.merge(&news(1, State::Dead, 5)), CHANGED(State::Alive));
        for stale in [alive(1, 4), alive(1, 5), news(1, State::Suspect, 5)] {
            world.merge(&stale);
            assert_eq!(world.table.get(MemberId(1)).unwrap().standing.state, State::Dead);
        }
        assert_eq!(world.merge(&alive(1, 6)), CHANGED(State::Dead));
    }

    #[test]
    fn suspicion_collects_accusers_and_expires() {
        let mut world = World::with_alive(1..5);
        world.merge(&news(1, State::Suspect, 1));
        let first_call_ms = world.table.next_suspicion_ms(500).unwrap();
        let second = Update { accuser: Some(MemberId(3)), ..news(1, State::Suspect, 1) };
        assert_eq!(world.merge(&second), Merged::Confirmed);
        let call_ms = world.table.next_suspicion_ms(500).unwrap();
        assert!(call_ms < first_call_ms);
        assert_eq!(world.table.due_suspects(call_ms - 1, 500), []);
        for (after_ms, step) in
            [(0, SuspicionStep::Call), (250, SuspicionStep::Call), (500, SuspicionStep::Bury)]
        {
            let due = world.table.due_suspects(call_ms + after_ms, 500);
            assert_eq!(due, [(MemberId(1), step)], "after {after_ms} ms");
        }
        world.merge(&alive(1, 2));
        assert_eq!(world.table.next_suspicion_ms(500), None);
    }

    #[test]
    fn everyone_has_one_turn_in_each_round_and_the_dead_have_none() {
        let mut world = World::with_alive(1..9);
        world.merge(&news(3, State::Dead, 1));
        for _ in 0..3 {
            let mut round = world.probes(7);
            round.sort_unstable();
            assert_eq!(round, [1, 2, 4, 5, 6, 7, 8]);
        }
    }

    #[test]
    fn newcomers_and_returners_join_the_current_round_once() {
        let mut world = World::with_alive(1..5);
        let mut seen = world.probes(2);
        world.merge(&alive(9, 1));
        world.merge(&news(9, State::Dead, 1));
        world.merge(&alive(9, 2));
        seen.extend(world.probes(3));
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3, 4, 9]);
    }

    #[test]
    fn a_suspect_of_others_is_probed_next_but_not_one_that_refuted() {
        let mut world = World::with_alive(1..9);
        world.merge(&news(5, State::Suspect, 1));
        world.merge(&news(6, State::Suspect, 1));
        world.table.want_second_opinion(MemberId(5));
        world.table.want_second_opinion(MemberId(6));
        world.merge(&alive(5, 2));
        assert_eq!(world.probes(1), [6]);
    }

    #[test]
    fn nobody_is_probed_when_nobody_is_there() {
        assert!(World::new().probes(3).is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_the_longest_gone_give_way() {
        let mut world = World::with_alive(1..MAX_MEMBERS as u64 + 1);
        assert_eq!(world.merge(&alive(5_000, 1)), Merged::Full);
        world.now_ms = 10;
        world.merge(&news(7, State::Dead, 1));
        world.now_ms = 20;
        world.merge(&news(8, State::Left, 1));
        assert_eq!(world.merge(&alive(5_000, 1)), Merged::News { before: None });
        assert!(world.table.get(MemberId(7)).is_none() && world.table.get(MemberId(8)).is_some());
        assert_eq!(world.table.forget_gone_before(21), [MemberId(8)]);
    }

    #[test]
    fn digest_is_equal_for_equal_views_of_different_members() {
        let mut of_one = World::with_alive(2..4);
        let mut of_two = World::with_alive(3..4);
        of_two.merge(&alive(1, 7));
        let digest = |world: &World, id, incarnation| {
            let own = Standing::new(State::Alive, Incarnation(incarnation));
            world.table.digest(MemberId(id), own)
        };
        assert_eq!(digest(&of_one, 1, 7), digest(&of_two, 2, 1));
        of_one.merge(&news(3, State::Suspect, 1));
        assert_ne!(digest(&of_one, 1, 7), digest(&of_two, 2, 1));
    }

    #[test]
    fn going_round_from_anywhere_meets_everyone_once() {
        let world = World::with_alive(1..5);
        let from = |after| -> Vec<u64> {
            world.table.iter_from(MemberId(after)).map(|(id, _)| id.0).collect()
        };
        assert_eq!(from(0), [1, 2, 3, 4]);
        assert_eq!(from(2), [3, 4, 1, 2]);
        assert_eq!(from(9), [1, 2, 3, 4]);
    }
}
