//! Carries `bench` out.

use raft_client::Options;
use raft_client::bench::{self, Aim, Cluster, Data, Plan, Way};
use serde_json::{Value, json};

use crate::cli::Bench;
use crate::run::Failure;

/// What a run of `bench` found.
#[derive(Debug)]
pub(crate) struct Measured {
    plan: Plan,
    way: Way,
    /// The leader and its term before the load.
    before: Option<(String, u64)>,
    /// The same after it.
    after: Option<(String, u64)>,
    report: bench::Report,
}

/// Measures. Nothing to report if nothing succeeded.
pub(crate) async fn run(options: Options, bench: Bench) -> Result<Measured, Failure> {
    let Bench { plan, target, sessions, watch_term } = bench;
    plan.check().map_err(Failure::Usage)?;
    let way = Way { aim: target, sessions, connections: plan.connections() };
    let cluster = Cluster::connect(options, way, &Data::new(&plan)).await?;
    let leader = async || {
        let found = cluster.leader().await;
        found.map(|(endpoint, term)| (endpoint.to_string(), term))
    };
    let before = leader().await;
    let clients = (0..plan.clients).map(|number| cluster.client(number)).collect();
    let report = bench::run(&plan, clients).await.map_err(Failure::Bench)?;
    let after = leader().await;
    let measured = Measured { plan, way, before, after, report };
    match &measured.report.errors[..] {
        [(kind, _, first), ..] if measured.report.is_empty() => {
            Err(Failure::Bench(bench::Trouble::new(*kind, first)))
        }
        _ if watch_term && !measured.is_calm() => Err(Failure::Election(Box::new(measured))),
        _ => Ok(measured),
    }
}

impl Measured {
    /// Whether the term is known and the same as before.
    fn is_calm(&self) -> bool {
        let term = |leader: &Option<(String, u64)>| leader.as_ref().map(|(_, term)| *term);
        self.before.is_some() && term(&self.before) == term(&self.after)
    }

    pub(crate) fn terms(&self) -> String {
        let word = |leader: &Option<(String, u64)>| match leader {
            Some((endpoint, term)) => format!("term {term}, led by {endpoint}"),
            None => "no leader".to_owned(),
        };
        format!("{} before, {} after", word(&self.before), word(&self.after))
    }

    /// For people; no line end at the end.
    pub(crate) fn text(&self) -> String {
        let plan = &self.plan;
        let to = match self.way.aim {
            Aim::Leader => "to the leader",
            Aim::Any => "to the first node that answers",
            Aim::Spread => "to all nodes in turn",
        };
        let sessions = if self.way.sessions { "a session each" } else { "without sessions" };
        format!(
            "{} clients, {sessions}, {} connections {to}; values of {} bytes, {} keys, {} % reads\n\
             measured {:.1} s after {} s of warm-up; {}\n\n{}",
            plan.clients,
            self.way.connections,
            plan.value_bytes,
            plan.key_count,
            plan.read_share * 100.0,
            self.report.measured.as_secs_f64(),
            plan.warm_up_s,
            self.terms(),
            self.report.text()
        )
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let leader = |leader: &Option<(String, u64)>| match leader {
            Some((endpoint, term)) => json!({ "leader": endpoint, "term": term }),
            None => Value::Null,
        };
        let mut json = self.report.json();
        json["clients"] = json!(self.plan.clients);
        json["connections"] = json!(self.way.connections);
        json["target"] = json!(match self.way.aim {
            Aim::Leader => "leader",
            Aim::Any => "any",
            Aim::Spread => "spread",
        });
        json["sessions"] = json!(self.way.sessions);
        json["value_bytes"] = json!(self.plan.value_bytes);
        json["key_count"] = json!(self.plan.key_count);
        json["read_share"] = json!(self.plan.read_share);
        json["warm_up_s"] = json!(self.plan.warm_up_s);
        json["before"] = leader(&self.before);
        json["after"] = leader(&self.after);
        json
    }
}
