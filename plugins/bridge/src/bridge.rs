//! The bridge itself: create-or-get, so that any number of first ADDs may race for it.

use libcni::kernel::link::{self, Link};
use libcni::kernel::mac::Mac;
use libcni::kernel::sysctl;
use libcni::nl::{Batch, Socket};
use libcni::spec::error::{CniError, Code};
use nix::errno::Errno;

use crate::conf::Conf;

/// The name is taken by something else, or its address is another's.
pub const FOREIGN_BRIDGE: Code = Code::Other(102);

/// How long a link may take to be up, from the last thing that kept it down. See [`crate::pod::LOCAL_MS`].
pub const UP_MS: u32 = 30_000;

/// The bridge of the configuration, made if it is not there. Of one that is there nothing is changed but
/// what the configuration switches on: promiscuous mode.
pub fn ensure(host: &mut Socket, conf: &Conf, mtu: Option<u32>) -> Result<Link, CniError> {
    let name = &conf.bridge;
    let bridge = match link::get(host, name.as_str())? {
        Some(link) => link,
        None => create(host, conf, mtu)?,
    };
    require_bridge(&bridge)?;
    let mut batch = Batch::new();
    if !bridge.is_up() {
        batch.push(link::up(bridge.index)); // with router advertisements off by then
    }
    if conf.promisc && !bridge.is_promisc() {
        batch.push(link::set_promisc(bridge.index, true));
    }
    accept_no_ra(&bridge)?;
    if !batch.is_empty() {
        host.run(&batch)?;
    }
    Ok(bridge)
}

/// A bridge by that name, or an error that says what to do.
pub fn require_bridge(link: &Link) -> Result<(), CniError> {
    match link.kind.as_deref() {
        Some("bridge") => Ok(()),
        kind => Err(CniError::new(
            FOREIGN_BRIDGE,
            format!("{:?} already exists but is not a bridge", link.name),
        )
        .with_details(format!(
            "it is {}: rename it, or set `bridge` to another name",
            kind.unwrap_or("an ordinary interface")
        ))),
    }
}

/// With a MAC of our own from the start: it stays when ports come and go, and udev leaves it alone.
fn create(host: &mut Socket, conf: &Conf, mtu: Option<u32>) -> Result<Link, CniError> {
    let name = &conf.bridge;
    let mut batch = Batch::new();
    batch.push(link::bridge(
        name.as_str(),
        Mac::random_local(),
        mtu,
        conf.vlans.filtering,
    ));
    match host.run(&batch) {
        // Another ADD was faster; its bridge is as good.
        Err(e) if e.is(Errno::EEXIST) => {}
        other => other?,
    }
    link::get(host, name.as_str())?.ok_or_else(|| {
        CniError::new(
            Code::TryAgain,
            format!("bridge {name} vanished while it was set up"),
        )
        .with_details("something else on this node deletes it")
    })
}

/// A pod must not set the node's routes by router advertisements (CVE-2020-10749). The bridge's ports need no
/// such thing: what they receive goes to the bridge.
pub fn accept_no_ra(link: &Link) -> Result<(), CniError> {
    if link.accept_ra.is_some_and(|accept| accept != 0) {
        sysctl::write_if_present(sysctl::ipv6_conf(&link.name, "accept_ra"), "0")?;
    }
    Ok(())
}
