//! ADD, DEL and CHECK of one attachment: the chain, the cache and the journal together.

use super::cache::{CacheEntry, Saved};
use super::chain::{Failed, Pass};
use super::file::Key;
use super::journal::{Intent, Pending, Record};
use super::list::{NetworkList, PluginConf};
use super::request::Extra;
use super::{Attach, Runtime, RuntimeError};
use crate::spec::error::{CniError, Code};
use crate::spec::json::Node;
use crate::spec::{CniResult, Verb, Version};

pub(super) fn add(
    runtime: &Runtime,
    list: &NetworkList,
    at: &Attach,
) -> Result<CniResult, RuntimeError> {
    let key = Key::of(&list.name, at)?;
    let pass = Pass::new(runtime, list, Verb::Add, Some(at));
    pass.find_all()?;
    match runtime.journal().read(&key) {
        Record::None => {}
        Record::Adding | Record::Orphaned => return Err(at_work(&key)),
        Record::Pending(pending) => resume(runtime, list, &pending)?,
    }
    // Should this be a second ADD without DEL, then what stands is in use, and no undo may touch it. An entry of another
    // namespace is of an earlier life of the container.
    let cached = runtime.cache().read(&key);
    let stands = cached.is_some_and(|entry| entry.netns.is_none_or(|netns| netns == at.netns));
    let whole = list.with_plugins(list.plugins.clone());
    let saved = Saved {
        key: &key,
        at,
        config: whole.bytes(),
        result: None,
    };
    let intent = runtime.journal().begin(saved, list.plugins.len())?;
    let outcome = pass.add(&at.capability_args).and_then(|result| {
        let made = Saved {
            config: list.bytes(),
            result: Some(&result),
            ..saved
        };
        match runtime.cache().write(made) {
            Ok(()) => Ok(result),
            Err(error) => Err(Box::new(Failed {
                ran: list.plugins.len(),
                prev: Some(result),
                error,
            })),
        }
    });
    match outcome {
        Ok(result) => {
            intent.done();
            Ok(CniResult::parse(&result, list.version)?)
        }
        Err(failed) if stands => {
            intent.done();
            Err(failed.error)
        }
        Err(failed) => Err(undo(runtime, &whole, at, &key, intent, *failed)),
    }
}

/// DEL of what ADD ran. What that cannot do is recorded, and added to the error.
fn undo(
    runtime: &Runtime,
    list: &NetworkList,
    at: &Attach,
    key: &Key,
    intent: Intent,
    failed: Failed,
) -> RuntimeError {
    let prev = failed.prev.filter(|_| list.version >= Version::V0_4_0);
    let task = Task {
        runtime,
        list,
        at,
        key,
        left: failed.ran,
        prev: prev.as_ref(),
    };
    match task.del() {
        Ok(()) => {
            intent.done();
            failed.error
        }
        Err(error) => failed.error.and(error),
    }
}

pub(super) fn del(runtime: &Runtime, list: &NetworkList, at: &Attach) -> Result<(), RuntimeError> {
    let key = Key::of(&list.name, at)?;
    let record = runtime.journal().read_settled(&key, runtime.deadline());
    match &record {
        Record::Adding => return Err(at_work(&key)),
        Record::Pending(pending) => return finish(runtime, list, at, &key, pending),
        Record::None | Record::Orphaned => {}
    }
    let cached = runtime.cache().read(&key);
    let at = with_args_of(at, cached.as_ref());
    let list = match &cached {
        Some(entry) => chain_of_add(list, NetworkList::parse(&entry.config, None).ok()),
        None => list.clone(),
    };
    let prev = cached.as_ref().and_then(|entry| prev_result(&list, entry));
    let task = Task {
        runtime,
        list: &list,
        at: &at,
        key: &key,
        left: list.plugins.len(),
        prev: prev.as_ref(),
    };
    task.del()?;
    runtime.cache().remove(&key)?;
    match record {
        // What its plugin still does is undone when that has ended.
        Record::Orphaned => Ok(()),
        // If there is a file, it is torn or outdated.
        _ => runtime.journal().remove(&key),
    }
}

fn at_work(key: &Key) -> RuntimeError {
    CniError::new(Code::TryAgain, "an ADD of this attachment is at work")
        .with_details(key.file_name())
        .into()
}

/// Finishes what is recorded, as it was recorded; for ADD and GC, which have no arguments of their own for it.
pub(super) fn resume(
    runtime: &Runtime,
    list: &NetworkList,
    pending: &Pending,
) -> Result<(), RuntimeError> {
    let at = pending.attach();
    let key = Key::of(&list.name, &at)?;
    finish(runtime, list, &at, &key, pending)
}

fn finish(
    runtime: &Runtime,
    list: &NetworkList,
    at: &Attach,
    key: &Key,
    pending: &Pending,
) -> Result<(), RuntimeError> {
    let at = with_args_of(at, Some(&pending.entry));
    // The recorded chain comes first in it, so its places hold.
    let list = chain_of_add(list, Some(pending.list.clone()));
    let prev = prev_result(&list, &pending.entry);
    let task = Task {
        runtime,
        list: &list,
        at: &at,
        key,
        left: pending.left.len(),
        prev: prev.as_ref(),
    };
    task.del()?;
    runtime.cache().remove(key)?;
    runtime.journal().remove(key)
}

pub(super) fn check(
    runtime: &Runtime,
    list: &NetworkList,
    at: &Attach,
) -> Result<(), RuntimeError> {
    if list.version < Version::V0_4_0 {
        let msg = format!(
            "configuration version \"{}\" does not support the CHECK command",
            list.version
        );
        return Err(CniError::new(Code::IncompatibleVersion, msg).into());
    }
    let key = Key::of(&list.name, at)?;
    if list.disable_check {
        return Ok(());
    }
    let cached = runtime.cache().read(&key);
    let prev = cached.as_ref().and_then(|entry| prev_result(list, entry));
    Pass::new(runtime, list, Verb::Check, Some(at)).ask(Extra::Attachment {
        prev: prev.as_ref(),
        capability_args: &at.capability_args,
    })
}

/// DEL of the first `left` plugins of a chain.
struct Task<'a> {
    runtime: &'a Runtime,
    list: &'a NetworkList,
    at: &'a Attach,
    key: &'a Key,
    left: usize,
    prev: Option<&'a Node>,
}

impl Task<'_> {
    /// Runs it. If it halts, the rest of it is recorded, with the arguments it had.
    fn del(&self) -> Result<(), RuntimeError> {
        let pass = Pass::new(self.runtime, self.list, Verb::Del, Some(self.at));
        let halted = pass.del(self.left, self.prev, &self.at.capability_args);
        let Err((left, mut error)) = halted else {
            return Ok(());
        };
        let whole = self.list.with_plugins(self.list.plugins.clone());
        let saved = Saved {
            key: self.key,
            at: self.at,
            config: whole.bytes(),
            result: self.prev,
        };
        let recorded = self
            .runtime
            .journal()
            .halted(saved, left, &error.to_string());
        error.leave(self.list.plugins.iter().take(left).rev());
        match recorded {
            Ok(()) => Err(error),
            Err(unrecorded) => Err(error.and(unrecorded)),
        }
    }
}

/// The result as the plugins of the list may read it; DEL has none before 0.4.0.
fn prev_result(list: &NetworkList, entry: &CacheEntry) -> Option<Node> {
    let node = entry
        .result
        .as_ref()
        .filter(|_| list.version >= Version::V0_4_0)?;
    let converted = CniResult::parse(node, list.version).and_then(|r| r.to_node(list.version));
    converted.ok()
}

/// Where the caller gave no arguments, those ADD had: without its port mappings the reference's `portmap` cannot remove
/// what it made.
fn with_args_of(at: &Attach, entry: Option<&CacheEntry>) -> Attach {
    let mut at = at.clone();
    let Some(entry) = entry else {
        return at;
    };
    if at.args.is_empty() {
        at.args.clone_from(&entry.args);
    }
    if matches!(&at.capability_args, Node::Null)
        || matches!(&at.capability_args, Node::Object(args) if args.is_empty())
    {
        at.capability_args = entry.attach().capability_args;
    }
    at
}

/// The chain that ADD ran, each plugin as it is configured now if it still is; then what was added to the chain since,
/// which also covers the plugins of the network's folder, for they are not in the cached bytes.
fn chain_of_add(list: &NetworkList, then: Option<NetworkList>) -> NetworkList {
    let Some(then) = then else {
        return list.clone();
    };
    let mut now: Vec<Option<&PluginConf>> = list.plugins.iter().map(Some).collect();
    let mut chain = Vec::new();
    for plugin in &then.plugins {
        let still = now
            .iter_mut()
            .find(|p| p.is_some_and(|p| p.kind == plugin.kind));
        chain.push(still.and_then(Option::take).unwrap_or(plugin).clone());
    }
    chain.extend(now.into_iter().flatten().cloned());
    list.with_plugins(chain)
}

#[cfg(test)]
mod tests;
