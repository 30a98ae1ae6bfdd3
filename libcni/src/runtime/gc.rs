//! GC of one network (spec section 2, "GC: Clean up any stale resources").

use super::chain::Pass;
use super::list::NetworkList;
use super::request::Extra;
use super::{Runtime, RuntimeError, attach};
use crate::spec::{Attachment, ContainerId, IfName, Verb, Version};

pub(super) fn gc(
    runtime: &Runtime,
    list: &NetworkList,
    valid: &[Attachment],
) -> Result<(), RuntimeError> {
    if list.disable_gc {
        return Ok(());
    }
    let mut valid = valid.to_vec();
    let adding = runtime.journal().adding();
    let adding = adding.map_err(|e| unreadable(runtime, e))?;
    let adding = adding
        .into_iter()
        .filter(|entry| entry.network == list.name);
    valid.extend(adding.filter_map(|entry| attachment(&entry.container_id, &entry.ifname)));
    let dead = |network: &str, id: &str, ifname: &str| {
        let names =
            |at: &Attachment| at.container_id.as_str() == id && at.ifname.as_str() == ifname;
        network == list.name && !valid.iter().any(names)
    };

    let mut errors = Vec::new();
    let pending = runtime.pending().map_err(|e| unreadable(runtime, e))?;
    for pending in &pending {
        if dead(&pending.network, &pending.container_id, &pending.ifname) {
            errors.extend(attach::resume(runtime, list, pending).err());
        }
    }
    let cached = runtime.attachments().map_err(|e| unreadable(runtime, e))?;
    for entry in &cached {
        // What has just failed would fail again.
        let tried = pending
            .iter()
            .any(|p| p.file.file_name() == entry.file.file_name());
        if !tried && dead(&entry.network, &entry.container_id, &entry.ifname) {
            errors.extend(runtime.del(list, &entry.attach()).err());
        }
    }
    if list.version >= Version::V1_1_0 {
        errors.extend(Pass::new(runtime, list, Verb::Gc, None).all(Extra::Valid(&valid)));
    }
    RuntimeError::gathered(errors)
}

/// None if a name is invalid; then no plugin has anything under it.
fn attachment(container_id: &str, ifname: &str) -> Option<Attachment> {
    Some(Attachment {
        container_id: ContainerId::parse(container_id).ok()?,
        ifname: IfName::parse(ifname).ok()?,
    })
}

fn unreadable(runtime: &Runtime, source: std::io::Error) -> RuntimeError {
    RuntimeError::State {
        what: "read",
        path: runtime.cache_dir.clone(),
        source,
    }
}
