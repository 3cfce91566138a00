//! What must hold in every state, and what has to be seen in some.

use std::collections::BTreeSet;

use raft::consensus::{NodeId, RoleName};
use stateright::Property;

use crate::facts::{Facts, Slot, Vote, vote};
use crate::replicas::{Event, Transition};
use crate::world::{Action, Start, State, World};

/// What a state that is wrong violates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    SecondLeader,
    ChangedVote,
    ContradictingLogs,
    IncompleteLeader,
    ChangedCommit,
    CommitWithoutMajority,
    StaleRead,
    Panic,
}

/// What is remembered of the course that led to a state, because nobody in it need know it any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// In which term was elected who, by place.
    leaders: Vec<(u64, usize)>,
    /// Every vote of which a message was witness, sorted.
    votes: Vec<Vote>,
    /// Everything that anybody ever held for committed, and the term of the leader that was the first to.
    committed: Vec<(Slot, u64)>,
    /// For each read, how much was committed when it was asked.
    reads: Vec<usize>,
    answered_reads: u8,
}

/// All of them, as far as these bounds let them be seen.
pub fn properties(world: &World) -> Vec<Property<World>> {
    let mut properties = vec![
        Property::always("at most one leader in a term", |_, state: &State| {
            state.broken != Some(Broken::SecondLeader)
        }),
        Property::always("a vote never changes", |_, state: &State| {
            state.broken != Some(Broken::ChangedVote)
        }),
        Property::always("logs that hold the same entry agree up to it", |_, state: &State| {
            state.broken != Some(Broken::ContradictingLogs)
        }),
        Property::always(
            "a leader holds everything that was committed in earlier terms",
            |_, state: &State| state.broken != Some(Broken::IncompleteLeader),
        ),
        Property::always("what is committed never changes", |_, state: &State| {
            state.broken != Some(Broken::ChangedCommit)
        }),
        Property::always("what a leader commits is durable on a majority", |_, state: &State| {
            state.broken != Some(Broken::CommitWithoutMajority)
        }),
        Property::always("a read sees what was committed before it", |_, state: &State| {
            state.broken != Some(Broken::StaleRead)
        }),
        Property::always("no assertion of the core fails", |_, state: &State| {
            state.broken != Some(Broken::Panic)
        }),
        Property::sometimes("somebody is elected", |_, state: &State| {
            !state.history.leaders.is_empty()
        }),
    ];
    let bounds = &world.bounds;
    let mut sometimes = |wanted: bool, name, seen: fn(&World, &State) -> bool| {
        if wanted {
            properties.push(Property::sometimes(name, seen));
        }
    };
    sometimes(bounds.terms > 2, "two terms have leaders", |_, state: &State| {
        state.history.leaders.len() > 1
    });
    let somebody_lags = bounds.proposals > 0 || world.start == Start::Cold;
    sometimes(bounds.terms > 2 && somebody_lags, "logs differ at one place", logs_differ);
    sometimes(
        bounds.proposals > 0,
        "all commands are committed",
        |world: &World, state: &State| {
            state.history.committed.len() >= 2 + usize::from(world.bounds.proposals)
        },
    );
    sometimes(bounds.reads > 0, "a read is answered", |_, state: &State| {
        state.history.answered_reads > 0
    });
    sometimes(
        bounds.changes > 0,
        "the configuration has changed",
        |world: &World, state: &State| {
            let target = &world.replicas.target;
            state.replicas.iter().all(|&replica| world.facts(replica).membership == *target)
        },
    );
    properties
}

fn logs_differ(world: &World, state: &State) -> bool {
    let logs: Vec<Vec<Slot>> =
        state.replicas.iter().map(|&replica| world.facts(replica).log).collect();
    logs.iter().any(|one| logs.iter().any(|other| one.iter().zip(other).any(|(a, b)| a != b)))
}

impl State {
    /// Looks at what `action` has done, and remembers what will be asked later.
    pub fn judge(&mut self, world: &World, before: &Self, action: Action, transition: &Transition) {
        let was = world.replicas.facts(before.replicas[action.at]);
        let is = world.replicas.facts(self.replicas[action.at]);
        let (was, is) = (&was.1, &is.1);
        let mut broken = transition.panic.as_ref().map(|_| Broken::Panic);
        broken = broken.or(self.judge_leader(action.at, is));
        broken = broken.or(self.judge_commit(is));
        broken = broken.or(self.judge_completeness(world));
        broken = broken.or(self.judge_majority(world, was, is));
        broken = broken.or(self.judge_logs(world, is));
        broken = broken.or(self.judge_votes(world, transition));
        self.broken = broken.or(self.judge_reads(action.event, transition));
    }

    fn judge_leader(&mut self, at: usize, is: &Facts) -> Option<Broken> {
        if is.role != RoleName::Leader {
            return None;
        }
        match self.history.leaders.iter().find(|(term, _)| *term == is.term) {
            Some((_, known)) if *known == at => None,
            Some(_) => Some(Broken::SecondLeader),
            None => {
                self.history.leaders.push((is.term, at));
                self.history.leaders.sort_unstable();
                None
            }
        }
    }

    /// One that was elected late, in a term that is over, need not know what a later leader has committed.
    fn judge_completeness(&self, world: &World) -> Option<Broken> {
        let lacks = |leader: &Facts| {
            let known =
                |(place, (slot, _)): (usize, &(Slot, u64))| leader.log.get(place) == Some(slot);
            let earlier = |(_, (_, term)): &(usize, &(Slot, u64))| *term < leader.term;
            !self.history.committed.iter().enumerate().filter(earlier).all(known)
        };
        let incomplete = self.replicas.iter().any(|&replica| {
            let known = world.replicas.facts(replica);
            known.1.role == RoleName::Leader && lacks(&known.1)
        });
        incomplete.then_some(Broken::IncompleteLeader)
    }

    fn judge_commit(&mut self, is: &Facts) -> Option<Broken> {
        let committed = &mut self.history.committed;
        let mine = &is.log[..is.commit_index.min(is.log.len())];
        let agrees = mine.iter().zip(committed.iter()).all(|(mine, (known, _))| mine == known);
        if !agrees {
            return Some(Broken::ChangedCommit);
        }
        let news: Vec<_> = mine.iter().skip(committed.len()).map(|&slot| (slot, is.term)).collect();
        committed.extend(news);
        None
    }

    fn judge_majority(&self, world: &World, was: &Facts, is: &Facts) -> Option<Broken> {
        let advanced = is.role == RoleName::Leader && is.commit_index > was.commit_index;
        let slot = is.log.get(is.commit_index.checked_sub(1)?).filter(|_| advanced)?;
        let holds = |id: &&NodeId| {
            let place = usize::try_from(id.0 - 1).expect("few replicas");
            let facts = world.facts(self.replicas[place]);
            facts.durable >= is.commit_index && facts.log[is.commit_index - 1] == *slot
        };
        let majority = |voters: &BTreeSet<NodeId>| {
            voters.is_empty() || 2 * voters.iter().filter(holds).count() > voters.len()
        };
        let held = majority(&is.membership.voters) && majority(&is.membership.outgoing);
        (!held).then_some(Broken::CommitWithoutMajority)
    }

    /// Two logs that hold the same term at one place are equal up to there.
    fn judge_logs(&self, world: &World, is: &Facts) -> Option<Broken> {
        let contradicts = |other: &Facts| {
            let pairs: Vec<_> = is.log.iter().zip(&other.log).collect();
            let meet = pairs.iter().rposition(|(mine, theirs)| mine.term == theirs.term);
            meet.is_some_and(|meet| pairs[..=meet].iter().any(|(mine, theirs)| mine != theirs))
        };
        let contradicted =
            self.replicas.iter().any(|&other| contradicts(&world.replicas.facts(other).1));
        contradicted.then_some(Broken::ContradictingLogs)
    }

    fn judge_votes(&mut self, world: &World, transition: &Transition) -> Option<Broken> {
        let mut broken = None;
        for &message in &transition.sent {
            let Some(given) = vote(&world.replicas.message(message)) else { continue };
            let Err(place) = self.history.votes.binary_search(&given) else { continue };
            let same = |known: &&Vote| (known.voter, known.term) == (given.voter, given.term);
            if self.history.votes.iter().any(|known| same(&known)) {
                broken = Some(Broken::ChangedVote);
            }
            self.history.votes.insert(place, given);
        }
        broken
    }

    fn judge_reads(&mut self, event: Event, transition: &Transition) -> Option<Broken> {
        if matches!(event, Event::Read(_)) {
            self.history.reads.push(self.history.committed.len());
        }
        let mut stale = false;
        for &(read, index) in &transition.reads {
            self.history.answered_reads += 1;
            stale |= index < self.history.reads[usize::from(read)];
        }
        stale.then_some(Broken::StaleRead)
    }
}
