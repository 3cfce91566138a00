//! Every decoder of others' bytes that member has, fed with the inputs that the fuzzer has found worth keeping
//! (`member/fuzz`).

#![expect(clippy::unwrap_used, reason = "here a failed unwrap is a failed test")]

mod bodies;
#[path = "../../../state-machine/tests/decoders/harness.rs"]
mod harness;
#[path = "../../../state-machine/tests/decoders/replay.rs"]
mod replay;
#[path = "../../../state-machine/tests/decoders/scratch.rs"]
mod scratch;

/// One test: the memory that a decoder takes is counted in the whole process.
#[test]
fn the_corpora_harm_nothing() {
    replay::replay(env!("CARGO_MANIFEST_DIR").as_ref(), bodies::TARGETS);
    scratch::clean_up();
}
