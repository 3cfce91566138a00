//! The decoders of raft, each with what stands behind it.

mod contracts;
mod entries;
mod files;
#[path = "../../../../state-machine/tests/decoders/frames.rs"]
mod frames;
mod peers;
mod ports;
#[path = "../../../../state-machine/tests/decoders/settings.rs"]
mod settings;
mod snapshots;
mod wal;

use raft::rpc::wire::Codec;

use crate::harness::Target;

/// A message that is only decoded.
const MESSAGE: Target =
    Target { name: "", run: |_| false, fixed_bytes: 64 << 10, factor: 100, seeds: Vec::new };
/// Bytes that reach a core, a log or a store, which has memory of its own.
const REPLICA: Target = Target { fixed_bytes: 1 << 20, factor: 200, ..MESSAGE };
/// Bytes on a connection. The framing makes room for the longest frame as soon as its length is said.
const PORT: Target = Target { fixed_bytes: 9 << 20, ..MESSAGE };

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "peer_frames", run: peers::requests, seeds: peers::request_seeds, ..REPLICA },
    Target { name: "peer_answers", run: peers::answers, seeds: peers::answer_seeds, ..REPLICA },
    Target { name: "entries", run: entries::batch, seeds: entries::batch_seeds, ..MESSAGE },
    Target {
        name: "client_requests",
        run: contracts::client_requests,
        seeds: contracts::client_request_seeds,
        ..MESSAGE
    },
    Target {
        name: "client_answers",
        run: contracts::client_answers,
        seeds: contracts::client_answer_seeds,
        ..MESSAGE
    },
    Target {
        name: "machine_answers",
        run: contracts::machine_answers,
        seeds: contracts::machine_answer_seeds,
        ..MESSAGE
    },
    Target {
        name: "member_answers",
        run: contracts::member_answers,
        seeds: contracts::member_answer_seeds,
        ..MESSAGE
    },
    Target {
        name: "wal_directory",
        run: wal::directory,
        seeds: wal::seeds,
        fixed_bytes: 4 << 20,
        ..REPLICA
    },
    Target { name: "snapshot_file", run: snapshots::file, seeds: snapshots::file_seeds, ..REPLICA },
    Target {
        name: "snapshot_pieces",
        run: snapshots::pieces,
        seeds: snapshots::piece_seeds,
        ..REPLICA
    },
    Target {
        name: "session_image",
        run: snapshots::session_image,
        seeds: snapshots::session_image_seeds,
        ..REPLICA
    },
    Target { name: "identity_file", run: files::identity, seeds: files::identity_seeds, ..MESSAGE },
    Target { name: "settings_file", run: files::settings, seeds: files::settings_seeds, ..REPLICA },
    Target { name: "raft_port", run: ports::raft_port, seeds: ports::raft_port_seeds, ..PORT },
    Target { name: "http_port", run: ports::http_port, seeds: ports::http_port_seeds, ..PORT },
];
