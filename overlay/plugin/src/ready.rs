//! Whether pods of this node would reach those of others, as far as can be told from here: what the kubelet holds pods
//! back by.

use std::path::Path;

use fabric::Status;
use libcni::kernel::link;
use libcni::nl::{ROUTE, Socket};
use libcni::spec::error::{CniError, Code};

/// The tunnel's devices are named so, ours as flannel's.
const DEVICES: [&str; 2] = ["flannel.", "flannel-v6."];
const LOG: &str = "check the log of overlayd on this node, and `overlayd show`";

/// The word of the node's agent, and whether it is still true. A node without such a word is flanneld's: then what can
/// be seen of its devices has to do.
///
/// # Errors
/// Code 50; 51 if there may be pods already that have lost the others.
pub fn check(subnet_file: &Path) -> Result<(), CniError> {
    let mut sock = Socket::open(ROUTE)?;
    match Status::read(subnet_file) {
        Some(status) => agents(&mut sock, &status),
        None => flannelds(&mut sock),
    }
}

fn agents(sock: &mut Socket, status: &Status) -> Result<(), CniError> {
    if !status.ready {
        let (code, since) = match status.converged.as_str() {
            "" => (Code::NotAvailable, "never was".to_owned()),
            last => (Code::NotAvailableLimited, format!("last was {last}")),
        };
        let why = match status.reason.as_str() {
            "" => "it did not say why",
            why => why,
        };
        let msg = format!("the node is not connected to the overlay: {why}");
        let details = format!("it {since}; {LOG}");
        return Err(CniError::new(code, msg).with_details(details));
    }
    for device in &status.devices {
        match link::get(sock, device)? {
            None => return Err(cut_off(device, "missing")),
            Some(link) if !link.is_up() => return Err(cut_off(device, "down")),
            Some(_) => {}
        }
    }
    Ok(())
}

/// With plain routes there is no device; where there is one, it has to be up.
fn flannelds(sock: &mut Socket) -> Result<(), CniError> {
    for link in link::list(sock, "vxlan")? {
        if DEVICES.iter().any(|prefix| link.name.starts_with(prefix)) && !link.is_up() {
            return Err(cut_off(&link.name, "down"));
        }
    }
    Ok(())
}

fn cut_off(device: &str, how: &str) -> CniError {
    let msg = format!("the overlay's device {device} is {how}");
    CniError::new(Code::NotAvailableLimited, msg).with_details(format!(
        "the node's agent makes it and sets it up: is it running? {LOG}"
    ))
}

/// The real reason for a missing `subnet.env`, if the agent told one.
pub fn blamed(subnet_file: &Path, e: CniError) -> CniError {
    match Status::read(subnet_file) {
        Some(status) if !status.ready && !status.reason.is_empty() => {
            let details = format!("the node's agent says: {}; {LOG}", status.reason);
            e.with_details(details)
        }
        _ => e,
    }
}
