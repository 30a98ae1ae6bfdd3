//! What to take back if the verb does not reach its end.
//!
//! A courtesy to the next attempt, never the guarantee: a `SIGKILL` runs no undo, so whatever ADD can
//! leave behind, DEL and GC find again from the attachment's identity alone.
//!
//! The steps are kept per thread, outside the stack frames that made them, so that a panic can run them too
//! where it does not unwind: the plugins are built with `panic = "abort"`, which saves 75 KB of each.

use std::cell::RefCell;

use crate::kernel::netns;
use crate::record;

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

    /// The verb succeeded: keep everything, provided that the result reaches the runtime too.
    pub fn commit(self) {
        std::mem::forget(self);
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        run();
    }
}

/// The result was delivered: nothing is taken back any more.
pub(super) fn forget() {
    STEPS.with_borrow_mut(Vec::clear);
}

/// Takes everything back, on the node, wherever the thread is.
pub(super) fn run() {
    if let Err(e) = netns::come_home() {
        super::log(format_args!("undo: cannot leave the pod's namespace: {e}"));
        return;
    }
    // A panic inside `push` itself finds the list taken; then there is nothing to be done here.
    let next = || STEPS.with(|steps| steps.try_borrow_mut().ok()?.pop());
    while let Some((what, step)) = next() {
        super::signal::ignore();
        record::phase("undo");
        if let Err(why) = step() {
            super::log(format_args!("undo: {what}: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Which steps ran, in order.
    #[derive(Clone, Default)]
    struct Log(Rc<RefCell<Vec<u8>>>);

    impl Log {
        fn step(
            &self,
            n: u8,
            outcome: Result<(), String>,
        ) -> impl FnOnce() -> Result<(), String> + 'static {
            let log = self.clone();
            move || {
                log.0.borrow_mut().push(n);
                outcome
            }
        }
    }

    #[test]
    fn newest_first_and_failures_do_not_stop_it() {
        let log = Log::default();
        {
            let mut undo = Undo::new();
            undo.push("first", log.step(1, Ok(())));
            undo.push("second", log.step(2, Err("cannot".into())));
        }
        assert_eq!(*log.0.borrow(), [2, 1]);
    }

    #[test]
    fn commit_keeps_everything_once_it_is_delivered() {
        let log = Log::default();
        let commit = |n| {
            let mut undo = Undo::new();
            undo.push("a step", log.step(n, Ok(())));
            undo.commit();
        };
        commit(1);
        forget();
        run();
        assert!(log.0.borrow().is_empty());
        commit(2);
        run();
        assert_eq!(*log.0.borrow(), [2]);
    }
}
