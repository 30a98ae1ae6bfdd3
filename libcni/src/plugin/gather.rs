//! DEL and GC go on past a failure and report all of them at the end.

use crate::spec::error::CniError;

/// Failures seen so far.
#[derive(Debug, Default)]
pub struct Gather(Vec<CniError>);

impl Gather {
    /// Nothing failed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the failure, if it is one, and hands on the value otherwise.
    pub fn note<T, E: Into<CniError>>(&mut self, outcome: Result<T, E>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(e) => {
                self.0.push(e.into());
                None
            }
        }
    }

    /// All failures as one error with the first one's code.
    ///
    /// # Errors
    /// If anything was noted.
    pub fn finish(self) -> Result<(), CniError> {
        let mut all = self.0.into_iter();
        let Some(mut first) = all.next() else {
            return Ok(());
        };
        for next in all {
            first.msg = format!("{}; {}", first.msg, next.msg);
            if !next.details.is_empty() {
                first.details = format!("{}; {}", first.details, next.details);
            }
        }
        Err(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::error::Code;

    #[test]
    fn all_failures_are_told_with_the_first_code() {
        let mut gather = Gather::new();
        assert_eq!(gather.note(Ok::<_, CniError>(3)), Some(3));
        gather.note(Err::<(), _>(
            CniError::new(Code::Io, "one").with_details("d1"),
        ));
        gather.note(Err::<(), _>(
            CniError::new(Code::TryAgain, "two").with_details("d2"),
        ));
        let e = gather.finish().unwrap_err();
        assert_eq!(
            (e.code, e.msg.as_str(), e.details.as_str()),
            (Code::Io, "one; two", "d1; d2")
        );
        assert!(Gather::new().finish().is_ok());
    }
}
