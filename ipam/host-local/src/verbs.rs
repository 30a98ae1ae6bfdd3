//! Each verb as a call of the store.
use libcni::plugin::Call;
use libcni::spec::{Attachment, CniError, CniResult, Code};
use libcni::store::{IpamConf, NetDir};

/// Reserves.
pub(crate) fn add(call: &Call) -> Result<CniResult, CniError> {
    Ok(conf(call)?.add(call.attachment()?)?.result)
}

/// Frees. The ranges may have become invalid since ADD; only the directory counts.
pub(crate) fn del(call: &Call) -> Result<(), CniError> {
    NetDir::of(&call.node)?.release(call.attachment()?, || ())?;
    Ok(())
}

/// Looks.
pub(crate) fn check(call: &Call) -> Result<(), CniError> {
    Ok(conf(call)?.dir.check(call.attachment()?)?)
}

/// Frees what nobody valid holds.
pub(crate) fn gc(call: &Call, valid: &[Attachment]) -> Result<(), CniError> {
    let told = |ip| eprintln!("gc: freed {ip}");
    NetDir::of(&call.node)?.gc(valid, told, || ())?;
    Ok(())
}

/// A config that ADD would refuse makes the plugin unavailable, too.
pub(crate) fn status(call: &Call) -> Result<(), CniError> {
    let status = conf(call).and_then(|conf| Ok(conf.status()?));
    status.map_err(|error| CniError {
        code: Code::NotAvailable,
        ..error
    })
}

fn conf(call: &Call) -> Result<IpamConf, CniError> {
    IpamConf::parse(&call.node, &call.env.args, call.version())
}
