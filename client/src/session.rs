//! Sessions: what makes a retry safe. A command keeps its session and sequence number over all its attempts, and the
//! cluster applies each pair once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft::rpc::client::SESSION_WINDOW;
use tokio::sync::{Notify, OnceCell};
use tokio::time::Instant;

use crate::renewal::Renewal;

/// The name of a command: the cluster applies it once, however often it is sent under this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// The session, given by the cluster; never zero.
    pub session: u64,
    /// The command's number within it; from 1.
    pub sequence: u64,
}

/// The session of a client: opened at its first write, replaced when the cluster has forgotten it.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    current: Mutex<Arc<Session>>,
}

/// One session, or the intention to open one.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// Empty until the cluster has given one.
    pub(crate) id: OnceCell<u64>,
    window: Mutex<Window>,
    room: Notify,
    /// When the last request was sent that has counted as a use.
    used: Mutex<Option<Instant>>,
    renewal: Mutex<Option<Renewal>>,
}

/// The number of a command under way. Dropping it says that nobody will send the command again.
#[derive(Debug)]
pub(crate) struct Ticket {
    session: Arc<Session>,
    sequence: u64,
}

impl Sessions {
    pub(crate) fn current(&self) -> Arc<Session> {
        Arc::clone(&lock(&self.current))
    }

    /// Takes the present session away: the next command opens another.
    pub(crate) fn take(&self) -> Arc<Session> {
        std::mem::take(&mut *lock(&self.current))
    }

    /// The cluster does not know this session any more: the next command opens another. Commands under way keep theirs.
    pub(crate) fn forget(&self, session: u64) {
        let mut current = lock(&self.current);
        if current.id.get() == Some(&session) {
            *current = Arc::default();
        }
    }
}

impl Session {
    /// Takes the next number, as soon as it is within the window of those under way.
    pub(crate) async fn ticket(self: &Arc<Self>) -> Ticket {
        loop {
            let room = self.room.notified();
            if let Some(sequence) = self.window().begin() {
                return Ticket { session: Arc::clone(self), sequence };
            }
            room.await;
        }
    }

    /// A request that was sent then is carried out: the cluster took the session for used at some moment after that.
    pub(crate) fn note_use(&self, sent: Instant) {
        let mut used = lock(&self.used);
        *used = (*used).max(Some(sent));
    }

    /// When it was used last, as far as is known; none before it is open.
    pub(crate) fn last_used(&self) -> Option<Instant> {
        *lock(&self.used)
    }

    /// Renews it from now on for as long as somebody holds it.
    pub(crate) fn keep(&self, renewal: Renewal) {
        *lock(&self.renewal) = Some(renewal);
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        lock(&self.window)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ticket {
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Below this number, this client will send nothing again. Grows between the attempts of a command.
    pub(crate) fn acked_below(&self) -> u64 {
        self.session.window().acked_below()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.session.window().finish(self.sequence);
        self.session.room.notify_waiters();
    }
}

/// The sequence numbers under way.
#[derive(Debug)]
struct Window {
    /// The next free number.
    next: u64,
    /// Numbers under way, all below `next`, all from `acked_below`.
    open: BTreeSet<u64>,
}

impl Default for Window {
    fn default() -> Self {
        Self { next: 1, open: BTreeSet::new() }
    }
}

impl Window {
    fn acked_below(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next)
    }

    fn begin(&mut self) -> Option<u64> {
        let sequence = self.next;
        if sequence >= self.acked_below() + SESSION_WINDOW {
            return None;
        }
        self.open.insert(sequence);
        self.next += 1;
        Some(sequence)
    }

    fn finish(&mut self, sequence: u64) {
        self.open.remove(&sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acked_below_is_the_lowest_number_under_way() {
        let mut window = Window::default();
        assert_eq!(window.acked_below(), 1);
        let numbers: Vec<_> = (0..3).map(|_| window.begin().unwrap()).collect();
        assert_eq!((numbers, window.acked_below()), (vec![1, 2, 3], 1));
        window.finish(2);
        assert_eq!(window.acked_below(), 1);
        window.finish(1);
        assert_eq!(window.acked_below(), 3);
        window.finish(3);
        assert_eq!(window.acked_below(), 4);
    }

    #[test]
    fn one_slow_command_holds_the_window_not_the_count() {
        let mut window = Window::default();
        let slow = window.begin().unwrap();
        while let Some(sequence) = window.begin() {
            window.finish(sequence);
        }
        assert_eq!((window.next, window.open.len()), (slow + SESSION_WINDOW, 1));
        window.finish(slow);
        assert_eq!(window.begin(), Some(slow + SESSION_WINDOW));
    }

    #[tokio::test]
    async fn full_window_waits_for_a_ticket_to_be_dropped() {
        let session = Arc::<Session>::default();
        let mut tickets = Vec::new();
        for _ in 0..SESSION_WINDOW {
            tickets.push(session.ticket().await);
        }
        let waiting = tokio::spawn({
            let session = Arc::clone(&session);
            async move { session.ticket().await.sequence() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        tickets.remove(0);
        assert_eq!(waiting.await.unwrap(), SESSION_WINDOW + 1);
    }

    #[test]
    fn forgetting_an_old_session_keeps_the_new_one() {
        let sessions = Sessions::default();
        let old = sessions.current();
        old.id.set(5).unwrap();
        sessions.forget(5);
        let new = sessions.current();
        assert!(!Arc::ptr_eq(&old, &new));
        new.id.set(6).unwrap();
        sessions.forget(5);
        assert!(Arc::ptr_eq(&sessions.current(), &new));
    }
}
