//! Each verb as a call of the store.
use libcni::plugin::{self, Call, Undo};
use libcni::record;
use libcni::spec::{Attachment, CniError, CniResult, Code};
use libcni::store::{IpamConf, NetDir};

/// Reserves. Should the result not reach the caller, it takes that back.
pub(crate) fn add(call: &'static Call) -> Result<CniResult, CniError> {
    let conf = conf(call)?;
    record::phase("lease");
    let at = call.attachment()?;
    let result = conf.add(at)?.result;
    let ips: Vec<_> = result.ips.iter().map(|ip| ip.address.ip()).collect();
    let mut undo = Undo::new();
    undo.push("release the address", move || {
        let released = conf.dir.release_only(at, &ips);
        released.map_err(|e| e.to_string())
    });
    undo.commit();
    Ok(result)
}

/// Frees. The ranges may have become invalid since ADD; only the directory counts.
pub(crate) fn del(call: &Call) -> Result<(), CniError> {
    let dir = NetDir::of(&call.node)?;
    record::phase("lease");
    dir.release(call.attachment()?, || ())?;
    Ok(())
}

/// Looks.
pub(crate) fn check(call: &Call) -> Result<(), CniError> {
    let conf = conf(call)?;
    record::phase("lease");
    Ok(conf.dir.check(call.attachment()?)?)
}

/// Frees what nobody valid holds.
pub(crate) fn gc(call: &Call, valid: &[Attachment]) -> Result<(), CniError> {
    let told = |ip| plugin::log(format_args!("gc: freed {ip}"));
    let dir = NetDir::of(&call.node)?;
    record::phase("lease");
    dir.gc(valid, told, || ())?;
    Ok(())
}

/// A config that ADD would refuse makes the plugin unavailable, too.
pub(crate) fn status(call: &Call) -> Result<(), CniError> {
    let status = conf(call).and_then(|conf| {
        record::phase("lease");
        Ok(conf.status()?)
    });
    status.map_err(|error| CniError {
        code: Code::NotAvailable,
        ..error
    })
}

fn conf(call: &Call) -> Result<IpamConf, CniError> {
    IpamConf::parse(&call.node, &call.env.args, call.version())
}
