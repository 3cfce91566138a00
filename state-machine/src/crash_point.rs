//! Places where a test lets its own process die, to look at what it leaves behind. Outside of tests there are none.

/// The environment variable that names the place.
#[cfg(test)]
pub(crate) const CRASH_POINT: &str = "STATE_MACHINE_CRASH_POINT";

/// Dies here, without unwinding, when this is the place that was named.
#[cfg(test)]
pub(crate) fn crash_point(name: &str) {
    if std::env::var_os(CRASH_POINT).is_some_and(|wanted| wanted == name) {
        std::process::abort();
    }
}

/// Does nothing.
#[cfg(not(test))]
pub(crate) fn crash_point(_name: &str) {}
