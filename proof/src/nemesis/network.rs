//! Packets dropped, lost and slowed inside one node's network.

use anyhow::Context as _;

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
        self.run(&format!("iptables -w -A INPUT ! -i lo {some} -j DROP")).await
    }

    pub(super) async fn slow_down(&self) -> anyhow::Result<()> {
        let device = self.device().await?;
        self.run(&format!("tc qdisc replace dev {device} root tbf {SLOW}")).await
    }

    pub(super) async fn heal(&self) -> anyhow::Result<()> {
        self.run("iptables -w -F INPUT").await?;
        let device = self.device().await?;
        // Fails where there is none.
        let _none = self.run(&format!("tc qdisc del dev {device} root")).await;
        Ok(())
    }

    /// An engine gives it another name each time that a container is connected.
    async fn device(&self) -> anyhow::Result<String> {
        let list = run(&format!("{} ip -o -4 addr show scope global", self.enter)).await?;
        let name = list.split_whitespace().nth(1).context("no network device")?;
        Ok(name.to_owned())
    }

    async fn run(&self, command: &str) -> anyhow::Result<()> {
        run(&format!("{} {command}", self.enter)).await.map(drop)
    }
}
