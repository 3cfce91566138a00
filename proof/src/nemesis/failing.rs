//! Syncs that fail: strace changes what the system calls of a process return.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::tools::has;

/// For strace to take hold.
const ATTACH: Duration = Duration::from_secs(10);
/// A log under load syncs many times a second; on a disk that is busy with others, less often.
const NEXT_SYNC: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(5);

/// Every sync of a process fails from when this is had until it is let go.
pub(super) struct FailingSyncs(Child);

impl FailingSyncs {
    /// Of all its threads. Strace says nothing when it has them: the kernel does.
    pub(super) async fn of(pid: Pid) -> anyhow::Result<Self> {
        let mut strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"])
            .args(["-e", "inject=fsync,fdatasync:error=EIO:when=1+"])
            .args(["-p", &pid.as_raw_nonzero().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run strace")?;
        let deadline = Instant::now() + ATTACH;
        while !is_traced(pid) {
            if strace.try_wait()?.is_some() {
                let output = strace.wait_with_output().await?;
                anyhow::bail!("strace: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            anyhow::ensure!(Instant::now() < deadline, "strace does not take hold of a process");
            sleep(LOOK).await;
        }
        Ok(Self(strace))
    }

    /// Until the process has ended of it, or long enough.
    pub(super) async fn wait(&mut self) {
        let _ended = timeout(NEXT_SYNC, self.0.wait()).await;
    }

    pub(super) async fn let_go(mut self) -> anyhow::Result<()> {
        self.0.kill().await.context("cannot end strace")
    }
}

/// Why it cannot be done here: tracing may be forbidden.
pub(super) async fn obstacle() -> Option<String> {
    if !has("strace") {
        return Some("needs strace".to_owned());
    }
    try_out().await.err().map(|why| format!("{why:#}"))
}

async fn try_out() -> anyhow::Result<()> {
    let mut victim = Command::new("sleep").arg("60").kill_on_drop(true).spawn()?;
    let pid = victim.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let failing = FailingSyncs::of(pid.context("sleep does not sleep")?).await?;
    failing.let_go().await?;
    victim.kill().await?;
    Ok(())
}

fn is_traced(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    let status = status.unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}
