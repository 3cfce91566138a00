//! The small world whose every course is followed: a few replicas, and the messages between them.
//!
//! A message that was sent may arrive at any time later, or never: delay, reordering and loss have no bound. That it arrives more
//! than once has one. A crash and the restart after it are one event, because a process that is down is one to which nothing is
//! delivered.

use raft::consensus::{NodeId, RoleName};
use stateright::{Model, Property};

use crate::bounds::Bounds;
use crate::facts::Facts;
use crate::properties::{Broken, History, properties};
use crate::replicas::{Disk, Event, MessageNo, ReplicaNo, Replicas, Transition, receiver};
use crate::support::{membership, print};

/// Where a course begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Everybody has the first configuration on disk, and nobody leads.
    Cold,
    /// The first replica leads, everything so far is committed and durable, and no message is under way.
    Led,
}

/// A world with its bounds.
pub struct World {
    pub replicas: Replicas,
    pub bounds: Bounds,
    pub start: Start,
}

/// Replicas 1, 2 and 3 vote in the beginning; 4 is there only for the change that puts it in the place of 3.
const VOTERS: [u64; 3] = [1, 2, 3];
const VOTERS_AFTER_A_CHANGE: [u64; 3] = [1, 2, 4];
const JOINER: u64 = 4;

/// What happened so far, of what is bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    proposals: u8,
    reads: u8,
    crashes: u8,
    copies: u8,
    ticks: u8,
    changes: u8,
    campaigns: u8,
}

/// One state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub replicas: Vec<ReplicaNo>,
    /// Under way, ascending; a message that was sent twice is there twice.
    pub network: Vec<MessageNo>,
    pub spent: Spent,
    pub history: History,
    pub broken: Option<Broken>,
}

/// Something happens to the replica at this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    pub at: usize,
    pub event: Event,
    /// The message that arrives will arrive again.
    pub copied: bool,
}

impl Action {
    fn new(at: usize, event: Event) -> Self {
        Self { at, event, copied: false }
    }
}

impl World {
    pub fn new(start: Start, bounds: Bounds, disk: Disk) -> Self {
        let replicas = Replicas::new(disk, membership(&VOTERS_AFTER_A_CHANGE, &[]));
        Self { replicas, bounds, start }
    }

    pub fn facts(&self, replica: ReplicaNo) -> Facts {
        self.replicas.facts(replica).1.clone()
    }

    fn cold(&self) -> State {
        let voters =
            VOTERS.map(|id| self.replicas.fresh(NodeId(id), Some(membership(&VOTERS, &[]))));
        let joiner = (self.bounds.changes > 0).then(|| self.replicas.fresh(NodeId(JOINER), None));
        State {
            replicas: voters.into_iter().chain(joiner).collect(),
            network: Vec::new(),
            spent: Spent::default(),
            history: History::default(),
            broken: None,
        }
    }

    /// The first replica campaigns, and everything comes about that can come about then.
    fn led(&self) -> State {
        let mut state = self.cold();
        state = self.follow(&state, Action::new(0, Event::Campaign)).expect("it campaigns");
        let mut told = false;
        loop {
            let mut syncs = (0..state.replicas.len()).map(|at| Action::new(at, Event::Sync));
            if let Some(synced) = syncs.find_map(|action| self.follow(&state, action)) {
                state = synced;
            } else if let Some(message) = state.network.pop() {
                let action = Action::new(receiver(message), Event::Deliver(message));
                state = self.follow(&state, action).unwrap_or(state);
            } else if !told {
                told = true;
                state = self.follow(&state, Action::new(0, Event::Tick)).expect("it leads");
            } else {
                break;
            }
        }
        State { network: Vec::new(), spent: Spent::default(), ..state }
    }

    /// What comes after `action`; none when nothing does.
    fn follow(&self, state: &State, action: Action) -> Option<State> {
        let replica = state.replicas[action.at];
        let transition = self.replicas.transition(replica, action.event)?;
        // A message without effect may as well be still under way.
        if transition.is_idle(replica) {
            return None;
        }
        let mut next = state.clone();
        next.replicas[action.at] = transition.to;
        if let (Event::Deliver(message), false) = (action.event, action.copied)
            && let Ok(place) = next.network.binary_search(&message)
        {
            next.network.remove(place);
        }
        for &message in &transition.sent {
            let place = next.network.partition_point(|&known| known < message);
            next.network.insert(place, message);
        }
        self.tidy(&mut next, action.at, &transition);
        next.spend(action);
        next.judge(self, state, action, &transition);
        Some(next)
    }

    /// Takes out what can have no effect any more: one message that is under way for nothing makes two states of each.
    fn tidy(&self, next: &mut State, at: usize, transition: &Transition) {
        let State { replicas, network, .. } = next;
        network.retain(|&message| {
            let to = receiver(message);
            let is_news = to == at || transition.sent.contains(&message);
            !is_news || !self.replicas.is_over(replicas[to], message)
        });
    }
}

impl State {
    fn spend(&mut self, action: Action) {
        let spent = &mut self.spent;
        let count = match action.event {
            Event::Deliver(_) if action.copied => &mut spent.copies,
            Event::Propose(_) => &mut spent.proposals,
            Event::Read(_) => &mut spent.reads,
            Event::Crash(_) => &mut spent.crashes,
            Event::Tick => &mut spent.ticks,
            Event::Change => &mut spent.changes,
            Event::Campaign => &mut spent.campaigns,
            Event::Deliver(_) | Event::Sync => return,
        };
        *count += 1;
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        match self.start {
            Start::Cold => vec![self.cold()],
            Start::Led => vec![self.led()],
        }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        let (spent, bounds) = (&state.spent, &self.bounds);
        let mut last = None;
        for &message in
            state.network.iter().filter(|&&message| last.replace(message) != Some(message))
        {
            let action = Action::new(receiver(message), Event::Deliver(message));
            actions.push(action);
            if spent.copies < bounds.copies {
                actions.push(Action { copied: true, ..action });
            }
        }
        for (at, &replica) in state.replicas.iter().enumerate() {
            let known = self.replicas.facts(replica);
            let facts = &known.1;
            let leads = facts.role == RoleName::Leader;
            let mut may = |event, allowed: bool| {
                if allowed {
                    actions.push(Action::new(at, event));
                }
            };
            may(Event::Sync, facts.pending > 0);
            may(Event::Campaign, spent.campaigns < bounds.campaigns && facts.term < bounds.terms);
            may(Event::Tick, spent.ticks < bounds.ticks);
            may(Event::Propose(spent.proposals), leads && spent.proposals < bounds.proposals);
            may(Event::Read(spent.reads), leads && spent.reads < bounds.reads);
            may(Event::Change, leads && spent.changes < bounds.changes);
            for surviving_writes in 0..=facts.pending {
                may(Event::Crash(surviving_writes), spent.crashes < bounds.crashes);
            }
        }
    }

    fn format_action(&self, action: &Action) -> String {
        let node = print::node(NodeId(action.at as u64 + 1));
        let Event::Deliver(message) = action.event else {
            return format!("{node}: {:?}", action.event);
        };
        let again = if action.copied { ", and will again" } else { "" };
        format!("arrives{again}: {}", print::envelope(&self.replicas.message(message)))
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.follow(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties(self)
    }

    fn within_boundary(&self, state: &State) -> bool {
        let terms = state.replicas.iter().map(|&replica| self.replicas.facts(replica).1.term);
        terms.max() <= Some(self.bounds.terms)
    }
}
