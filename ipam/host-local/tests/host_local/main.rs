//! The executable: as a runtime runs it, beside the reference's, many at once, and killed.
mod bed;
mod killed;
mod many;
mod reference;
mod verbs;
