//! Figure 13 of the paper: what a replica does with a snapshot of its leader, and section 5.4.3: what is committed stays.

use raft::consensus::{
    Envelope, Event, Index, Input, Message, NodeId, SnapshotMeta, SnapshotResponse, Term,
};

use super::{append, entry, from, held, id, replica, step};
use crate::support::membership;
use crate::support::node::Node;

fn snapshot(index: u64, term: u64) -> SnapshotMeta {
    let membership = membership(&[1, 2, 3], &[]);
    SnapshotMeta { last: id(index, term), membership, membership_index: Index(1) }
}

fn offer(node: &mut Node, term: u64, meta: &SnapshotMeta) -> Vec<Envelope> {
    step(node, from(2, term, Message::InstallSnapshot(meta.clone())))
}

/// All of it is durable.
fn receive(node: &mut Node, meta: &SnapshotMeta) -> Vec<Envelope> {
    node.disk.store_snapshot(meta.clone());
    step(node, Input::SnapshotReceived(meta.clone()))
}

/// The only answer to an offer: whether the snapshot is there.
fn is_installed(sent: &[Envelope]) -> bool {
    match sent {
        [Envelope { body: Message::SnapshotResponse(SnapshotResponse { installed }), .. }] => {
            installed.is_some()
        }
        other => panic!("not one answer to an offer: {other:?}"),
    }
}

#[test]
fn s7_install_snapshot_1_an_old_term_is_refused() {
    let mut node = replica(5, &[4]);
    let sent = offer(&mut node, 4, &snapshot(9, 4));
    assert!(!is_installed(&sent));
    assert_eq!(sent[0].term, Term(5), "the answer tells the sender our term");
}

#[test]
fn s7_install_snapshot_5_it_is_answered_when_all_of_it_is_durable() {
    let mut node = replica(5, &[4]);
    let meta = snapshot(9, 5);
    assert!(offer(&mut node, 5, &meta).is_empty(), "nothing is there yet");
    assert_eq!(held(&node), [(2, 4)], "an offer alone changes nothing");
    assert!(is_installed(&receive(&mut node, &meta)));
}

#[test]
fn s7_install_snapshot_5_an_older_one_is_discarded() {
    let mut node = replica(5, &[2, 4, 4]);
    step(&mut node, append(2, 5, id(4, 4), &[], 4));
    assert!(is_installed(&offer(&mut node, 5, &snapshot(3, 4))), "what it includes is committed");
    assert_eq!(held(&node), [(2, 2), (3, 4), (4, 4)]);
    assert_eq!(node.raft().first_index(), Index(1));
}

#[test]
fn s7_install_snapshot_6_what_follows_its_last_entry_stays() {
    let mut node = replica(5, &[2, 4, 5, 5]);
    let meta = snapshot(3, 4);
    offer(&mut node, 5, &meta);
    assert!(is_installed(&receive(&mut node, &meta)));
    assert_eq!(node.raft().first_index(), Index(4));
    assert_eq!(node.raft().last(), id(5, 5));
    assert_eq!(node.raft().commit_index(), Index(3));
}

#[test]
fn s7_install_snapshot_7_without_its_last_entry_the_whole_log_goes() {
    for meta in [snapshot(3, 5), snapshot(9, 5)] {
        let mut node = replica(5, &[2, 4, 4]);
        offer(&mut node, 5, &meta);
        assert!(is_installed(&receive(&mut node, &meta)));
        assert_eq!(node.raft().last(), meta.last);
        assert_eq!(node.raft().first_index(), meta.last.index.next());
    }
}

#[test]
fn s7_install_snapshot_8_its_configuration_counts() {
    let mut node = replica(5, &[2]);
    let meta = SnapshotMeta {
        membership: membership(&[1, 2, 3], &[4]),
        membership_index: Index(7),
        ..snapshot(9, 5)
    };
    offer(&mut node, 5, &meta);
    receive(&mut node, &meta);
    let status = node.raft().status();
    assert_eq!((status.membership, status.membership_index), (meta.membership, Index(7)));
}

#[test]
fn s5_4_3_what_contradicts_a_committed_entry_is_refused() {
    let mut node = replica(5, &[2, 4, 4]);
    step(&mut node, append(2, 5, id(4, 4), &[], 3));
    let contradictions =
        [append(2, 5, id(2, 2), &[entry(3, 5)], 0), append(2, 5, id(3, 3), &[entry(4, 5)], 0)];
    for contradiction in contradictions {
        let output = node.step(contradiction);
        assert!(output.persist.is_none() && output.messages.is_empty());
        let dropped =
            Event::Dropped { from: NodeId(2), reason: "it contradicts a committed entry" };
        assert_eq!(output.events, [dropped]);
    }
    assert_eq!(held(&node), [(2, 2), (3, 4), (4, 4)]);
}
