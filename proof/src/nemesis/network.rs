//! Packets dropped, lost and slowed inside one node's network.

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
        self.run(&format!("iptables -w -A INPUT -s {address} -j DROP")).await
    }

    pub(super) async fn lose(&self) -> anyhow::Result<()> {
        let some = format!("-m statistic --mode random --probability {LOSS}");
        self.run(&format!("iptables -w -A INPUT -i eth0 {some} -j DROP")).await
    }

    pub(super) async fn slow_down(&self) -> anyhow::Result<()> {
        self.run(&format!("tc qdisc replace dev eth0 root tbf {SLOW}")).await
    }

    pub(super) async fn heal(&self) -> anyhow::Result<()> {
        self.run("iptables -w -F INPUT").await?;
        // Fails where there is none.
        let _none = self.run("tc qdisc del dev eth0 root").await;
        Ok(())
    }

    async fn run(&self, command: &str) -> anyhow::Result<()> {
        run(&format!("{} {command}", self.enter)).await.map(drop)
    }
}
