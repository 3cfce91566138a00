//! The two stages without tasks, links or a disk: events in, actions out.

mod pipeline {
    mod commits;
    mod entries;
    mod snapshots;
}
