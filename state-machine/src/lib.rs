//! state-machine
