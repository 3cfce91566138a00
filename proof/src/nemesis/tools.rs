//! Other programs.

use std::env;
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::Command;

/// Whether a program can be found.
pub fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Runs a command, its words separated by spaces; what it printed.
pub(super) async fn run(command: &str) -> anyhow::Result<String> {
    let words: Vec<_> = command.split_whitespace().collect();
    let (program, arguments) = words.split_first().context("an empty command")?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{command}: {}: {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
