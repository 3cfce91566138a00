//! Keeps a session that nobody uses from expiring.

use std::sync::{Arc, Weak};
use std::time::Duration;

use raft::rpc::client::{ChangeSession, ClientServiceClient, SessionChange};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::error::Refusal;
use crate::pursuit::Pursuer;
use crate::session::Session;
use crate::verdict::GivenUp;

/// A session is renewed when it was not used for this part of its time to live: there is time for attempts that fail.
const IDLE_PART: u32 = 3;
/// Pause after a renewal that failed, as a part of the time to live.
const PAUSE_PART: u32 = 12;

/// A running renewal. Ends with its handle.
#[derive(Debug)]
pub(crate) struct Renewal(AbortHandle);

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Renewal {
    /// Renews a session whenever it is idle, until the cluster does not know it any more.
    pub(crate) fn begin(
        session: &Arc<Session>,
        pursuer: &Arc<Pursuer>,
        id: u64,
        ttl: Duration,
    ) -> Self {
        let watch = Watch {
            // It must not keep alive what it is there for.
            session: Arc::downgrade(session),
            pursuer: Arc::downgrade(pursuer),
            id,
            ttl,
        };
        Self(tokio::spawn(watch.run()).abort_handle())
    }
}

struct Watch {
    session: Weak<Session>,
    pursuer: Weak<Pursuer>,
    id: u64,
    ttl: Duration,
}

impl Watch {
    async fn run(self) {
        let mut not_before = Instant::now();
        while let Some(due) = self.due() {
            if due.max(not_before) > Instant::now() {
                sleep_until(due.max(not_before)).await;
                continue;
            }
            let Some(pursuer) = self.pursuer.upgrade() else { return };
            // The session is not held meanwhile: where nobody answers, this would outlive its client by a time to live.
            let sent = Instant::now();
            match change(&pursuer, self.id, SessionChange::Renew, sent + self.ttl).await {
                Ok(()) => {
                    let Some(session) = self.session.upgrade() else { return };
                    session.note_use(sent);
                }
                Err(GivenUp { refusal: Some(Refusal::SessionExpired { .. }), .. }) => {
                    // The next command finds it out, and opens another one.
                    return debug!(session = self.id, "expired while idle");
                }
                Err(_) => not_before = Instant::now() + self.ttl / PAUSE_PART,
            }
        }
    }

    /// When it is to be renewed; none when nobody holds it any more.
    fn due(&self) -> Option<Instant> {
        let used = self.session.upgrade()?.last_used()?;
        Some(used + self.ttl / IDLE_PART)
    }
}

/// Has the cluster renew or close a session.
pub(crate) async fn change(
    pursuer: &Arc<Pursuer>,
    session: u64,
    change: SessionChange,
    deadline: Instant,
) -> Result<(), GivenUp> {
    let request = ChangeSession { session, change, forward: pursuer.options.forward };
    let ask = |client: ClientServiceClient, context| async move {
        client.change_session(context, request).await
    };
    pursuer.pursue(deadline, ask).await
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::{interval, timeout};

    use super::*;
    use crate::options::Options;

    const PATIENCE: Duration = Duration::from_secs(30);
    const TTL: Duration = Duration::from_mins(30);

    #[tokio::test]
    async fn a_renewal_that_nobody_answers_ends_with_its_client() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = silent.local_addr().unwrap().to_string().parse().unwrap();
        let pursuer = Arc::new(Pursuer::new(Options::new(vec![endpoint])));
        let session = Arc::<Session>::default();
        session.note_use(Instant::now().checked_sub(TTL).unwrap());
        session.keep(Renewal::begin(&session, &pursuer, 7, TTL));
        let (_connection, _) = timeout(PATIENCE, silent.accept()).await.unwrap().unwrap();
        assert!(Arc::strong_count(&pursuer) > 1, "it is at it");
        drop(session);
        let is_over = async {
            let mut looks = interval(Duration::from_millis(1));
            while Arc::strong_count(&pursuer) > 1 {
                looks.tick().await;
            }
        };
        timeout(PATIENCE, is_over).await.expect("it ends, long before the time to live does");
    }
}
