//! `/metrics`: what the stages say of themselves when asked, and what was counted.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::api::Api;
use super::problem::{Kind, Problem};
use super::status::in_time;
use crate::consensus::{RoleName, Status};
use crate::metrics::{Histogram, Metrics};
use crate::pipeline::digest_commits::CommitsStatus;
use crate::pipeline::digest_entries::role_name;
use crate::roster_link::Sight;
use crate::snapshot::Description;

const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const ROLES: [&str; 5] = ["follower", "pre-candidate", "candidate", "leader", "learner"];
const STATES: [&str; 4] = ["alive", "suspect", "dead", "left"];
const MICROS_PER_SECOND: f64 = 1e6;

pub(super) async fn metrics(State(api): State<Api>) -> Result<Response, Problem> {
    let gone = || Problem::new(Kind::NotResponding, "this node is stopping");
    let scrape = Scrape {
        status: in_time(api.server.look()).await?.ok_or_else(gone)?,
        commits: api.shared.commits.borrow().clone(),
        sight: api.shared.sight.borrow().clone(),
        metrics: Arc::clone(&api.shared.metrics),
        name: api.shared.node.name.clone(),
        fsync: api.shared.fsync,
        snapshot: api.shared.receiver.shelf().store().newest(),
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut page = String::new();
    text::encode(&mut page, &registry).expect("a String takes everything");
    Ok(([(CONTENT_TYPE, TYPE)], page).into_response())
}

/// Everything at one moment.
#[derive(Debug)]
struct Scrape {
    status: Status,
    commits: CommitsStatus,
    sight: Sight,
    metrics: Arc<Metrics>,
    name: String,
    fsync: bool,
    snapshot: Option<Description>,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { encoder };
        self.encode_node(&mut page)?;
        self.encode_raft(&mut page)?;
        self.encode_requests(&mut page)?;
        self.encode_log(&mut page)?;
        self.encode_snapshots(&mut page)?;
        self.encode_neighbours(&mut page)?;
        encode_process(&mut page)
    }
}

impl Scrape {
    fn encode_node(&self, page: &mut Page<'_>) -> fmt::Result {
        let labels = [
            ("node", self.status.id.to_string()),
            ("name", self.name.clone()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        page.family("outrigger_node_info", "Who this is", MetricType::Gauge, |mut family| {
            ConstGauge::new(1_u64).encode(family.encode_family(&labels)?)
        })?;
        let fsync = u64::from(self.fsync);
        page.gauge("outrigger_fsync", "0: acknowledged writes may be lost with the machine", fsync)
    }

    fn encode_raft(&self, page: &mut Page<'_>) -> fmt::Result {
        let Status { term, commit_index, last, membership, .. } = &self.status;
        let role = role_name(&self.status);
        page.gauges(
            "outrigger_role",
            "1 for the role that this node has",
            "role",
            ROLES.map(|name| (name.to_owned(), u64::from(name == role))),
        )?;
        let knows_leader = u64::from(self.status.leader.is_some());
        page.gauge("outrigger_leader_known", "Whether a leader is known here", knows_leader)?;
        page.gauge("outrigger_term", "Current term", term.0)?;
        page.gauge("outrigger_commit_index", "Highest committed index known", commit_index.0)?;
        let applied = self.commits.applied.0;
        page.gauge("outrigger_applied_index", "Highest index applied by our machine", applied)?;
        page.gauge("outrigger_last_index", "End of our log", last.index.0)?;
        let voters = membership.voters.len() as u64;
        page.gauge("outrigger_voters", "Voters of the configuration in force", voters)?;
        let learners = membership.learners.len() as u64;
        page.gauge("outrigger_learners", "Learners of the configuration in force", learners)?;
        let metrics = &self.metrics;
        let changes = metrics.leader_changes.get();
        page.counter("outrigger_leader_changes", "How often a leader became known", changes)?;
        let elections = metrics.elections.get();
        page.counter("outrigger_elections", "How often this node asked for votes", elections)?;
        let dropped = metrics.dropped_messages.get();
        page.counter("outrigger_dropped_messages", "Impossible messages of peers", dropped)?;
        if self.status.role == RoleName::Leader {
            let lag = |match_index: u64| last.index.0.saturating_sub(match_index);
            let peers = self.status.peers.iter();
            let lags = peers.map(|(id, peer)| (id.to_string(), lag(peer.match_index.0)));
            page.gauges(
                "outrigger_peer_lag_entries",
                "Entries that a peer lacks; at the leader only",
                "peer",
                lags,
            )?;
        }
        Ok(())
    }

    fn encode_requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let Metrics { submits, queries, .. } = &*self.metrics;
        page.counters(
            "outrigger_submits",
            "Commands of this node's clients, by what became of them",
            [
                ("applied", submits.applied.get()),
                ("refused-by-machine", submits.refused_by_machine.get()),
                ("refused", submits.refused.get()),
                ("committed", submits.committed.get()),
                ("unknown", submits.unknown.get()),
            ],
        )?;
        page.counters(
            "outrigger_queries",
            "Reads of this node's clients, by what became of them",
            [("answered", queries.answered.get()), ("failed", queries.failed.get())],
        )?;
        page.histogram(
            "outrigger_submit_seconds",
            "Time of a command at this node",
            &self.metrics.submit_us,
            MICROS_PER_SECOND,
        )?;
        page.histogram(
            "outrigger_query_seconds",
            "Time of a read at this node",
            &self.metrics.query_us,
            MICROS_PER_SECOND,
        )
    }

    fn encode_log(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = &self.metrics;
        page.histogram(
            "outrigger_log_sync_seconds",
            "Time of a write to the log with its sync",
            &metrics.sync_us,
            MICROS_PER_SECOND,
        )?;
        page.histogram(
            "outrigger_log_sync_entries",
            "Entries in such a write",
            &metrics.sync_entries,
            1.0,
        )?;
        let bytes = metrics.log_bytes.load(Ordering::Relaxed);
        page.gauge("outrigger_log_bytes", "Size of the log's files", bytes)?;
        let first = self.status.first_index.0;
        page.gauge("outrigger_log_first_index", "First entry that the log holds", first)?;
        let stalled = metrics.log_stalled().as_secs_f64();
        page.gauge("outrigger_log_stalled_seconds", "Since when the log finishes nothing", stalled)
    }

    fn encode_snapshots(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = &self.metrics;
        let index = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.meta.last.index.0);
        page.gauge("outrigger_snapshot_index", "Last entry of the newest snapshot", index)?;
        let bytes = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes);
        page.gauge("outrigger_snapshot_bytes", "Size of the newest snapshot", bytes)?;
        page.counters(
            "outrigger_snapshots",
            "Snapshots of the state machine, by what became of them",
            [
                ("taken", metrics.snapshots_taken.get()),
                ("failed", metrics.snapshots_failed.get()),
                ("installed", metrics.snapshots_installed.get()),
            ],
        )?;
        page.counter(
            "outrigger_snapshot_sent_bytes",
            "Bytes of snapshots sent to peers",
            metrics.snapshot_bytes_sent.get(),
        )?;
        page.counter(
            "outrigger_snapshot_received_bytes",
            "Bytes of snapshots that came from leaders",
            metrics.snapshot_bytes_received.get(),
        )
    }

    fn encode_neighbours(&self, page: &mut Page<'_>) -> fmt::Result {
        let peers = self.metrics.peers_connected.outstanding() as u64;
        page.gauge("outrigger_peers_connected", "Links to peers that are up", peers)?;
        let attached = u64::from(&*self.commits.machine == "attached");
        page.gauge("outrigger_machine_attached", "Whether the state machine is there", attached)?;
        let connected = u64::from(self.sight.is_connected());
        page.gauge("outrigger_member_connected", "Whether the member is there", connected)?;
        let in_state = |state: &str| {
            self.sight.members.iter().filter(|member| member.state == state).count() as u64
        };
        page.gauges(
            "outrigger_gossip_members",
            "Members as gossip sees them",
            "state",
            STATES.map(|state| (state.to_owned(), in_state(state))),
        )?;
        let waiting = self.metrics.requests_waiting.outstanding() as u64;
        page.gauge("outrigger_requests_waiting", "Requests that wait, passed on or not", waiting)?;
        let connections = self.metrics.http_connections.outstanding() as u64;
        page.gauge("outrigger_http_connections", "Open HTTP connections", connections)?;
        let turned_away = self.metrics.http_turned_away.get();
        page.counter("outrigger_http_turned_away", "HTTP connections without room", turned_away)
    }
}

/// What the system says of this process, where it says anything.
fn encode_process(page: &mut Page<'_>) -> fmt::Result {
    if let Some(bytes) = resident_bytes() {
        page.gauge("process_resident_memory_bytes", "Memory in use", bytes)?;
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of them is this very directory.
        let open = files.count().saturating_sub(1) as u64;
        page.gauge("process_open_fds", "Open files", open)?;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    page.gauge("process_max_fds", "Files that may be open", limit.unwrap_or(u64::MAX))
}

fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// A page under construction.
struct Page<'e> {
    encoder: DescriptorEncoder<'e>,
}

impl Page<'_> {
    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        fill: impl FnOnce(MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        fill(self.encoder.encode_descriptor(name, help, None, kind)?)
    }

    fn gauge<N>(&mut self, name: &str, help: &str, value: N) -> fmt::Result
    where
        ConstGauge<N>: EncodeMetric,
    {
        self.family(name, help, MetricType::Gauge, |metric| ConstGauge::new(value).encode(metric))
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (String, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |mut family| {
            values.into_iter().try_for_each(|(of, value)| {
                let labels = [(label, of)];
                ConstGauge::new(value).encode(family.encode_family(&labels)?)
            })
        })
    }

    /// Its name gets `_total` at its end.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        self.family(name, help, MetricType::Counter, |metric| counter.encode(metric))
    }

    /// Its name gets `_total` at its end.
    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: [(&str, u64); N],
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |mut family| {
            values.into_iter().try_for_each(|(outcome, value)| {
                let labels = [("outcome", outcome)];
                ConstCounter::new(value).encode(family.encode_family(&labels)?)
            })
        })
    }

    /// Values are divided by `scale`.
    #[expect(clippy::cast_precision_loss, reason = "a page has no more than 53 bits for anything")]
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        histogram: &Histogram,
        scale: f64,
    ) -> fmt::Result {
        let bound = |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| bound as f64 / scale);
        let buckets: Vec<(f64, u64)> =
            histogram.ranges().map(|(upper, count)| (bound(upper), count)).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = histogram.sum() as f64 / scale;
        self.family(name, help, MetricType::Histogram, |mut metric| {
            metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        })
    }
}
