//! The replicas that were met so far, each once, and what became of each by each event. A state of the model then is a few
//! numbers, and the core steps once for what happens in thousands of states.

use std::collections::HashMap;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use raft::consensus::{
    Envelope, Index, Input, Membership, MembershipChange, NodeId, Proposal, ProposalId, ReadId,
};

use crate::facts::{Facts, answers_for_less_than};
use crate::identity::{Identity, identity};
use crate::process::{Process, config};
use crate::support::node::Node;

/// A replica, by the order in which it was met.
pub type ReplicaNo = u32;
/// A message, by the order in which it was first sent; its lowest bits are the place of its receiver, which is asked for often.
pub type MessageNo = u32;

const PLACE_BITS: u32 = 2;

/// What can happen to one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The message arrives.
    Deliver(MessageNo),
    /// The oldest write becomes durable.
    Sync,
    /// It holds its leader for dead, or its own election for lost, and campaigns.
    Campaign,
    /// A little time passes: a leader sends heartbeats.
    Tick,
    /// A client's command, the so-maniest.
    Propose(u8),
    /// A client's linearizable read, the so-maniest.
    Read(u8),
    /// The configuration changes to the one that the model aims at.
    Change,
    /// The process dies, and starts again from its disk, to which so many of the writes under way came by chance.
    Crash(u8),
}

/// How a disk betrays a process that restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Not at all.
    Sound,
    /// The vote of the current term is gone, though it was synced.
    ForgetsVotes,
    /// The last entry is gone, though it was synced.
    ForgetsTheLastEntry,
}

/// What became of a replica.
#[derive(Clone, Debug)]
pub struct Transition {
    pub to: ReplicaNo,
    pub sent: Vec<MessageNo>,
    /// Reads that may be answered, and where.
    pub reads: Vec<(u8, usize)>,
    /// What a failed assertion said.
    pub panic: Option<String>,
}

impl Transition {
    /// Whether nothing at all came of it for `replica`.
    pub fn is_idle(&self, replica: ReplicaNo) -> bool {
        self.to == replica && self.sent.is_empty() && self.reads.is_empty() && self.panic.is_none()
    }
}

/// All replicas and messages of one model.
pub struct Replicas {
    pub disk: Disk,
    pub target: Membership,
    nodes: RwLock<Met<Identity, (Node, Facts)>>,
    messages: RwLock<Met<String, Envelope>>,
    transitions: RwLock<Transitions>,
}

/// None where the event cannot happen.
type Transitions = HashMap<(ReplicaNo, Event), Option<Arc<Transition>>>;

/// Things in the order in which they were met.
struct Met<K, T> {
    numbers: HashMap<K, u32>,
    things: Vec<Arc<T>>,
}

impl<K: Eq + Hash, T> Met<K, T> {
    fn new() -> Self {
        Self { numbers: HashMap::new(), things: Vec::new() }
    }

    fn number(&mut self, key: K, make: impl FnOnce() -> T) -> u32 {
        let Self { numbers, things } = self;
        *numbers.entry(key).or_insert_with(|| {
            things.push(Arc::new(make()));
            u32::try_from(things.len() - 1).expect("few enough")
        })
    }
}

impl Replicas {
    pub fn new(disk: Disk, target: Membership) -> Self {
        Self {
            disk,
            target,
            nodes: RwLock::new(Met::new()),
            messages: RwLock::new(Met::new()),
            transitions: RwLock::default(),
        }
    }

    /// A replica with an empty disk, that was perhaps told the first configuration.
    pub fn fresh(&self, id: NodeId, bootstrap: Option<Membership>) -> ReplicaNo {
        let mut node = Node::new(config(id));
        if let Some(membership) = bootstrap {
            let _output = node.step(Input::Bootstrap(membership));
            node.sync(1).expect("the first configuration is written");
        }
        self.meet(node)
    }

    pub fn facts(&self, replica: ReplicaNo) -> Arc<(Node, Facts)> {
        Arc::clone(&self.nodes.read().expect("not poisoned").things[replica as usize])
    }

    pub fn message(&self, message: MessageNo) -> Arc<Envelope> {
        let serial = (message >> PLACE_BITS) as usize;
        Arc::clone(&self.messages.read().expect("not poisoned").things[serial])
    }

    /// How many different replicas there were.
    pub fn met(&self) -> usize {
        self.nodes.read().expect("not poisoned").things.len()
    }

    /// What becomes of `replica`; none when the event cannot happen to it.
    pub fn transition(&self, replica: ReplicaNo, event: Event) -> Option<Arc<Transition>> {
        let key = (replica, event);
        if let Some(known) = self.transitions.read().expect("not poisoned").get(&key) {
            return known.clone();
        }
        let made = self.make(replica, event).map(Arc::new);
        self.transitions.write().expect("not poisoned").entry(key).or_insert(made).clone()
    }

    /// Whether `message` can have no effect on `replica` any more: it answers for a term that is over, and has none now.
    pub fn is_over(&self, replica: ReplicaNo, message: MessageNo) -> bool {
        let term = self.facts(replica).1.term;
        answers_for_less_than(&self.message(message), term)
            && self
                .transition(replica, Event::Deliver(message))
                .is_none_or(|transition| transition.is_idle(replica))
    }

    fn make(&self, replica: ReplicaNo, event: Event) -> Option<Transition> {
        let known = self.facts(replica);
        let (node, facts) = &*known;
        let stepped = catch_unwind(AssertUnwindSafe(|| {
            let mut process = Process::new(node.clone());
            self.happen(&mut process, facts, event).then_some(process)
        }));
        match stepped {
            Ok(process) => process.map(|process| self.transition_to(process)),
            Err(panic) => Some(Transition {
                to: replica,
                sent: Vec::new(),
                reads: Vec::new(),
                panic: Some(words(&*panic)),
            }),
        }
    }

    fn transition_to(&self, process: Process) -> Transition {
        let sent = process.sent.into_iter().map(|envelope| self.number_message(envelope)).collect();
        Transition { to: self.meet(process.node), sent, reads: process.reads, panic: None }
    }

    fn meet(&self, node: Node) -> ReplicaNo {
        let facts = Facts::of(&node);
        self.nodes.write().expect("not poisoned").number(identity(&node), || (node, facts))
    }

    fn number_message(&self, envelope: Envelope) -> MessageNo {
        let key = format!("{envelope:?}");
        let place = u32::try_from(envelope.to.0 - 1).expect("few replicas");
        let serial = self.messages.write().expect("not poisoned").number(key, || envelope);
        serial << PLACE_BITS | place
    }

    /// Carries the event out; says no when it cannot happen.
    fn happen(&self, process: &mut Process, facts: &Facts, event: Event) -> bool {
        match event {
            Event::Deliver(message) => {
                process.step(Input::Message((*self.message(message)).clone()));
            }
            Event::Sync => return process.sync(),
            Event::Campaign => return process.lose_patience(facts),
            Event::Tick => process.step(Input::Tick),
            Event::Propose(serial) => {
                let command = Bytes::from(format!("command {serial}"));
                let proposal = Proposal { id: ProposalId(serial.into()), command };
                process.step(Input::Propose(vec![proposal]));
            }
            Event::Read(serial) => process.step(Input::Read(ReadId(serial.into()))),
            Event::Change => {
                let based_on = process.node.raft().status().membership_index;
                let target = self.target.clone();
                let change = MembershipChange { id: ProposalId(0), based_on, target };
                process.step(Input::ChangeMembership(change));
            }
            Event::Crash(surviving_writes) => self.crash(process, surviving_writes),
        }
        true
    }

    fn crash(&self, process: &mut Process, surviving_writes: u8) {
        let id = process.node.raft().status().id;
        let node = &mut process.node;
        node.crash(surviving_writes.into());
        let mut hard_state = node.disk.durable_hard_state();
        let mut entries = node.disk.read(Index(1), node.disk.log_last().index);
        match self.disk {
            Disk::Sound => return node.start(),
            Disk::ForgetsVotes => hard_state.vote = None,
            Disk::ForgetsTheLastEntry => entries.truncate(entries.len().saturating_sub(1).max(1)),
        }
        *node = Node::restored(config(id), hard_state, entries, Index(0));
    }
}

/// Where the receiver of `message` stands.
pub fn receiver(message: MessageNo) -> usize {
    (message & ((1 << PLACE_BITS) - 1)) as usize
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
