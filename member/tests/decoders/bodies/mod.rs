//! The decoders of the member daemon, each with what stands behind it.

mod datagrams;
mod files;
#[path = "../../../../state-machine/tests/decoders/frames.rs"]
mod frames;
mod requests;
#[path = "../../../../state-machine/tests/decoders/settings.rs"]
mod settings;

use member::wire::Codec;

use crate::harness::Target;

const MEMBER: Target =
    Target { name: "", run: |_| false, fixed_bytes: 256 << 10, factor: 200, seeds: Vec::new };

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "plain_datagrams",
        run: datagrams::plain,
        seeds: datagrams::plain_seeds,
        ..MEMBER
    },
    Target {
        name: "sealed_datagrams",
        run: datagrams::sealed,
        seeds: datagrams::sealed_seeds,
        ..MEMBER
    },
    Target { name: "bodies", run: datagrams::bodies, seeds: datagrams::body_seeds, ..MEMBER },
    Target {
        name: "member_requests",
        run: requests::requests,
        seeds: requests::request_seeds,
        ..MEMBER
    },
    Target { name: "saved_state", run: files::saved, seeds: files::saved_seeds, ..MEMBER },
    Target {
        name: "member_settings",
        run: files::settings,
        seeds: files::settings_seeds,
        fixed_bytes: 1 << 20,
        ..MEMBER
    },
];
