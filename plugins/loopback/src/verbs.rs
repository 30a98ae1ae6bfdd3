//! What each verb does to `lo`.

use libcni::kernel::{addr, link};
use libcni::nl::{Batch, ROUTE, Socket};
use libcni::plugin::{Call, Undo};
use libcni::record;
use libcni::spec::error::{CniError, Code};
use libcni::spec::result::{CniResult, Interface, IpConfig};

/// The kernel makes `lo` first of all, so it has index 1 in every namespace (net/core/dev.c).
const LO_INDEX: u32 = 1;
const LO: &str = "lo";

/// Up; the result is `prevResult`, or `lo` itself.
pub fn add(call: &'static Call) -> Result<CniResult, CniError> {
    let prev = call.conf.prev()?;
    record::phase("link");
    let mut pod = call.netns()?.enter(|| Socket::open(ROUTE))??;
    let mut undo = Undo::new();
    undo.push("set lo down", move || del(call).map_err(|e| e.to_string()));
    pod.run(&Batch::from(link::up(LO_INDEX)))?;
    if let Some(prev) = prev {
        undo.commit();
        return Ok(prev);
    }
    let mut ips: Vec<IpConfig> = Vec::new();
    let addresses = addr::list(&mut pod, LO_INDEX)?;
    // What is refused below is the pod's own doing, and lo stays as it is, as with the reference.
    undo.commit();
    for held in addresses {
        if !held.net.ip().is_loopback() {
            return Err(CniError::new(
                Code::Internal,
                format!(
                    "loopback interface found with non-loopback address {}",
                    held.net
                ),
            )
            .with_details("remove that address from lo, or take loopback out of the chain"));
        }
        // The first of each family, as the reference has it.
        if ips
            .iter()
            .all(|ip| ip.address.is_ipv6() != held.net.is_ipv6())
        {
            ips.push(IpConfig {
                interface: Some(0),
                address: held.net,
                gateway: None,
            });
        }
    }
    ips.sort_by_key(|ip| ip.address.is_ipv6());
    Ok(CniResult {
        interfaces: vec![Interface {
            name: LO.to_owned(),
            mac: "00:00:00:00:00:00".to_owned(),
            sandbox: call.sandbox().to_owned(),
            ..Interface::default()
        }],
        ips,
        ..CniResult::default()
    })
}

/// Down, if there still is a namespace.
pub fn del(call: &Call) -> Result<(), CniError> {
    record::phase("link");
    let Some(netns) = call.netns_if_alive()? else {
        return Ok(());
    };
    let mut pod = netns.enter(|| Socket::open(ROUTE))??;
    Ok(pod.run(&Batch::from(link::down(LO_INDEX)))?)
}

/// Still up?
pub fn check(call: &Call) -> Result<(), CniError> {
    record::phase("link");
    let mut pod = call.netns()?.enter(|| Socket::open(ROUTE))??;
    if link::get(&mut pod, LO)?.is_some_and(|lo| lo.is_up()) {
        return Ok(());
    }
    Err(
        CniError::new(Code::Other(103), "loopback interface is down")
            .with_details("`ip link set lo up` in the pod"),
    )
}
