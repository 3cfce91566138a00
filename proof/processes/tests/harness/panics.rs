//! A task that panics must not go unnoticed: tokio keeps it to itself.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    /// Those of this thread, which runs all tasks of its simulation.
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on panics are remembered.
pub fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            SEEN.with_borrow_mut(|seen| seen.push(info.to_string()));
            usual(info);
        }));
    });
}

/// Whether no task of this simulation has panicked.
///
/// # Panics
/// When one has.
pub fn assert_none() {
    let seen = SEEN.with_borrow(Vec::clone);
    assert!(seen.is_empty(), "tasks have panicked: {seen:?}");
}
