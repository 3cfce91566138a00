//! A running process.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::wait::eventually;

/// A process; killed, by its own id, when dropped.
pub(crate) struct Process {
    child: Child,
}

/// What its ready file says: process id and addresses by name.
pub(crate) type Addresses = Value;

impl Process {
    /// Starts it; what it says goes to the end of `log`.
    pub(crate) fn spawn(command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).expect("log file opens");
        let child = command.stderr(log).spawn().expect("process starts");
        Self { child }
    }

    /// Waits until it serves. The error is its exit status, if it ends instead.
    pub(crate) async fn serving(&mut self, ready_file: &Path) -> Result<Addresses, ExitStatus> {
        eventually("ready file", async || {
            if let Ok(json) = fs::read(ready_file) {
                return Some(Ok(serde_json::from_slice(&json).expect("ready files are JSON")));
            }
            self.child.try_wait().expect("our child").map(Err)
        })
        .await
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// kill -9, and no more of it when this returns.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Waits until it ends by itself; its exit code, none for a signal.
    pub(crate) async fn exit_code(mut self) -> Option<i32> {
        let exit = async || self.child.try_wait().expect("our child");
        eventually("end of a process", exit).await.code()
    }

    /// Starts one that is expected to refuse; its exit code and what it says.
    pub(crate) async fn refusal(command: &mut Command, log: &Path) -> (Option<i32>, String) {
        // Of an earlier one, if any.
        let _none = fs::remove_file(log);
        let code = Self::spawn(command, log).exit_code().await;
        (code, fs::read_to_string(log).expect("it was just written"))
    }

    fn end(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
