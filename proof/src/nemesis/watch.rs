//! What the nodes say of themselves, asked again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use raft::rpc::client::{NodeStatus, connect};
use raft::rpc::wire::Endpoint;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::Counts;

const PERIOD: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_millis(400);
/// Voters that the cluster aims at.
const MOST_VOTERS: usize = 5;

/// Looks at all nodes until it is stopped.
pub(super) struct Watch {
    seen: Arc<Mutex<Seen>>,
    looking: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    rounds: u64,
    /// By where they answered.
    latest: BTreeMap<Endpoint, NodeStatus>,
    leader_of_term: BTreeMap<u64, String>,
    /// Two nodes that led in one term.
    second_leader: Option<String>,
    /// Of the leader of the highest term.
    configuration: (BTreeSet<String>, BTreeSet<String>),
    configurations: u64,
    /// When counting began.
    before: Totals,
}

/// Since the cluster was made.
#[derive(Clone, Copy, Default)]
struct Totals {
    leaders: u64,
    configurations: u64,
}

impl Watch {
    pub(super) fn start(endpoints: Vec<Endpoint>) -> Arc<Self> {
        let seen = Arc::<Mutex<Seen>>::default();
        let looking = tokio::spawn(look(endpoints, Arc::clone(&seen)));
        Arc::new(Self { seen, looking })
    }

    /// How often all were asked.
    pub(super) fn round(&self) -> u64 {
        self.seen().rounds
    }

    /// Two nodes that led in one term, if that was ever seen.
    pub(super) fn second_leader(&self) -> Option<String> {
        self.seen().second_leader.clone()
    }

    /// Where the leader of the highest term answers, if one does.
    pub(super) fn leader(&self) -> Option<Endpoint> {
        self.seen().leader().map(|(endpoint, _)| endpoint.clone())
    }

    /// What of a whole cluster of so many nodes is not to be seen.
    pub(super) fn missing(&self, nodes: usize) -> Option<String> {
        let seen = self.seen();
        let statuses: Vec<_> = seen.latest.values().collect();
        if statuses.len() != nodes {
            return Some(format!("{} of {nodes} nodes answer", statuses.len()));
        }
        for status in &statuses {
            if status.leader.is_none() {
                return Some(format!("{} knows no leader", status.name));
            }
            if status.state_machine != "attached" || status.member != "connected" {
                let (machine, member) = (&status.state_machine, &status.member);
                return Some(format!("{}: machine {machine}, member {member}", status.name));
            }
        }
        let Some((_, leader)) = seen.leader() else { return Some("nobody leads".to_owned()) };
        let most = nodes.min(MOST_VOTERS);
        let wanted = most - (most + 1) % 2;
        let is_there = |id: &String| statuses.iter().any(|status| status.id == *id);
        let voters = leader.voters.iter().filter(|id| is_there(id)).count();
        if voters != wanted || leader.voters.len() != wanted {
            return Some(format!("{voters} of {} voters are there", leader.voters.len()));
        }
        if !leader.outgoing.is_empty() || !leader.membership_committed {
            return Some("the configuration is changing".to_owned());
        }
        let behind =
            statuses.iter().find(|status| status.applied_index + 2000 < leader.commit_index);
        behind.map(|status| format!("{} is far behind", status.name))
    }

    /// Whether the leader's log begins later than at its first entry.
    pub(super) fn is_compacted(&self) -> bool {
        self.seen().leader().is_some_and(|(_, status)| status.first_index > 1)
    }

    /// Counts from now on: a cluster changes a lot while it forms, and no fault has a part in that.
    pub(super) fn begin_counting(&self) {
        self.seen().begin_counting();
    }

    /// What was seen since counting began.
    pub(super) fn counts(&self) -> Counts {
        self.seen().counts()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panics while looking")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Seen {
    fn leader(&self) -> Option<(&Endpoint, &NodeStatus)> {
        let leaders = self.latest.iter().filter(|(_, status)| status.role == "leader");
        leaders.max_by_key(|(_, status)| status.term)
    }

    fn totals(&self) -> Totals {
        let leaders = self.leader_of_term.len() as u64;
        Totals { leaders, configurations: self.configurations }
    }

    fn begin_counting(&mut self) {
        self.before = self.totals();
    }

    fn counts(&self) -> Counts {
        let (before, now) = (self.before, self.totals());
        Counts::from([
            ("leader changes".to_owned(), now.leaders - before.leaders),
            ("configuration changes".to_owned(), now.configurations - before.configurations),
        ])
    }

    fn note(&mut self, latest: BTreeMap<Endpoint, NodeStatus>) {
        self.rounds += 1;
        self.latest = latest;
        for status in self.latest.values().filter(|status| status.role == "leader") {
            let known = self.leader_of_term.entry(status.term).or_insert_with(|| status.id.clone());
            if *known != status.id {
                self.second_leader =
                    Some(format!("{known} and {} in term {}", status.id, status.term));
            }
        }
        let Some((_, leader)) = self.leader() else { return };
        let set = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<_>>();
        let configuration = (set(&leader.voters), set(&leader.learners));
        if configuration != self.configuration {
            self.configuration = configuration;
            self.configurations += 1;
        }
    }
}

async fn look(endpoints: Vec<Endpoint>, seen: Arc<Mutex<Seen>>) {
    loop {
        let mut asked = JoinSet::new();
        for endpoint in endpoints.clone() {
            asked.spawn(async move {
                let status = ask(&endpoint).await?;
                Some((endpoint, status))
            });
        }
        let latest = asked.join_all().await.into_iter().flatten().collect();
        seen.lock().expect("nobody panics while looking").note(latest);
        sleep(PERIOD).await;
    }
}

async fn ask(endpoint: &Endpoint) -> Option<NodeStatus> {
    let (client, _) = connect(endpoint, 0, PATIENCE).await.ok()?;
    timeout(PATIENCE, client.status(tarpc::context::current())).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(id: &str, term: u64, voters: &[&str]) -> BTreeMap<Endpoint, NodeStatus> {
        let status = NodeStatus {
            name: id.to_owned(),
            id: id.to_owned(),
            cluster: None,
            role: "leader".to_owned(),
            pid: 1,
            boot: 1,
            term,
            leader: None,
            commit_index: 1,
            applied_index: 1,
            last_index: 1,
            voters: voters.iter().map(|&voter| voter.to_owned()).collect(),
            outgoing: Vec::new(),
            learners: Vec::new(),
            membership_committed: true,
            state_machine: "attached".to_owned(),
            member: "connected".to_owned(),
            fsync: true,
            version: String::new(),
            http_address: String::new(),
            first_index: 1,
            snapshot_index: 0,
            snapshot_bytes: 0,
            log_bytes: 0,
        };
        [(Endpoint::Tcp(format!("{id}:6004")), status)].into()
    }

    fn counted(seen: &Seen) -> [u64; 2] {
        let counts = seen.counts();
        ["leader changes", "configuration changes"].map(|what| counts[what])
    }

    #[test]
    fn what_happened_while_the_cluster_formed_is_not_counted() {
        let mut seen = Seen::default();
        seen.note(leader("a", 1, &["a"]));
        seen.note(leader("b", 2, &["a", "b", "c"]));
        seen.begin_counting();
        assert_eq!(counted(&seen), [0, 0]);
        seen.note(leader("b", 2, &["a", "b", "c"]));
        assert_eq!(counted(&seen), [0, 0]);
        seen.note(leader("c", 4, &["a", "b", "c"]));
        assert_eq!(counted(&seen), [1, 0]);
        seen.note(leader("c", 4, &["b", "c", "d"]));
        assert_eq!(counted(&seen), [1, 1]);
    }
}
