//! Clients whose processes are killed in the middle of their commands.
//!
//! [`Mortal`] keeps the name of its command, as a program would that writes it down first: its next process goes on under that.
//! [`Forgetful`] keeps nothing: what became of its last command is for the cluster to know, once or not at all.

mod wire;

use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

use self::wire::{Certainty, Moment, Wire};
use crate::harness::caller::Caller;
use crate::harness::cluster::Cluster;
use crate::harness::load::Adds;
use crate::harness::wait::{PATIENCE, POLL};

/// What becomes of the first process of each command, in turn.
const FATES: [Option<Moment>; 4] =
    [Some(Moment::Answered), None, Some(Moment::Sent), Some(Moment::Unsent)];
/// Of an append by a client without a name to keep: it opens a session first.
const AFTER_OPENING: usize = 1;

/// A process of a client; killed when dropped.
struct Life(Child);

impl Drop for Life {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

impl Life {
    fn begin(wire: &Wire, words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raft-client"));
        command.env_clear().args(["--output=json", "--endpoints", wire.address()]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().expect("the client starts"))
    }

    /// What it says in the end, and whether that is an answer.
    async fn end(&mut self) -> (bool, Value) {
        let status = timeout(PATIENCE, self.status()).await.expect("clients end in time");
        let mut said = String::new();
        let mut out = self.0.stdout.take().expect("it is piped");
        out.read_to_string(&mut said).expect("clients say text");
        (status.success(), serde_json::from_str(&said).unwrap_or_default())
    }

    async fn status(&mut self) -> ExitStatus {
        let mut looks = interval(POLL);
        loop {
            looks.tick().await;
            if let Some(status) = self.0.try_wait().expect("our child") {
                return status;
            }
        }
    }

    /// Ends it when the moment comes, unless it is done before: then what it said.
    async fn end_or_die(
        mut self,
        moment: oneshot::Receiver<Certainty>,
    ) -> Result<(bool, Value), Certainty> {
        tokio::select! {
            end = self.end() => Ok(end),
            Ok(certainty) = moment => Err(certainty),
        }
    }
}

/// A client that is killed and goes on with the command that it was at.
pub(crate) struct Mortal {
    wire: Wire,
    caller: Caller,
    sequence: u64,
    failures: Vec<String>,
}

impl Mortal {
    pub(crate) async fn new(cluster: &Cluster, client: usize) -> Self {
        let wire = Wire::to(cluster.endpoints()).await;
        let caller = Caller::new(cluster.endpoints(), client);
        Self { wire, caller, sequence: 0, failures: Vec::new() }
    }

    /// Lives as often as it takes until the command is answered.
    async fn carry_out(&mut self, words: &[&str]) -> Value {
        self.sequence += 1;
        let (session, sequence) = (self.caller.session(), self.sequence);
        let (session, number) =
            (format!("--session={session:x}"), format!("--sequence={sequence}"));
        let words = [&[session.as_str(), number.as_str()], words].concat();
        let which = usize::try_from(sequence).expect("it is small") % FATES.len();
        if let Some(moment) = FATES[which] {
            let reached = self.wire.doom(moment, 0);
            let life = Life::begin(&self.wire, &words);
            match life.end_or_die(reached).await {
                Ok((true, answer)) => return answer,
                Ok((false, trouble)) => self.failures.push(trouble.to_string()),
                Err(_certainty) => self.failures.push(format!("killed: {moment:?}")),
            }
        }
        loop {
            self.wire.spare();
            let (is_answered, said) = Life::begin(&self.wire, &words).end().await;
            if is_answered {
                return said;
            }
            assert_ne!(said["error"], "refused", "{said}");
            self.failures.push(said.to_string());
        }
    }
}

impl Adds for Mortal {
    async fn open_session(&mut self) {
        self.caller.open_session().await;
    }

    async fn increment(&mut self, key: &str) -> Option<i64> {
        self.carry_out(&["INCR", key]).await["value"].as_i64()
    }

    async fn append(&mut self, key: &str, text: &str) {
        self.carry_out(&["APPEND", key, text]).await;
    }

    fn failures(self) -> Vec<String> {
        self.failures
    }
}

/// What its client knows of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Applied,
    NotApplied,
    Nothing,
}

/// A client that writes serial numbers behind each other, is killed over most of them, and never repeats one.
pub(crate) struct Forgetful {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Known>>,
}

impl Forgetful {
    const KEY: &str = "forgetful";

    pub(crate) async fn start(cluster: &Cluster) -> Self {
        let (stop, stopping) = watch::channel(false);
        let wire = Wire::to(cluster.endpoints()).await;
        Self { stop, task: tokio::spawn(Self::run(wire, stopping)) }
    }

    async fn run(wire: Wire, stopping: watch::Receiver<bool>) -> Vec<Known> {
        let mut account = Vec::new();
        while !*stopping.borrow() {
            let serial = account.len();
            account.push(Self::append(&wire, serial).await);
        }
        account
    }

    async fn append(wire: &Wire, serial: usize) -> Known {
        let item = format!("{serial};");
        let words = ["APPEND", Self::KEY, &item];
        let Some(moment) = FATES[serial % FATES.len()] else {
            wire.spare();
            return known(Life::begin(wire, &words).end().await);
        };
        let reached = wire.doom(moment, AFTER_OPENING);
        match Life::begin(wire, &words).end_or_die(reached).await {
            Ok(end) => known(end),
            Err(Certainty::Sure) if moment == Moment::Unsent => Known::NotApplied,
            Err(_) => Known::Nothing,
        }
    }

    /// What it was told is so, and what it was not told happened once or not at all.
    pub(crate) async fn check(self, cluster: &Cluster) {
        self.stop.send_replace(true);
        let account = self.task.await.expect("it does not panic");
        let list = Caller::new(cluster.endpoints(), 0).get(Self::KEY).await.unwrap_or_default();
        let found: Vec<usize> =
            list.split_terminator(';').map(|item| item.parse().expect("a number")).collect();
        let once: BTreeSet<usize> = found.iter().copied().collect();
        assert_eq!(once.len(), found.len(), "applied twice: {list}");
        for (serial, known) in account.iter().enumerate() {
            match known {
                Known::Applied => assert!(once.contains(&serial), "{serial} is lost: {list}"),
                Known::NotApplied => assert!(!once.contains(&serial), "{serial} was not sent"),
                Known::Nothing => {}
            }
        }
        let of = |known: Known| account.iter().filter(|of| **of == known).count();
        let unheard = once.iter().filter(|serial| account.get(**serial) == Some(&Known::Nothing));
        let unheard = unheard.count();
        println!(
            "{} appends: {} acknowledged, {} killed before they left, {} killed later, of which {unheard} happened",
            account.len(),
            of(Known::Applied),
            of(Known::NotApplied),
            of(Known::Nothing),
        );
        assert!(unheard > 0 && of(Known::NotApplied) > 0, "nobody was killed in the middle");
    }
}

fn known((is_answered, said): (bool, Value)) -> Known {
    if is_answered {
        return Known::Applied;
    }
    match said["error"].as_str() {
        Some("no-leader" | "busy") => Known::NotApplied,
        _ => Known::Nothing,
    }
}
