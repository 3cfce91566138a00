//! Carries a verb out.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use raft_client::endpoints::{DEFAULT_FILE, EndpointsError, Sources};
use raft_client::{
    Client, Error, Options, Range, Receipt, Refusal, SnapshotTaken, Stamp, Swap, bench,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::cli::{Cli, Common, Verb};
use crate::health;
use crate::measure::{self, Measured};
use crate::naming;
use crate::output::{Format, Report};

/// Longest wait for the end of a session that nobody needs any more.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Not understood.
    #[error("{0}")]
    Usage(String),
    /// Nobody to ask.
    #[error(transparent)]
    Endpoints(#[from] EndpointsError),
    /// No node, or more than one, is called so.
    #[error(transparent)]
    Name(#[from] naming::NameError),
    /// The key of a GET is not there.
    #[error("there is no key \"{key}\"")]
    NotFound {
        /// The key.
        key: String,
        /// It was not there after all commands up to here.
        read_index: u64,
    },
    /// The value at the key of a CAS is another one.
    #[error("refused: {}", present_value(key, present.as_ref()))]
    Mismatch {
        /// The key.
        key: String,
        /// The present value.
        present: Option<Bytes>,
        /// Where the CAS stands in the log.
        index: u64,
        /// Under which name it was sent.
        stamp: Stamp,
    },
    /// A CAS was applied at an earlier attempt, and whether it set the value is forgotten.
    #[error(
        "decided at index {index}, but whether \"{key}\" was set is no longer kept: GET it to see"
    )]
    Forgotten {
        /// The key.
        key: String,
        /// Where the CAS stands in the log.
        index: u64,
        /// Under which name it was sent.
        stamp: Stamp,
    },
    /// The cluster's answer, or the lack of one.
    #[error(transparent)]
    Request(#[from] Error),
    /// Nobody answered a question to all.
    #[error("no node answers ({reasons}); check that they run and that these endpoints are theirs")]
    NobodyAnswers {
        /// Of each.
        reasons: String,
    },
    /// Of a load, nothing succeeded.
    #[error("no request succeeded; the first error: {0}")]
    Bench(bench::Trouble),
    /// A load was to run without one.
    #[error("{}\n\nan election happened while the load ran: {}", .0.text(), .0.terms())]
    Election(Box<Measured>),
    /// A node does not work as it should.
    #[error("unhealthy: {reason}")]
    Unhealthy {
        /// What is missing.
        reason: String,
    },
    /// Nothing was sent.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// The request was carried out.
    #[error("done, but the result cannot be printed: {0}")]
    Print(io::Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Request(refusal.into())
    }
}

impl Failure {
    /// As documented in `--help`.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. }
            | Self::Mismatch { .. }
            | Self::Unhealthy { .. }
            | Self::Name(_)
            | Self::Election(_)
            | Self::Request(Error::Refused(_)) => 1,
            Self::Bench(trouble) => match trouble.kind {
                bench::Kind::Busy | bench::Kind::Refused => 1,
                bench::Kind::NotLeader => 4,
                bench::Kind::Connection
                | bench::Kind::Timeout
                | bench::Kind::Unknown
                | bench::Kind::WrongAnswer => 3,
            },
            Self::Usage(_) | Self::Endpoints(_) => 2,
            Self::Print(_)
            | Self::Forgotten { .. }
            | Self::Request(
                Error::Unknown { .. }
                | Error::Undecided { .. }
                | Error::NoAnswer { .. }
                | Error::Misunderstood { .. },
            ) => 3,
            Self::Start(_) | Self::NobodyAnswers { .. } | Self::Request(Error::NoLeader { .. }) => {
                4
            }
            Self::Request(Error::CommittedNotApplied { .. }) => 5,
        }
    }

    /// One word for programs.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Usage(_) | Self::Endpoints(_) => "usage",
            Self::NotFound { .. } => "not-found",
            Self::Mismatch { .. } => "mismatch",
            Self::Bench(trouble) => trouble.kind.name(),
            Self::Election(_) => "election",
            Self::Unhealthy { .. } => "unhealthy",
            Self::Request(Error::Refused(Refusal::Busy { .. } | Refusal::WindowFull)) => "busy",
            Self::Name(_) => "no-such-node",
            Self::Request(Error::Refused(_)) => "refused",
            Self::Forgotten { .. }
            | Self::Request(Error::Unknown { .. } | Error::Undecided { .. }) => "unknown",
            Self::Request(Error::CommittedNotApplied { .. }) => "committed-not-applied",
            Self::Request(Error::NoAnswer { .. }) => "no-answer",
            Self::Request(Error::Misunderstood { .. }) => "misunderstood",
            Self::Request(Error::NoLeader { .. }) | Self::NobodyAnswers { .. } => "no-leader",
            Self::Start(_) => "not-started",
            Self::Print(_) => "not-printed",
        }
    }
}

fn present_value(key: &str, present: Option<&Bytes>) -> String {
    match present {
        Some(value) => format!("\"{key}\" is \"{}\"", String::from_utf8_lossy(value)),
        None => format!("there is no key \"{key}\""),
    }
}

/// Does what is asked, and has it told. A session that was opened for it, and was not named to anybody, is closed after that: the
/// cluster's memory of sessions is for those who come back.
pub(crate) fn run<T>(cli: Cli, tell: impl FnOnce(Result<Report, Failure>) -> T) -> T {
    match start(&cli) {
        Ok((runtime, client, options)) => {
            let is_unnamed = cli.common.output == Format::Human;
            let outcome = runtime.block_on(ask(&client, options, cli.verb));
            // Who knows its name may repeat the command under it, and who does not know what became of it may have to.
            let is_settled = outcome.as_ref().err().is_none_or(|failure| failure.exit_code() == 1);
            let told = tell(outcome);
            if is_settled && is_unnamed {
                // It expires by itself where that takes long.
                let _open =
                    runtime.block_on(async { timeout(CLOSE_TIMEOUT, client.close()).await });
            }
            // A name server that does not answer must not hold up the end.
            runtime.shutdown_background();
            told
        }
        Err(failure) => tell(Err(failure)),
    }
}

/// What is needed to ask.
fn start(cli: &Cli) -> Result<(Runtime, Client, Options), Failure> {
    let stamp = cli.stamp().map_err(Failure::Usage)?;
    let options = if let Verb::Health { endpoint } = &cli.verb {
        health::options(endpoint.clone(), Duration::from_millis(cli.common.timeout_ms))
    } else {
        options(&cli.common)?
    };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(Failure::Start)?;
    let client = Client::new(options.clone());
    let client = stamp.map_or_else(|| client.clone(), |stamp| client.repeating(stamp));
    Ok((runtime, client, options))
}

fn options(common: &Common) -> Result<Options, Failure> {
    let sources = Sources {
        list: common.endpoints.clone(),
        file: common.endpoints_file.clone(),
        default_file: Some(DEFAULT_FILE.into()),
        ..Sources::from_environment()
    };
    Ok(Options {
        timeout: Duration::from_millis(common.timeout_ms),
        cluster: common.cluster.unwrap_or_default(),
        forward: !common.no_forward,
        // A single request learns from the answers to it.
        discover: false,
        ..Options::new(sources.resolve()?)
    })
}

async fn ask(client: &Client, options: Options, verb: Verb) -> Result<Report, Failure> {
    match verb {
        Verb::Put { key, value } => {
            let value = value.join(" ");
            let receipt = client.put(key.clone(), value.clone()).await?;
            Ok(Report::Put { key, value, receipt })
        }
        Verb::Get { key } => {
            let answer = client.get(key.clone()).await?;
            let read_index = answer.read_index;
            match answer.result {
                Some(value) => Ok(Report::Value { key, value, read_index }),
                None => Err(Failure::NotFound { key, read_index }),
            }
        }
        Verb::Del { key } => {
            let receipt = client.delete(key.clone()).await?;
            Ok(Report::Removed { key, receipt })
        }
        Verb::Incr { key, by } => {
            let receipt = client.incr(key.clone(), by).await?;
            Ok(Report::Number { key, receipt })
        }
        Verb::Cas { absent, key, values } => compare_and_set(client, absent, key, values).await,
        Verb::Append { key, value } => {
            let receipt = client.append(key.clone(), value.join(" ")).await?;
            Ok(Report::Length { key, receipt })
        }
        Verb::List { prefix, limit, after, keys_only } => {
            let range = Range { prefix: prefix.into(), after: after.into(), limit, keys_only };
            Ok(Report::Listed { answer: client.list(range).await? })
        }
        Verb::LogFilter { filter } => Ok(Report::LogFilter(client.log_filter(filter).await?)),
        Verb::Submit { text } => {
            let receipt = client.submit(Bytes::from(text.join(" "))).await?;
            Ok(Report::Submitted { receipt })
        }
        Verb::Query { text } => {
            let answer = client.query(Bytes::from(text.join(" "))).await?;
            Ok(Report::Answered { answer })
        }
        Verb::Status { all: false } => Ok(Report::Status(Box::new(client.status().await?))),
        Verb::Status { all: true } => status_of_all(client).await,
        Verb::Members => Ok(Report::Members(client.members().await?)),
        Verb::Bench(bench) => Ok(Report::Measured(Box::new(measure::run(options, bench).await?))),
        Verb::Health { .. } => match health::probe(client).await {
            Ok(()) => Ok(Report::Healthy),
            Err(reason) => Err(Failure::Unhealthy { reason }),
        },
        Verb::Transfer { node: None } => Ok(Report::Leads(client.transfer(None).await?)),
        Verb::Transfer { node: Some(name) } => {
            let node = naming::find(&client.members().await?, &name)?;
            Ok(Report::Leads(client.transfer(Some(node)).await?))
        }
        Verb::Campaign { node } => {
            let node = named_or_asked(client, node).await?;
            Ok(Report::Leads(client.campaign(node).await?))
        }
        Verb::Leave { node } => {
            let node = named_or_asked(client, node).await?;
            client.leave(node).await?;
            Ok(Report::Left { node })
        }
        Verb::Snapshot { node } => {
            let node = named_or_asked(client, node).await?;
            let SnapshotTaken { index, bytes } = client.snapshot(node).await?;
            Ok(Report::SnapshotTaken { node, index, bytes })
        }
    }
}

/// The id of a node that was named, or of the one that answers.
async fn named_or_asked(client: &Client, name: Option<String>) -> Result<u64, Failure> {
    match name {
        Some(name) => Ok(naming::find(&client.members().await?, &name)?),
        None => Ok(naming::id_of(&client.status().await?.id)?),
    }
}

async fn compare_and_set(
    client: &Client,
    absent: bool,
    key: String,
    mut values: Vec<String>,
) -> Result<Report, Failure> {
    if !absent && values.len() < 2 {
        let wanted = "CAS KEY EXPECTED VALUE, or CAS --absent KEY VALUE: the new value is missing";
        return Err(Failure::Usage(wanted.to_owned()));
    }
    let expected = (!absent).then(|| Bytes::from(values.remove(0)));
    let value = values.join(" ");
    let receipt = client.compare_and_set(key.clone(), expected, value.clone()).await?;
    let Receipt { stamp, index, result } = receipt;
    match result {
        Some(Swap::Mismatch { present }) => Err(Failure::Mismatch { key, present, index, stamp }),
        Some(Swap::Done) => {
            Ok(Report::Swapped { key, value, receipt: Receipt { stamp, index, result: Some(()) } })
        }
        None => Err(Failure::Forgotten { key, index, stamp }),
    }
}

async fn status_of_all(client: &Client) -> Result<Report, Failure> {
    let statuses = client.status_of_all().await;
    if statuses.iter().any(|(_, status)| status.is_ok()) {
        return Ok(Report::Statuses(statuses));
    }
    let reasons = statuses.into_iter().filter_map(|(endpoint, status)| {
        status.err().map(|reason| format!("{endpoint}: {reason}"))
    });
    Err(Failure::NobodyAnswers { reasons: reasons.collect::<Vec<_>>().join("; ") })
}
