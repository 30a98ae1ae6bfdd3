//! The executable: as a runtime runs it, beside the reference's, many at once, and killed.
// Outside `#[test]` functions clippy cannot know that this is all tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod bed;
mod killed;
mod many;
mod reboot;
mod reference;
mod verbs;
