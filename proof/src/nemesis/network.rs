//! Packets dropped, lost and slowed inside one node's network.

use anyhow::Context as _;

use super::fault::{Lacks, Need};
use super::tools::run;

/// How much of what comes to a lossy node is lost.
const LOSS: &str = "0.2";
/// Far less than the log grows by.
const SLOW: &str = "rate 2mbit burst 16kb latency 300ms";

/// A way into a node's network: the words to put before a command.
#[derive(Debug, Clone)]
pub(super) struct Network {
    pub(super) enter: String,
}

impl Network {
    /// What comes from an address is dropped.
    pub(super) async fn ignore(&self, address: &str) -> anyhow::Result<()> {
        self.run(&format!("iptables -w -A INPUT -s {address} -j DROP")).await.map(drop)
    }

    pub(super) async fn lose(&self) -> anyhow::Result<()> {
        let some = format!("-m statistic --mode random --probability {LOSS}");
        self.run(&format!("iptables -w -A INPUT ! -i lo {some} -j DROP")).await.map(drop)
    }

    pub(super) async fn slow_down(&self) -> anyhow::Result<()> {
        let device = self.device().await?;
        self.run(&format!("tc qdisc replace dev {device} root tbf {SLOW}")).await.map(drop)
    }

    /// Undoes all of it. How many packets were dropped, or had to wait for the slow link.
    pub(super) async fn heal(&self, slowed: bool, cut: bool) -> anyhow::Result<u64> {
        let mut touched = 0;
        if cut {
            let rules = self.run("iptables -w -nvxL INPUT").await?;
            touched += dropped(&rules);
            self.run("iptables -w -F INPUT").await?;
        }
        if slowed {
            let device = self.device().await?;
            let queue = self.run(&format!("tc -s qdisc show dev {device} root")).await?;
            touched += held_back(&queue);
            self.run(&format!("tc qdisc del dev {device} root")).await?;
        }
        Ok(touched)
    }

    /// What of all this cannot be done here: a kernel may have been built without it, and a user may not be allowed to.
    pub(super) async fn lacks(&self) -> Lacks {
        let mut lacks = Lacks::new();
        let mut note = |need, tried: anyhow::Result<u64>| {
            if let Err(why) = tried {
                lacks.insert(need, format!("{why:#}"));
            }
        };
        note(Need::Cut, self.try_out(self.ignore("192.0.2.1"), (false, true)).await);
        note(Need::Loss, self.try_out(self.lose(), (false, true)).await);
        note(Need::Delay, self.try_out(self.slow_down(), (true, false)).await);
        lacks
    }

    async fn try_out(
        &self,
        begin: impl Future<Output = anyhow::Result<()>>,
        (slowed, cut): (bool, bool),
    ) -> anyhow::Result<u64> {
        begin.await?;
        self.heal(slowed, cut).await
    }

    /// An engine gives it another name each time that a container is connected.
    async fn device(&self) -> anyhow::Result<String> {
        let list = run(&format!("{} ip -o -4 addr show scope global", self.enter)).await?;
        let name = list.split_whitespace().nth(1).context("no network device")?;
        Ok(name.to_owned())
    }

    async fn run(&self, command: &str) -> anyhow::Result<String> {
        run(&format!("{} {command}", self.enter)).await
    }
}

/// Of the rules that drop, as iptables lists them: packets, bytes, target.
fn dropped(rules: &str) -> u64 {
    let rules = rules.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rules
        .filter(|words| words.get(2) == Some(&"DROP"))
        .filter_map(|words| words[0].parse::<u64>().ok())
        .sum()
}

/// As tc says it: "Sent 4711 bytes 12 pkt (dropped 3, overlimits 34 requeues 0)". What was sent may have passed as if the link were fast.
fn held_back(queue: &str) -> u64 {
    let is_between = |c: char| c.is_whitespace() || "(),".contains(c);
    let words: Vec<_> = queue.split(is_between).filter(|word| !word.is_empty()).collect();
    words
        .windows(2)
        .filter(|pair| ["dropped", "overlimits"].contains(&pair[0]))
        .filter_map(|pair| pair[1].parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_from_what_the_tools_print() {
        let rules = "Chain INPUT (policy ACCEPT 9 packets, 900 bytes)\n\
                     pkts bytes target prot opt in out source destination\n\
                     12 700 DROP 0 -- * * 10.77.0.2 0.0.0.0/0\n\
                     30 1800 DROP 0 -- !lo * 0.0.0.0/0 0.0.0.0/0 statistic mode random probability 0.2\n";
        assert_eq!(dropped(rules), 42);
        assert_eq!(dropped("Chain INPUT (policy DROP 3 packets, 180 bytes)\n"), 0);
        let queue = "qdisc tbf 8001: dev eth0 root refcnt 2 rate 2Mbit burst 16Kb lat 300ms\n \
                     Sent 123456 bytes 789 pkt (dropped 12, overlimits 34 requeues 0)\n";
        assert_eq!(held_back(queue), 46);
        let fast = "Sent 123456 bytes 789 pkt (dropped 0, overlimits 0 requeues 0)";
        assert_eq!(held_back(fast), 0, "all of it passed at once");
        assert_eq!(held_back(""), 0);
    }
}
