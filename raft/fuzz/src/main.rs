//! The decoders of raft under libFuzzer; `TARGET` names the one. `scripts/fuzz.sh` runs it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/decoders/bodies/mod.rs"]
mod bodies;
#[path = "../../../state-machine/tests/decoders/harness.rs"]
mod harness;
#[path = "../../../state-machine/tests/decoders/scratch.rs"]
mod scratch;
#[path = "../../tests/support/simulated_disk.rs"]
mod simulated_disk;
#[path = "../../tests/support/mod.rs"]
mod support;

static TARGET: LazyLock<harness::Target> = LazyLock::new(|| {
    let name = std::env::var("TARGET").expect("TARGET names the decoder");
    harness::target(bodies::TARGETS, &name)
});

fuzz_target!(init: LazyLock::force(&TARGET), |bytes: &[u8]| {
    TARGET.feed(bytes);
});
