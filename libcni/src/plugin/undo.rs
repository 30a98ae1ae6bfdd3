//! What to take back if the verb does not reach its end.
//!
//! A courtesy to the next attempt, never the guarantee: a `SIGKILL` runs no undo, so whatever ADD can
//! leave behind, DEL and GC find again from the attachment's identity alone.
//!
//! The steps are kept per thread, outside the stack frames that made them, so that a panic can run them too
//! where it does not unwind: the plugins are built with `panic = "abort"`, which saves 75 KB of each.

use std::cell::RefCell;

type Step = Box<dyn FnOnce() -> Result<(), String>>;

thread_local! {
    static STEPS: RefCell<Vec<(&'static str, Step)>> = const { RefCell::new(Vec::new()) };
}

/// Steps to take back, newest first, when this is dropped, unless [`Undo::commit`] was called. One at a time.
#[derive(Debug, Default)]
pub struct Undo(());

impl Undo {
    /// Nothing to undo yet.
    #[must_use]
    pub fn new() -> Self {
        Self(())
    }

    /// Remembers how to take back what was just done; `what` names it for the log.
    pub fn push(
        &mut self,
        what: &'static str,
        step: impl FnOnce() -> Result<(), String> + 'static,
    ) {
        STEPS.with_borrow_mut(|steps| steps.push((what, Box::new(step))));
    }

    /// The verb succeeded: keep everything.
    pub fn commit(self) {
        STEPS.with_borrow_mut(Vec::clear);
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        run();
    }
}

/// Takes everything back that was not committed.
pub(super) fn run() {
    // A panic inside `push` itself finds the list taken; then there is nothing to be done here.
    let next = || STEPS.with(|steps| steps.try_borrow_mut().ok()?.pop());
    while let Some((what, step)) = next() {
        super::signal::ignore();
        if let Err(why) = step() {
            eprintln!("undo: {what}: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    fn log() -> (
        Rc<RefCell<Vec<u8>>>,
        impl Fn(u8, Result<(), String>) -> Step,
    ) {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let inside = Rc::clone(&seen);
        let step = move |n: u8, outcome: Result<(), String>| -> Step {
            let seen = Rc::clone(&inside);
            Box::new(move || {
                seen.borrow_mut().push(n);
                outcome
            })
        };
        (seen, step)
    }

    #[test]
    fn newest_first_and_failures_do_not_stop_it() {
        let (seen, step) = log();
        {
            let mut undo = Undo::new();
            undo.push("first", step(1, Ok(())));
            undo.push("second", step(2, Err("cannot".into())));
        }
        assert_eq!(*seen.borrow(), [2, 1]);
    }

    #[test]
    fn commit_keeps_everything() {
        let (seen, step) = log();
        let mut undo = Undo::new();
        undo.push("never", step(1, Ok(())));
        undo.commit();
        assert!(seen.borrow().is_empty());
    }
}
