//! Settings and logs of the real processes: where values come from, and filters that change while they run.

use std::fs;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::cluster::{Cluster, QUICK};
use crate::harness::process::Process;
use crate::harness::program::Program;
use crate::harness::wait::eventually;
use crate::typed::{ask, say};

#[test]
fn what_is_in_effect_is_printed_with_its_source_and_starts_nothing() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("settings.toml");
    fs::write(&file, "port_base = 25010\n").unwrap();
    for program in Program::ALL {
        let print = |file: &std::path::Path| {
            let mut command = program.command(&root.path().join("data"));
            command.env("OUTRIGGER_BIND", "::1").env("OUTRIGGER_READY_FILE", "");
            let config = format!("--config={}", file.display());
            let output = command.args([&config, "--print-config"]).stdout(Stdio::piped()).output();
            let output = output.unwrap();
            assert_eq!(output.status.code(), Some(0), "{program:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let text = print(&file);
        for (key, value, source) in [
            ("port_base", "25010", &*format!("file {:?}, line 1", file.display().to_string())),
            ("bind", "\"::1\"", "environment OUTRIGGER_BIND"),
            ("log", "\"info,tarpc=off\"", "environment RUST_LOG"),
            ("data_dir", "", "flag --data-dir"),
            ("log_format", "\"text\"", "default"),
        ] {
            let line = text.lines().find(|line| line.starts_with(&format!("{key} = ")));
            let line = line.unwrap_or_else(|| panic!("{program:?} {key}: {text}"));
            assert!(line.contains(value) && line.ends_with(&format!("# {source}")), "{line}");
        }
        let again = root.path().join("again.toml");
        fs::write(&again, &text).unwrap();
        let values = |text: &str| {
            let settings = text.lines().filter(|line| !line.starts_with('#'));
            let value = |line: &str| line.split(" # ").next().unwrap().trim_end().to_owned();
            settings.map(value).collect::<Vec<_>>()
        };
        assert_eq!(values(&print(&again)), values(&text), "{program:?}");
    }
    assert!(!root.path().join("data").exists());
}

#[tokio::test]
async fn the_log_of_a_process_is_json_if_wanted_and_follows_its_file_at_sighup() {
    for program in Program::ALL {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::write(path("toml"), "log = \"info\"\nlog_format = \"json\"\n").unwrap();
        let mut command = program.command(&path("data"));
        command.env_remove("RUST_LOG").args(["--port-base=0", "--config"]).arg(path("toml"));
        command.arg("--ready-file").arg(path("ready"));
        let mut process = Process::spawn(&mut command, &path("log"));
        process.serving(&path("ready")).await.unwrap();
        for (file, words) in [
            ("log = \"inof\"", &["stays as it is", "is no level", "line 1"][..]),
            ("log = \"info", &["stays as it is", "TOML"]),
            ("log = \"info,tarpc=error\"", &["log filter set", "tarpc=error", "line 1"]),
            ("log = \"debug\"\nbind = \"::1\"", &["need a restart", "bind", "log_format"]),
        ] {
            fs::write(path("toml"), file).unwrap();
            let said_before = fs::read_to_string(path("log")).unwrap().len();
            process.signal(Signal::HUP);
            eventually(&format!("{program:?}: {words:?}"), async || {
                let said = fs::read_to_string(path("log")).unwrap();
                let news = &said[said_before..];
                words.iter().all(|word| news.contains(word)).then_some(())
            })
            .await;
        }
        assert!(process.runs());
        process.kill();
        for line in fs::read_to_string(path("log")).unwrap().lines() {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| {
                panic!("{program:?} {error}: {line}");
            });
            assert!(value["level"].is_string(), "{line}");
        }
    }
}

#[tokio::test]
async fn the_filter_of_a_node_is_shown_and_changed_by_a_client() {
    let mut cluster = Cluster::form(1, QUICK).await;
    let through = cluster.endpoints();
    let now = || say(&through, &["log-filter"]);
    let first = now();
    assert_eq!(first, "n0 logs info,tarpc=off");
    let refused = ask(&through, &["--output=json", "log-filter", "inof"]);
    assert_eq!((refused.code, &refused.json()["error"]), (Some(1), &"refused".into()));
    assert!(refused.out.contains("is no level"), "{}", refused.out);
    assert_eq!(now(), first);
    let told = ask(&through, &["--output=json", "log-filter", "debug"]).json();
    assert_eq!(told, serde_json::json!({ "node": "n0", "filter": "debug" }));
    assert_eq!(now(), "n0 logs debug");
    assert!(cluster.node(0).log_text(Program::Raft).contains("log filter set by a client"));
    cluster.node(0).signal(Program::Raft, Signal::HUP);
    eventually("the filter of the settings", async || (now() == first).then_some(())).await;
}
