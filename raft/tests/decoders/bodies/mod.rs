//! The decoders of raft, each with what stands behind it.

mod frames;
mod peers;

use crate::harness::Target;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "peer_frames",
        run: peers::requests,
        fixed_bytes: 1 << 20,
        factor: 200,
        seeds: peers::request_seeds,
    },
    Target {
        name: "peer_answers",
        run: peers::answers,
        fixed_bytes: 1 << 20,
        factor: 200,
        seeds: peers::answer_seeds,
    },
];
