//! What to take back if the verb does not reach its end.
//!
//! A courtesy to the next attempt, never the guarantee: a `SIGKILL` runs no undo, so whatever ADD can
//! leave behind, DEL and GC find again from the attachment's identity alone.

use std::fmt;

type Step<'a> = Box<dyn FnOnce() -> Result<(), String> + 'a>;

/// Steps to take back, newest first, unless [`Undo::commit`] is called. Also runs while unwinding.
#[derive(Default)]
pub struct Undo<'a> {
    steps: Vec<(&'static str, Step<'a>)>,
}

impl<'a> Undo<'a> {
    /// Nothing to undo yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers how to take back what was just done; `what` names it for the log.
    pub fn push(&mut self, what: &'static str, step: impl FnOnce() -> Result<(), String> + 'a) {
        self.steps.push((what, Box::new(step)));
    }

    /// The verb succeeded: keep everything.
    pub fn commit(mut self) {
        self.steps.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if !self.steps.is_empty() {
            super::signal::ignore();
        }
        while let Some((what, step)) = self.steps.pop() {
            if let Err(why) = step() {
                eprintln!("undo: {what}: {why}");
            }
        }
    }
}

impl fmt::Debug for Undo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.steps.iter().map(|(what, _)| what))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn newest_first_and_failures_do_not_stop_it() {
        let seen = RefCell::new(Vec::new());
        {
            let mut undo = Undo::new();
            undo.push("first", || {
                seen.borrow_mut().push(1);
                Ok(())
            });
            undo.push("second", || {
                seen.borrow_mut().push(2);
                Err("cannot".into())
            });
        }
        assert_eq!(*seen.borrow(), [2, 1]);
    }

    #[test]
    fn commit_keeps_everything() {
        let ran = RefCell::new(false);
        let mut undo = Undo::new();
        undo.push("never", || {
            *ran.borrow_mut() = true;
            Ok(())
        });
        undo.commit();
        assert!(!*ran.borrow());
    }
}
