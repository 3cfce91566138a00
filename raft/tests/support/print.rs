//! How a conversation is written down: one line per thing that a reader would want to know.

use std::collections::BTreeSet;

use raft::consensus::{
    AppendOutcome, Entry, Envelope, Event, Membership, Message, NodeId, Output, Payload, Refusal,
    RoleName,
};

/// What one step of a node did.
pub fn output(id: NodeId, output: &Output) -> Vec<String> {
    let mut lines: Vec<String> = output.events.iter().map(event).collect();
    if let Some(persist) = &output.persist {
        lines.extend(persist.truncate_from.map(|from| format!("truncates from {from}")));
        lines.extend(persist.append.iter().map(|entry| format!("appends {}", self::entry(entry))));
    }
    lines.extend(
        output
            .accepted
            .iter()
            .map(|(proposal, id)| format!("accepts proposal {} as {id}", proposal.0)),
    );
    lines.extend(
        output
            .refused
            .iter()
            .map(|(proposal, why)| format!("refuses proposal {}: {}", proposal.0, refusal(*why))),
    );
    lines.extend(output.ready_index.map(|index| format!("ready up to {index}")));
    lines.extend(
        output.reads.iter().map(|(read, index)| format!("answers read {} at {index}", read.0)),
    );
    lines.extend(
        output
            .refused_reads
            .iter()
            .map(|(read, why)| format!("refuses read {}: {}", read.0, refusal(*why))),
    );
    lines.extend(output.fetch.iter().map(|fetch| format!("fetches {}..{}", fetch.from, fetch.to)));
    lines.extend(
        output.install.iter().map(|meta| format!("installs the snapshot at {}", meta.last)),
    );
    lines.extend(output.compact.iter().map(|base| format!("compacts up to {}", base.last.index)));
    lines.iter().map(|line| format!("{} {line}", node(id))).collect()
}

/// A message that leaves its sender.
pub fn envelope(envelope: &Envelope) -> String {
    format!("{} → {} {}", node(envelope.from), node(envelope.to), message(envelope))
}

pub fn node(id: NodeId) -> String {
    format!("n{}", id.0)
}

pub fn role(role: RoleName) -> &'static str {
    match role {
        RoleName::Follower => "follower",
        RoleName::PreCandidate => "pre-candidate",
        RoleName::Candidate => "candidate",
        RoleName::Leader => "leader",
    }
}

pub fn membership(membership: &Membership) -> String {
    let replacing = format!(" replacing {}", ids(&membership.outgoing));
    let learners = format!(" learners {}", ids(&membership.learners));
    let replacing = if membership.is_joint() { replacing } else { String::new() };
    let learners = if membership.learners.is_empty() { String::new() } else { learners };
    format!("voters {}{replacing}{learners}", ids(&membership.voters))
}

pub fn entry(entry: &Entry) -> String {
    let payload = match &entry.payload {
        Payload::Noop => "no-op".to_owned(),
        Payload::Command(command) => String::from_utf8_lossy(command).into_owned(),
        Payload::Membership(membership) => self::membership(membership),
    };
    format!("{} {payload}", entry.id)
}

fn message(envelope: &Envelope) -> String {
    let term = envelope.term;
    match &envelope.body {
        Message::PreVote(request) => {
            format!("pre-vote for term {}? last {}", term.next(), request.last)
        }
        Message::Vote(request) => {
            let transfer = if request.transfer { ", handed over" } else { "" };
            format!("vote for term {term}? last {}{transfer}", request.last)
        }
        Message::PreVoteResponse(response) => {
            format!(
                "pre-vote for term {} {}, at term {term}",
                response.asked_term,
                granted(response.granted)
            )
        }
        Message::VoteResponse(response) => {
            format!(
                "vote for term {} {}, at term {term}",
                response.asked_term,
                granted(response.granted)
            )
        }
        Message::Append(request) => {
            let entries = match (request.entries.first(), request.entries.last()) {
                (Some(first), Some(last)) => format!("append {}..{}", first.id, last.id),
                _ => "heartbeat".to_owned(),
            };
            let round = if request.read_seq > 0 {
                format!(", round {}", request.read_seq)
            } else {
                String::new()
            };
            format!(
                "{entries} after {}, commit {}{round}, term {term}",
                request.prev, request.commit_index
            )
        }
        Message::AppendResponse(response) => {
            let round = if response.read_seq > 0 {
                format!(", round {}", response.read_seq)
            } else {
                String::new()
            };
            format!("{}{round}, term {term}", outcome(response.outcome))
        }
        Message::InstallSnapshot(meta) => format!("snapshot at {}, term {term}", meta.last),
        Message::SnapshotResponse(response) => match response.installed {
            Some(last) => format!("holds the snapshot at {last}, term {term}"),
            None => format!("no snapshot, term {term}"),
        },
        Message::TimeoutNow => format!("take over, term {term}"),
    }
}

fn outcome(outcome: AppendOutcome) -> String {
    match outcome {
        AppendOutcome::Accepted { match_index } => format!("accepted up to {match_index}"),
        AppendOutcome::Rejected { refused_prev, conflict_term, conflict_index, last_index } => {
            format!(
                "rejected after {refused_prev}: term {conflict_term} from {conflict_index}, end {last_index}"
            )
        }
    }
}

fn granted(granted: bool) -> &'static str {
    if granted { "granted" } else { "refused" }
}

fn event(event: &Event) -> String {
    match event {
        Event::RoleChanged { role, term, reason } => {
            format!("becomes {} in term {term}: {reason}", self::role(*role))
        }
        Event::LeaderChanged { leader: Some(leader), term } => {
            format!("follows {} in term {term}", node(*leader))
        }
        Event::LeaderChanged { leader: None, term } => format!("knows no leader in term {term}"),
        Event::MembershipChanged { membership, index } => {
            format!("configuration at {index}: {}", self::membership(membership))
        }
        Event::Dropped { from, reason } => {
            format!("drops a message from {}: {reason}", node(*from))
        }
    }
}

fn refusal(refusal: Refusal) -> String {
    match refusal {
        Refusal::NotLeader { leader: Some(leader) } => {
            format!("not the leader, that is {}", node(leader))
        }
        Refusal::NotLeader { leader: None } => "not the leader, nobody known is".to_owned(),
        Refusal::Busy => "busy".to_owned(),
        Refusal::NotReady => "not ready".to_owned(),
        Refusal::ChangeInProgress => "a change is in progress".to_owned(),
        Refusal::StaleChange => "the change is stale".to_owned(),
        Refusal::InvalidChange => "the change is invalid".to_owned(),
    }
}

fn ids(ids: &BTreeSet<NodeId>) -> String {
    let names: Vec<String> = ids.iter().map(|id| node(*id)).collect();
    names.join(",")
}
