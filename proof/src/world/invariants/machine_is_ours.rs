//! A state machine lets in the raft whose data it holds, and nobody else: that node of that cluster, and never an older boot of it.

use state_machine::attachment::Attachment;
use state_machine::rpc::Attach;

/// Somebody was let in by a machine that held these data.
pub fn check_let_in(slot: usize, before: Option<Attachment>, attach: &Attach) {
    let Some(ours) = before else { return };
    assert!(
        (ours.cluster, ours.node) == (attach.cluster, attach.node) && ours.boot <= attach.boot,
        "the machine in slot {slot} holds data of {ours:?} and lets in {attach:?}"
    );
}
