//! Every decoder of others' bytes that raft has, fed with the inputs that the fuzzer has found worth keeping (`raft/fuzz`).

#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![expect(clippy::unwrap_used, reason = "here a failed unwrap is a failed test")]

mod bodies;
#[path = "../../../state-machine/tests/decoders/harness.rs"]
mod harness;
#[path = "../../../state-machine/tests/decoders/replay.rs"]
mod replay;
#[path = "../../../state-machine/tests/decoders/scratch.rs"]
mod scratch;
#[path = "../support/simulated_disk.rs"]
mod simulated_disk;
#[path = "../support/mod.rs"]
mod support;

/// One test: the memory that a decoder takes is counted in the whole process.
#[test]
fn the_corpora_harm_nothing() {
    replay::replay(env!("CARGO_MANIFEST_DIR").as_ref(), bodies::TARGETS);
    scratch::clean_up();
}
