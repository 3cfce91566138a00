//! Part 3A: somebody leads, and nobody leads without a majority.

use super::{SECOND, on_both_networks};

#[test]
fn initial_election() {
    on_both_networks(3, |mut lab| {
        lab.check_one_leader();
        let term = lab.check_terms();
        assert!(term >= 1, "term {term}");
        lab.sleep(2 * SECOND);
        assert_eq!(lab.check_terms(), term, "the term changed though nothing failed");
        lab.check_one_leader();
    });
}

/// A leader is cut off and comes back; then there is no majority, and then there is one again.
#[test]
fn re_election() {
    on_both_networks(3, |mut lab| {
        let first = lab.check_one_leader();
        lab.disconnect(first);
        lab.check_one_leader();
        lab.connect(first);
        let second = lab.check_one_leader();

        let another = lab.after(second, 1);
        lab.disconnect(second);
        lab.disconnect(another);
        lab.sleep(2 * SECOND);
        lab.check_no_leader();

        lab.connect(another);
        lab.check_one_leader();
        lab.connect(second);
        lab.check_one_leader();
    });
}

/// Seven servers, of which up to three are cut off in each round.
#[test]
fn many_elections() {
    on_both_networks(7, |mut lab| {
        lab.check_one_leader();
        for _ in 0..10 {
            let alone = [(); 3].map(|()| lab.random_server());
            lab.disconnect_all(&alone);
            lab.check_one_leader();
            lab.connect_all(&alone);
        }
        lab.check_one_leader();
    });
}
