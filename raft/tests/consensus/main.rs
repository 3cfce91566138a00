//! Conversations of a few cores, written down. Each script under `scripts/` sets up a cluster, does something to it and shows
//! what the nodes say; its output was read and found right once, and must not change unnoticed. Read them as examples:
//! begin with `replication/`.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p raft --test consensus` writes the output anew; read the difference.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod commands;

use std::path::{Path, PathBuf};

use cluster::Cluster;

#[test]
fn scripts() {
    let mut scripts = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/consensus/scripts"), &mut scripts);
    assert!(scripts.len() >= 80, "only {} scripts found", scripts.len());
    for script in scripts {
        println!("{}", script.display());
        goldenscript::run(&mut Cluster::default(), &script).expect("the script runs");
    }
}

fn collect(directory: &Path, scripts: &mut Vec<PathBuf>) {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("the directory of scripts can be read")
        .map(|entry| entry.expect("its entries can be read").path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() { collect(&path, scripts) } else { scripts.push(path) }
    }
}
