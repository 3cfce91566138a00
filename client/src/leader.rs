//! Where to ask: the endpoints that this client knows and which of them serves it at present. No connections here.

use std::collections::BTreeSet;

use raft::rpc::wire::Endpoint;

/// Most endpoints that are kept beside the configured ones; the oldest make room.
const MAX_LEARNED: usize = 32;

/// The endpoints of a cluster and the one that commands go to. Shared by all commands of a client, so one failure seen
/// by many of them moves it one step only.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// First the configured ones, then those learned from the nodes, oldest first; never empty, no repetitions.
    known: Vec<Endpoint>,
    configured: usize,
    /// Where the search goes on while nobody is preferred; below `known.len()`.
    cursor: usize,
    /// The node that served us last, or that another node named as its leader.
    preferred: Option<Endpoint>,
}

impl Route {
    /// A route over at least one endpoint.
    pub(crate) fn new(configured: &[Endpoint]) -> Self {
        let mut known: Vec<Endpoint> = Vec::with_capacity(configured.len());
        for endpoint in configured {
            if !known.contains(endpoint) {
                known.push(endpoint.clone());
            }
        }
        assert!(!known.is_empty(), "a route needs an endpoint");
        Self { configured: known.len(), known, cursor: 0, preferred: None }
    }

    /// The best endpoint that is not to be avoided.
    pub(crate) fn pick(&self, avoid: &BTreeSet<Endpoint>) -> Option<Endpoint> {
        let rotated = self.known[self.cursor..].iter().chain(&self.known[..self.cursor]);
        self.preferred.iter().chain(rotated).find(|endpoint| !avoid.contains(endpoint)).cloned()
    }

    /// An endpoint has served a request: stay with it, unless a better one was named meanwhile.
    pub(crate) fn serves(&mut self, endpoint: &Endpoint) {
        if self.preferred.is_none() {
            self.preferred = Some(endpoint.clone());
        }
    }

    /// A node names the leader.
    pub(crate) fn hinted(&mut self, leader: &Endpoint) {
        self.learn(leader);
        self.preferred = Some(leader.clone());
    }

    /// An endpoint has failed: nobody goes there first until it serves again.
    pub(crate) fn failed(&mut self, endpoint: &Endpoint) {
        if self.preferred.as_ref() == Some(endpoint) {
            self.preferred = None;
        }
        if &self.known[self.cursor] == endpoint {
            self.cursor = (self.cursor + 1) % self.known.len();
        }
    }

    /// Another way into the cluster, as a node tells.
    pub(crate) fn learn(&mut self, endpoint: &Endpoint) {
        if self.known.contains(endpoint) {
            return;
        }
        if self.known.len() == self.configured + MAX_LEARNED {
            self.known.remove(self.configured);
            self.cursor = 0;
        }
        self.known.push(endpoint.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::Tcp(format!("localhost:{port}"))
    }

    fn route(ports: &[u16]) -> Route {
        Route::new(&ports.iter().map(|port| endpoint(*port)).collect::<Vec<_>>())
    }

    fn pick(route: &Route, avoid: &[u16]) -> Option<Endpoint> {
        route.pick(&avoid.iter().map(|port| endpoint(*port)).collect())
    }

    #[test]
    fn search_goes_round_and_skips_what_is_to_be_avoided() {
        let mut route = route(&[1, 2, 3, 2]);
        assert_eq!(pick(&route, &[]), Some(endpoint(1)));
        assert_eq!(pick(&route, &[1]), Some(endpoint(2)));
        assert_eq!(pick(&route, &[1, 2, 3]), None);
        route.failed(&endpoint(1));
        route.failed(&endpoint(2));
        assert_eq!(pick(&route, &[]), Some(endpoint(3)));
        assert_eq!(pick(&route, &[3]), Some(endpoint(1)));
    }

    #[test]
    fn one_failure_seen_by_many_commands_moves_one_step() {
        let mut route = route(&[1, 2, 3]);
        for _ in 0..16 {
            route.failed(&endpoint(1));
        }
        assert_eq!(pick(&route, &[]), Some(endpoint(2)));
    }

    #[test]
    fn named_leader_is_asked_first_until_it_fails_and_stays_known() {
        let mut route = route(&[1]);
        route.hinted(&endpoint(9));
        assert_eq!(pick(&route, &[]), Some(endpoint(9)));
        assert_eq!(pick(&route, &[9]), Some(endpoint(1)));
        route.failed(&endpoint(9));
        assert_eq!(pick(&route, &[]), Some(endpoint(1)));
        assert_eq!(pick(&route, &[1]), Some(endpoint(9)));
    }

    #[test]
    fn one_that_serves_is_kept() {
        let mut route = route(&[1, 2]);
        route.serves(&endpoint(2));
        route.failed(&endpoint(1));
        assert_eq!(pick(&route, &[]), Some(endpoint(2)));
        route.hinted(&endpoint(1));
        route.serves(&endpoint(2));
        assert_eq!(pick(&route, &[]), Some(endpoint(1)), "a late answer does not undo the hint");
    }

    #[test]
    fn learned_endpoints_are_bounded_and_configured_ones_never_leave() {
        let mut route = route(&[1, 2]);
        for port in 100..1000 {
            route.learn(&endpoint(port));
            route.failed(&endpoint(port));
        }
        assert_eq!(route.known.len(), 2 + MAX_LEARNED);
        assert_eq!(route.known[..2], [endpoint(1), endpoint(2)]);
        assert_eq!(route.known.last(), Some(&endpoint(999)));
    }
}
