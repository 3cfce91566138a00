//! The load of `raft-client bench`, made on etcd: the same clients, clocks and histograms. `scripts/bench.sh` runs it.

mod etcd;
mod proto;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use raft_client::bench::{self, Data, Plan, Trouble};
use serde_json::{Value, json};

use etcd::{Etcd, Leader};

/// Makes load on etcd with many clients, at its leader, and prints what was measured as JSON
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    plan: Plan,
    /// Client ports of the nodes, host:port, separated by commas
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// Longest wait for an answer, 1–3600000 ms
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    timeout_ms: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(message) = arguments.plan.check() {
        eprintln!("etcd-bench: {message}");
        return ExitCode::from(2);
    }
    // One thread, as `raft-client` has.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let measured = match runtime {
        Ok(runtime) => runtime.block_on(measure(&arguments)),
        Err(error) => Err(Trouble::new(bench::Kind::Refused, &error)),
    };
    match measured {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            eprintln!("etcd-bench: {trouble}");
            ExitCode::from(3)
        }
    }
}

async fn measure(arguments: &Arguments) -> Result<Value, Trouble> {
    let Arguments { plan, endpoints, timeout_ms } = arguments;
    let timeout = Duration::from_millis(*timeout_ms);
    let before = etcd::leader(endpoints, timeout).await?;
    let channels = etcd::connections(&before, plan.connections(), timeout).await?;
    let data = Arc::new(Data::new(plan));
    let client =
        |number: usize| Etcd::new(channels[number % channels.len()].clone(), Arc::clone(&data));
    let report = bench::run(plan, (0..plan.clients).map(client).collect()).await?;
    let after = etcd::leader(endpoints, timeout).await?;
    let mut json = report.json();
    let leader = |leader: &Leader| json!({ "leader": leader.endpoint, "term": leader.term });
    json["clients"] = json!(plan.clients);
    json["connections"] = json!(plan.connections());
    json["before"] = leader(&before);
    json["after"] = leader(&after);
    Ok(json)
}
