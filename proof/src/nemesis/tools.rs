//! Other programs.

use std::env;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;
use tokio::time::timeout;

/// Of one command: a container's own time to stop, twice, and more.
const LIMIT: Duration = Duration::from_mins(2);

/// Whether a program can be found.
pub(super) fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Runs a command, its words separated by spaces; what it printed.
pub(super) async fn run(command: &str) -> anyhow::Result<String> {
    let words: Vec<_> = command.split_whitespace().collect();
    run_words(&words).await
}

/// Runs a command whose words may hold spaces; what it printed.
pub(super) async fn run_words(words: &[&str]) -> anyhow::Result<String> {
    Ok(String::from_utf8_lossy(&output(words).await?.stdout).into_owned())
}

/// The same; all that it printed.
pub(super) async fn output(words: &[&str]) -> anyhow::Result<Output> {
    let (program, arguments) = words.split_first().context("an empty command")?;
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(LIMIT, output)
        .await
        .with_context(|| format!("{}: no end after {} s", words.join(" "), LIMIT.as_secs()))?
        .with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    anyhow::ensure!(status.success(), "{}: {status}: {}", words.join(" "), said.trim());
    Ok(output)
}
