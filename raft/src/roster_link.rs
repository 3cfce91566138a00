//! The link to the member daemon: registers this node there, follows its view, and tries again for ever.
//!
//! While the daemon is away raft goes on with what it saw last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use member::rpc::{self as contract, MemberServiceClient, State, Tags, View, WATCH_HOLD_MS};
use member::wire::Endpoint;
use tokio::sync::{mpsc, watch};

use crate::backoff::Backoff;
use crate::consensus::{NodeId, NodeInfo};
use crate::deadline;
use crate::node::Node;
use crate::pipeline::digest_commits::CommitsStatus;
use crate::pipeline::digest_entries::EntriesEvent;
use crate::roster::Candidate;
use crate::rpc::client::MemberStatus;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What gossip sees, for those who want to look.
#[derive(Clone, Debug)]
pub struct Sight {
    /// `connected`, or why not.
    pub member: Arc<str>,
    /// All members, as last seen; their place in the configuration is left open.
    pub members: Arc<[MemberStatus]>,
    /// Clusters that members belong to, save those who left: one whose members are all down is still there.
    pub clusters: Arc<[u128]>,
}

impl Default for Sight {
    fn default() -> Self {
        Self {
            member: Arc::from("not connected yet"),
            members: Arc::new([]),
            clusters: Arc::new([]),
        }
    }
}

const CONNECTED: &str = "connected";
/// What a node says of itself by gossip.
pub const ROLE: &str = "raft";
/// The same while its state machine is away: then it is the last to be made the leader.
pub const ROLE_DETACHED: &str = "raft without its machine";

impl Sight {
    /// Whether the member daemon has told anything yet, and is there.
    pub fn is_connected(&self) -> bool {
        &*self.member == CONNECTED
    }
}

/// Runs until the first stage is gone.
pub async fn run(
    endpoint: Endpoint,
    node: Arc<Node>,
    commits: watch::Receiver<CommitsStatus>,
    sight: watch::Sender<Sight>,
    inbox: mpsc::Sender<EntriesEvent>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    let mut reported = String::new();
    let link = Link { endpoint, node, commits, sight, inbox };
    while !link.inbox.is_closed() {
        let reason = link.attend(&mut backoff).await;
        link.sight.send_modify(|sight| sight.member = Arc::from(reason.as_str()));
        if reason != reported {
            tracing::warn!(endpoint = %link.endpoint, reason, "no member daemon; raft goes on with the addresses it knows and tries again");
            reported = reason;
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// What the others are told and may change while this process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct News {
    cluster: Option<u128>,
    attached: bool,
}

struct Link {
    endpoint: Endpoint,
    node: Arc<Node>,
    commits: watch::Receiver<CommitsStatus>,
    sight: watch::Sender<Sight>,
    inbox: mpsc::Sender<EntriesEvent>,
}

impl Link {
    /// One connection, to its end; says why it ended.
    async fn attend(&self, backoff: &mut Backoff) -> String {
        let client = match contract::connect(&self.endpoint, CONNECT_TIMEOUT).await {
            Ok(client) => client,
            Err(error) => return error.to_string(),
        };
        let mut version = 0;
        let mut registered = None;
        loop {
            let news = self.news();
            if registered != Some(news) {
                if let Err(reason) = self.register(&client, news).await {
                    return reason;
                }
                if registered.is_none() {
                    tracing::info!(endpoint = %self.endpoint, "registered with the member daemon");
                }
                registered = Some(news);
                backoff.reset();
            }
            // The daemon holds the call until something changes; a cluster that becomes known meanwhile is not to wait.
            let hold = Duration::from_millis(WATCH_HOLD_MS) + CALL_TIMEOUT;
            let view = tokio::select! {
                view = client.watch(deadline(hold), version) => view,
                () = self.cluster_change(news.cluster) => continue,
            };
            match view {
                Ok(view) => {
                    version = view.version;
                    self.publish(&view).await;
                }
                Err(error) => return format!("the member daemon does not answer: {error}"),
            }
        }
    }

    fn news(&self) -> News {
        News { cluster: self.node.cluster(), attached: self.commits.borrow().is_attached() }
    }

    /// What is not news enough to be told at once waits for the next look, within the hold of a call.
    async fn cluster_change(&self, known: Option<u128>) {
        match known {
            Some(_) => std::future::pending().await,
            None => drop(self.node.known_cluster().await),
        }
    }

    async fn register(&self, client: &MemberServiceClient, news: News) -> Result<(), String> {
        let News { cluster, attached } = news;
        let tags = Tags {
            cluster,
            node: Some(self.node.id.0),
            raft_address: self.node.raft_address.clone(),
            http_address: self.node.http_address.clone(),
            role: if attached { ROLE } else { ROLE_DETACHED }.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let silent = |error| format!("the member daemon does not answer: {error}");
        client
            .set_tags(deadline(CALL_TIMEOUT), tags)
            .await
            .map_err(silent)?
            .map_err(|error| format!("the member daemon refuses our registration: {error}"))?;
        // A node that has left comes back by being started again; its daemon may have run all the time.
        client
            .join(deadline(CALL_TIMEOUT), Vec::new())
            .await
            .map_err(silent)?
            .map_err(|error| format!("the member daemon does not come back: {error}"))
    }

    async fn publish(&self, view: &View) {
        self.sight.send_replace(Sight {
            member: Arc::from(CONNECTED),
            members: view.members.iter().map(member_status).collect(),
            clusters: clusters(view),
        });
        let candidates = Arc::new(candidates(view, self.node.cluster()));
        drop(self.inbox.send(EntriesEvent::Candidates(candidates)).await);
    }
}

fn clusters(view: &View) -> Arc<[u128]> {
    let staying = view.members.iter().filter(|member| member.state != State::Left);
    staying.filter_map(|member| member.tags.cluster).collect()
}

fn member_status(member: &contract::MemberView) -> MemberStatus {
    MemberStatus {
        name: member.name.clone(),
        id: member.tags.node.map(|node| NodeId(node).to_string()).unwrap_or_default(),
        state: state_name(member.state).to_owned(),
        configured: "none".to_owned(),
        raft_address: member.tags.raft_address.clone(),
        gossip_address: member.gossip_address.clone(),
        http_address: member.tags.http_address.clone(),
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Alive => "alive",
        State::Suspect => "suspect",
        State::Dead => "dead",
        State::Left => "left",
    }
}

/// Those that run a raft and are of our cluster or of none; before we have one, those of none. Where a node id is seen twice (its member daemon was given a
/// new directory), the living one counts.
pub fn candidates(view: &View, ours: Option<u128>) -> Vec<Candidate> {
    let mut by_node = BTreeMap::<NodeId, Candidate>::new();
    for member in &view.members {
        let foreign = member.tags.cluster.is_some() && member.tags.cluster != ours;
        let Some(node) = member.tags.node.filter(|node| *node != 0 && !foreign).map(NodeId) else {
            continue;
        };
        let candidate = Candidate {
            node,
            cluster: member.tags.cluster,
            alive: member.state == State::Alive && !member.tags.raft_address.is_empty(),
            left: member.state == State::Left,
            detached: member.tags.role == ROLE_DETACHED,
            info: NodeInfo {
                name: member.name.clone(),
                raft_address: member.tags.raft_address.clone(),
                http_address: member.tags.http_address.clone(),
            },
        };
        if candidate.alive || !by_node.contains_key(&node) {
            by_node.insert(node, candidate);
        }
    }
    by_node.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(
        id: u64,
        node: Option<u64>,
        cluster: Option<u128>,
        state: State,
    ) -> contract::MemberView {
        contract::MemberView {
            id,
            name: format!("m{id}"),
            gossip_address: "127.0.0.1:1".to_owned(),
            state,
            incarnation: 1,
            tags: Tags { cluster, node, raft_address: format!("h{id}:1"), ..Tags::default() },
        }
    }

    #[test]
    fn candidates_are_ours_or_nobodys_and_the_living_one_of_two_counts() {
        let view = View {
            version: 1,
            members: vec![
                seen(1, Some(10), Some(7), State::Alive),
                seen(2, Some(20), None, State::Alive),
                seen(3, Some(30), Some(8), State::Alive),
                seen(4, None, None, State::Alive),
                seen(5, Some(50), Some(7), State::Alive),
                seen(6, Some(50), Some(7), State::Dead),
            ],
        };
        let found = candidates(&view, Some(7));
        let summary: Vec<_> =
            found.iter().map(|c| (c.node.0, c.alive, c.info.raft_address.as_str())).collect();
        assert_eq!(summary, [(10, true, "h1:1"), (20, true, "h2:1"), (50, true, "h5:1")]);
        let before_we_have_one: Vec<_> = candidates(&view, None).iter().map(|c| c.node.0).collect();
        assert_eq!(before_we_have_one, [20], "it could be founded beside theirs");
    }

    #[test]
    fn a_cluster_whose_members_are_down_is_there_all_the_same() {
        for (state, expected) in [
            (State::Alive, &[7][..]),
            (State::Suspect, &[7]),
            (State::Dead, &[7]),
            (State::Left, &[]),
        ] {
            let members = vec![seen(1, Some(10), Some(7), state), seen(2, Some(20), None, state)];
            assert_eq!(&*clusters(&View { version: 1, members }), expected, "{state:?}");
        }
    }
}
