//! How many connections there is room for: a log that finds no free file descriptor ends the process, so clients must not
//! take the last ones.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Clients at once, at most.
const MAX_CLIENTS: u64 = 1024;
/// HTTP connections at once, at most.
const MAX_HTTP: u64 = 512;
/// Connections at once whose hello has not come yet, at most.
const MAX_STRANGERS: u64 = 256;

/// Connections that may be open at once. Peers are not counted: they are few, and must always get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Clients.
    pub clients: usize,
    /// Connections by HTTP. Apart from the clients, so that many of these do not keep out who asks how the node is.
    pub http: usize,
    /// Those whose hello has not come yet.
    pub strangers: usize,
}

impl Room {
    /// Raises the number of files that this process may open as far as the system lets it, and divides it.
    pub fn make() -> Self {
        let mut limit = getrlimit(Resource::Nofile);
        let wanted = Rlimit { current: limit.maximum, ..limit };
        if setrlimit(Resource::Nofile, wanted).is_ok() {
            limit = wanted;
        }
        let room = Self::within(limit.current.unwrap_or(u64::MAX));
        if room != Self::within(u64::MAX) {
            tracing::warn!(
                open_files = limit.current,
                clients = room.clients,
                http = room.http,
                "few files may be open (ulimit -n), so fewer clients are let in"
            );
        }
        room
    }

    /// Of the files three eighths are for clients, one for HTTP, two for strangers, and the rest for the log, the peers
    /// and the links.
    fn within(open_files: u64) -> Self {
        let at_most = |files: u64, most| usize::try_from(files.min(most)).unwrap_or(usize::MAX);
        Self {
            clients: at_most(open_files / 8 * 3, MAX_CLIENTS),
            http: at_most(open_files / 8, MAX_HTTP),
            strangers: at_most(open_files / 4, MAX_STRANGERS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_files_is_never_given_away() {
        for (open_files, clients, http, strangers) in
            [(64, 24, 8, 16), (256, 96, 32, 64), (1024, 384, 128, 256), (1 << 20, 1024, 512, 256)]
        {
            assert_eq!(Room::within(open_files), Room { clients, http, strangers }, "{open_files}");
        }
    }
}
