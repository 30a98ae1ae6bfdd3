//! What a plugin has left behind: the state of a node, compared with the same node's state before.
//!
//! A [`Moment`] holds one line of text per thing that somebody would have to remove: a link, an address, a rule, a mount, a
//! file. What the kernel changes by itself (timers, counters, the state of a neighbour) is not in it.

mod files;
mod filter;
mod kernel;

use std::collections::BTreeMap;

use anyhow::Result;

use crate::node::Node;

/// What there is on a node and in its pods.
#[derive(Debug, Clone, Default)]
pub struct Moment {
    /// How often, by line: rules may be there twice.
    things: BTreeMap<String, usize>,
    /// What is in them, where that may change while they stay.
    contents: BTreeMap<String, String>,
}

// === impl Moment ===

impl Moment {
    /// Reads the node the calling thread is in, and its pods. Waits until IPv6 addresses are usable.
    ///
    /// # Errors
    /// `ip` or `nft` cannot be run.
    pub fn now(node: &Node) -> Result<Moment> {
        let mut moment = Moment::default();
        kernel::read("", &mut moment)?;
        for pod in node.pods() {
            let prefix = format!("pod {}: ", pod.name);
            node.inside(pod, || kernel::read(&prefix, &mut moment))?;
        }
        files::mounts(&mut moment)?;
        files::files(&mut moment);
        Ok(moment)
    }

    /// What is there afterwards and was not before; also what was there, but with another content.
    pub fn left_over(&self, after: &Moment) -> Vec<String> {
        let mut lines = more(&after.things, &self.things);
        for (what, content) in &after.contents {
            if let Some(before) = self.contents.get(what)
                && before != content
            {
                lines.push(format!("{what}: {content} (was {before})"));
            }
        }
        lines
    }

    /// What was there before and is gone.
    pub fn missing(&self, after: &Moment) -> Vec<String> {
        more(&self.things, &after.things)
    }

    fn put(&mut self, line: String) {
        *self.things.entry(line).or_default() += 1;
    }

    fn put_content(&mut self, line: String, content: String) {
        self.contents.insert(line.clone(), content);
        self.put(line);
    }
}

/// The lines of which there are more in `these` than in `those`.
fn more(these: &BTreeMap<String, usize>, those: &BTreeMap<String, usize>) -> Vec<String> {
    let mut lines = Vec::new();
    for (line, n) in these {
        match n.saturating_sub(those.get(line).copied().unwrap_or_default()) {
            0 => {}
            1 => lines.push(line.clone()),
            n => lines.push(format!("{line} ({n} times)")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_counted_and_contents_compared() {
        let (mut before, mut after) = (Moment::default(), Moment::default());
        before.put("rule x".to_owned());
        before.put("link gone".to_owned());
        before.put_content("file /a".to_owned(), "one".to_owned());
        for _ in 0..3 {
            after.put("rule x".to_owned());
        }
        after.put_content("file /a".to_owned(), "two".to_owned());
        after.put_content("file /b".to_owned(), "new".to_owned());
        assert_eq!(
            before.left_over(&after),
            ["file /b", "rule x (2 times)", "file /a: two (was one)"]
        );
        assert_eq!(before.missing(&after), ["link gone"]);
        assert_eq!(before.left_over(&before), [""; 0]);
    }
}
