//! The one way to wait: for a condition, with a deadline.

use std::time::Duration;

use tokio::time::{interval, timeout};

/// Longest wait for anything: far above what anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks at a condition.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// Looks again and again until there is a value.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    let Ok(value) = timeout(PATIENCE, poll(look)).await else {
        panic!("not within {} s: {what}", PATIENCE.as_secs());
    };
    value
}

async fn poll<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut ticks = interval(POLL);
    loop {
        ticks.tick().await;
        if let Some(value) = look().await {
            return value;
        }
    }
}
