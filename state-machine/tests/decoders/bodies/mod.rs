//! The decoders of the machine's side, each with what stands behind it.

mod calls;
mod commands;
mod files;
#[path = "../frames.rs"]
mod frames;
#[path = "../settings.rs"]
mod settings;

use state_machine::wire::Codec;

use crate::harness::Target;

/// Bytes that reach a machine, which has memory of its own.
const MACHINE: Target =
    Target { name: "", run: |_| false, fixed_bytes: 1 << 20, factor: 200, seeds: Vec::new };

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "machine_requests",
        run: calls::requests,
        seeds: calls::request_seeds,
        ..MACHINE
    },
    Target { name: "restore_stream", run: calls::restore, seeds: calls::restore_seeds, ..MACHINE },
    Target { name: "entry_batch", run: commands::batch, seeds: commands::batch_seeds, ..MACHINE },
    Target { name: "kv_commands", run: commands::kv, seeds: commands::kv_seeds, ..MACHINE },
    Target { name: "kv_answers", run: commands::answers, seeds: commands::answer_seeds, ..MACHINE },
    Target {
        name: "attachment_file",
        run: files::attachment,
        seeds: files::attachment_seeds,
        ..MACHINE
    },
    Target {
        name: "machine_settings",
        run: files::settings,
        seeds: files::settings_seeds,
        ..MACHINE
    },
];
