//! The verbs, each one of the delegate's.

use fabric::SubnetEnv;
use libcni::plugin::{Call, Undo};
use libcni::spec::error::{CniError, Code};
use libcni::spec::json::Fields;
use libcni::spec::{Attachment, CniResult, Node, Verb};

use crate::conf::{Embedded, Places, delegate_conf};
use crate::delegate::Delegate;
use crate::ready;
use crate::scratch::{self, Scratch};

/// Whether a list of attachments came with GC, and which: handed on as it is.
const GC_KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// Attaches by the delegate, with the lease of this moment. Without an agent, the overlay is made first.
pub fn add(call: &'static Call) -> Result<CniResult, CniError> {
    let places = Places::of(&call.node)?;
    let env = match Embedded::of(&call.node)? {
        Some(embedded) => embedded.program()?.env,
        None => SubnetEnv::read(&places.subnet_file)
            .map_err(|e| ready::blamed(&places.subnet_file, e))?,
    };
    let conf = delegate_conf(call, &env)?;
    let delegate = Delegate::new(call, conf.write_compact().into_bytes())?;
    let scratch = Scratch::of(&places.data_dir, call.attachment()?);
    // Should this be a second ADD without DEL, then what stands is in use, and no undo may touch it.
    let stands = scratch.read(call.network()).is_some();
    let mut undo = Undo::new();
    if !stands {
        // One in this process takes back what it did by itself, and only that: its DEL would also take an interface of
        // that name that was there before.
        if delegate.undoes() {
            let scratch = scratch.clone();
            undo.push("forget the delegate's configuration", move || {
                scratch.remove(call.network()).map_err(|e| e.to_string())
            });
        } else {
            undo.push("detach by the delegate", || {
                del(call).map_err(|e| e.to_string())
            });
        }
        // Before the delegate works: whatever kills us, DEL knows what to undo.
        scratch.write(&delegate.conf)?;
    }
    let result = delegate.add(call)?;
    if stands {
        scratch.write(&delegate.conf)?;
    }
    undo.commit();
    Ok(result)
}

/// Detaches by the delegate, with the configuration of its ADD. It is kept until that succeeds.
pub fn del(call: &Call) -> Result<(), CniError> {
    let places = Places::of(&call.node)?;
    let scratch = Scratch::of(&places.data_dir, call.attachment()?);
    let conf = match scratch.read(call.network()) {
        Some(conf) => conf,
        None => without_scratch(call, &places)?,
    };
    Delegate::for_release(call, conf)?.run(call, Verb::Del)?;
    scratch.remove(call.network())
}

/// Compares by the delegate, then the overlay, if there is no agent to look after it.
pub fn check(call: &Call) -> Result<(), CniError> {
    let places = Places::of(&call.node)?;
    let scratch = Scratch::of(&places.data_dir, call.attachment()?);
    let Some(conf) = scratch.read(call.network()) else {
        let id = &call.attachment()?.container_id;
        return Err(CniError::new(
            Code::UnknownContainer,
            format!("{id} is not attached to this network"),
        )
        .with_details(format!(
            "there is no file of it in {}",
            places.data_dir.display()
        )));
    };
    let conf = with_keys_of(call, &conf, &["prevResult"])?;
    Delegate::new(call, conf)?.run(call, Verb::Check)?;
    match Embedded::of(&call.node)? {
        Some(embedded) => embedded.check(),
        None => Ok(()),
    }
}

/// Frees by the delegate, then forgets who is not valid.
pub fn gc(call: &Call, valid: &[Attachment]) -> Result<(), CniError> {
    let places = Places::of(&call.node)?;
    let conf = without_scratch(call, &places)?;
    let delegate = Delegate::for_release(call, with_keys_of(call, &conf, &GC_KEYS)?)?;
    delegate.run(call, Verb::Gc)?;
    if !delegate.frees()? {
        return Ok(());
    }
    let (ours, flannels) = scratch::all(&places.data_dir, call.network())?;
    for at in ours.iter().filter(|at| !valid.contains(at)) {
        Scratch::of(&places.data_dir, at).remove(call.network())?;
    }
    // Flannel's own plugin told containers apart, not interfaces.
    let is_valid = |id: &_| valid.iter().any(|at| at.container_id == *id);
    for id in flannels.iter().filter(|id| !is_valid(*id)) {
        scratch::remove_flannels(&places.data_dir, id)?;
    }
    Ok(())
}

/// Ready when the node is connected to the others and the delegate is ready; without an agent, when it can be.
pub fn status(call: &Call) -> Result<(), CniError> {
    let places = Places::of(&call.node)?;
    let unready = |e: CniError| CniError {
        code: Code::NotAvailable,
        ..e
    };
    let env = match Embedded::of(&call.node).map_err(unready)? {
        Some(embedded) => embedded.view().map_err(unready)?.env,
        None => {
            ready::check(&places.subnet_file)?;
            SubnetEnv::read(&places.subnet_file).map_err(unready)?
        }
    };
    let conf = delegate_conf(call, &env)?;
    let delegate = Delegate::new(call, conf.write_compact().into_bytes()).map_err(unready)?;
    delegate.run(call, Verb::Status)
}

/// What the delegate would be given now; without a lease (the agent is gone, too), as far as it goes without: names
/// are all that DEL and GC need.
fn without_scratch(call: &Call, places: &Places) -> Result<Vec<u8>, CniError> {
    let env = match Embedded::of(&call.node) {
        Ok(Some(embedded)) => embedded.view().map(|view| view.env),
        _ => SubnetEnv::read(&places.subnet_file),
    };
    let env = env.unwrap_or(SubnetEnv {
        networks: Vec::new(),
        subnets: Vec::new(),
        mtu: 1500,
        ip_masq: false, // so that the delegate looks for rules of its own
    });
    Ok(delegate_conf(call, &env)?.write_compact().into_bytes())
}

/// A configuration with some of the call's keys.
fn with_keys_of(call: &Call, conf: &[u8], keys: &[&str]) -> Result<Vec<u8>, CniError> {
    let Node::Object(mut members) = Node::parse(conf)? else {
        return Ok(conf.to_vec());
    };
    let fields = Fields::of(&call.node, "")?;
    for key in keys {
        if let Some(value) = fields.node(key) {
            members.push(((*key).to_owned(), value.into_owned()));
        }
    }
    Ok(Node::Object(members).write_compact().into_bytes())
}
