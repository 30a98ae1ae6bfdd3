//! What the network configuration says. Keys and defaults: docs/bridge.md.

use libcni::kernel::mac::Mac;
use libcni::plugin::Call;
use libcni::spec::args::{KNOWN_ARGS, parse_args};
use libcni::spec::conf::Dns;
use libcni::spec::error::{CniError, Code};
use libcni::spec::json::{Fields, Node};
use libcni::spec::{IfName, invalid_config};

/// Default of `bridge`.
const DEFAULT_BRIDGE: &str = "cni0";
/// Largest VLAN ID a port can carry; 4095 is reserved (IEEE 802.1Q, 9.6).
const VLAN_MAX: i64 = 4094;

/// The configuration of ADD, CHECK and STATUS, every value checked.
#[derive(Debug)]
pub struct Conf {
    pub bridge: IfName,
    pub is_gateway: bool,
    pub is_default_gateway: bool,
    pub force_address: bool,
    pub ip_masq: bool,
    pub mtu: Mtu,
    pub hairpin: bool,
    pub promisc: bool,
    pub vlans: Vlans,
    pub macspoofchk: bool,
    pub enable_dad: bool,
    pub disable_container_interface: bool,
    pub port_isolation: bool,
    /// MAC of the pod end, if the caller wants a certain one.
    pub mac: Option<Mac>,
    /// `ipam.type`; `None` is a network of layer 2 only.
    pub ipam: Option<String>,
    /// `dns` of the network configuration; replaces the IPAM's when any field is set.
    pub dns: Dns,
}

/// MTU of the veth pair and of a bridge made for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mtu {
    /// The kernel's default.
    Default,
    /// This many bytes.
    Bytes(u32),
    /// That of the route by which packets leave the node.
    Auto,
}

/// VLANs of the bridge port.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Vlans {
    /// Untagged VLAN of the port, 0 for none.
    pub pvid: u16,
    /// Tagged VLANs, sorted, each once.
    pub trunk: Vec<u16>,
    /// Whether a bridge made now filters VLANs: also with an empty `vlanTrunk`.
    pub filtering: bool,
    /// Leave the port in the bridge's default VLAN 1.
    pub preserve_default: bool,
}

impl Conf {
    /// Reads and checks every key.
    pub fn parse(call: &Call) -> Result<Self, CniError> {
        let fields = Fields::of(&call.node, "")?;
        let flag = |key| fields.bool(key).map(Option::unwrap_or_default);
        let conf = Self {
            bridge: bridge_name(&fields)?,
            is_default_gateway: flag("isDefaultGateway")?,
            is_gateway: flag("isGateway")? || flag("isDefaultGateway")?,
            force_address: flag("forceAddress")?,
            ip_masq: flag("ipMasq")?,
            mtu: mtu(&fields)?,
            hairpin: flag("hairpinMode")?,
            promisc: flag("promiscMode")?,
            vlans: vlans(&fields)?,
            macspoofchk: flag("macspoofchk")?,
            enable_dad: flag("enabledad")?,
            disable_container_interface: flag("disableContainerInterface")?,
            port_isolation: flag("portIsolation")?,
            mac: mac(call, &fields)?,
            ipam: call.conf.ipam_type.clone(),
            dns: call.conf.dns.clone(),
        };
        check_masq_backend(&fields)?;
        if conf.hairpin && conf.promisc {
            return Err(invalid_config(
                "cannot set hairpin mode and promiscuous mode at the same time",
                "set only one of `hairpinMode` and `promiscMode`",
            ));
        }
        if conf.disable_container_interface && conf.ipam.is_some() {
            return Err(invalid_config(
                "cannot use IPAM when the container interface is disabled",
                "remove `ipam` or `disableContainerInterface`",
            ));
        }
        Ok(conf)
    }
}

/// Name of the bridge, for every verb: DEL and GC read nothing else that could be wrong.
pub fn bridge_name(fields: &Fields) -> Result<IfName, CniError> {
    match fields.str("bridge")?.filter(|name| !name.is_empty()) {
        Some(name) => IfName::parse(&name).map_err(|e| {
            invalid_config(
                format!("`bridge`: {}", e.msg),
                "name the bridge as an interface: 1 to 15 bytes, no `/`, `:` or blank",
            )
        }),
        None => IfName::parse(DEFAULT_BRIDGE),
    }
}

fn mtu(fields: &Fields) -> Result<Mtu, CniError> {
    let value = fields.node("mtu");
    if value.as_deref().and_then(Node::as_str) == Some("auto") {
        return Ok(Mtu::Auto);
    }
    match fields.i64("mtu")?.unwrap_or_default() {
        0 => Ok(Mtu::Default),
        n => match u32::try_from(n) {
            Ok(bytes) if (68..=65535).contains(&bytes) => Ok(Mtu::Bytes(bytes)),
            _ => Err(invalid_config(
                format!("`mtu` {n} is out of range"),
                "give 0 (the kernel's default), 68 to 65535, or \"auto\"",
            )),
        },
    }
}

/// Either backend means "masquerade": this suite speaks nf_tables whatever the name.
fn check_masq_backend(fields: &Fields) -> Result<(), CniError> {
    match fields.str("ipMasqBackend")?.as_deref() {
        None | Some("" | "iptables" | "nftables") => Ok(()),
        Some(other) => Err(invalid_config(
            format!("unknown ipmasq backend {other:?}"),
            "`ipMasqBackend` is \"iptables\" or \"nftables\"; both masquerade through nf_tables here",
        )),
    }
}

/// `runtimeConfig.mac` over `args.cni.mac` over `MAC` in `CNI_ARGS`.
fn mac(call: &Call, fields: &Fields) -> Result<Option<Mac>, CniError> {
    let mut text = parse_args(&call.env.args, KNOWN_ARGS)?
        .into_iter()
        .rfind(|(key, _)| key == "MAC")
        .map(|(_, value)| value)
        .filter(|v| !v.is_empty());
    let nested = |outer: &[&str]| -> Result<Option<String>, CniError> { Ok(fields.str_at(outer)?) };
    for path in [&["args", "cni", "mac"][..], &["runtimeConfig", "mac"]] {
        if let Some(value) = nested(path)?.filter(|v| !v.is_empty()) {
            text = Some(value);
        }
    }
    let Some(text) = text else { return Ok(None) };
    match Mac::parse(&text) {
        Some(mac) if !mac.is_multicast() && !mac.is_zero() => Ok(Some(mac)),
        _ => Err(invalid_config(
            format!("invalid MAC address {text:?}"),
            "give six hex bytes of a unicast address, such as 02:00:5e:10:00:01",
        )),
    }
}

fn vlans(fields: &Fields) -> Result<Vlans, CniError> {
    let pvid = fields.i64("vlan")?.unwrap_or_default();
    let pvid = u16::try_from(pvid)
        .ok()
        .filter(|&id| i64::from(id) <= VLAN_MAX)
        .ok_or_else(|| {
            invalid_config(
                format!("invalid VLAN ID {pvid} (must be between 0 and {VLAN_MAX})"),
                "correct `vlan`",
            )
        })?;
    let items = fields.array("vlanTrunk")?;
    let filtering = pvid != 0 || items.is_some();
    let mut trunk = Vec::new();
    for (at, item) in items.unwrap_or_default().iter().enumerate() {
        trunk.extend(trunk_item(&Fields::of(item, &format!("vlanTrunk[{at}]"))?)?);
    }
    trunk.sort_unstable();
    trunk.dedup();
    Ok(Vlans {
        pvid,
        trunk,
        filtering,
        preserve_default: fields.bool("preserveDefaultVlan")?.unwrap_or_default(),
    })
}

/// One item: `{"minID":…,"maxID":…}` and/or `{"id":…}`.
fn trunk_item(item: &Fields) -> Result<Vec<u16>, CniError> {
    let id = |key: &str| -> Result<Option<u16>, CniError> {
        let Some(n) = item.i64(key)? else {
            return Ok(None);
        };
        u16::try_from(n)
            .ok()
            .filter(|&id| id > 0 && i64::from(id) <= VLAN_MAX)
            .map(Some)
            .ok_or_else(|| {
                invalid_config(
                    format!("incorrect trunk {key} parameter: {n}"),
                    "VLAN IDs of `vlanTrunk` are 1 to 4094",
                )
            })
    };
    let mut ids: Vec<u16> = match (id("minID")?, id("maxID")?) {
        (Some(min), Some(max)) if min <= max => (min..=max).collect(),
        (Some(_), Some(_)) => {
            return Err(invalid_config(
                "minID is greater than maxID in trunk parameter",
                "swap them",
            ));
        }
        (None, None) => Vec::new(),
        _ => {
            return Err(invalid_config(
                "minID and maxID should be configured simultaneously",
                "give both, or `id`",
            ));
        }
    };
    ids.extend(id("id")?);
    Ok(ids)
}

/// Where a check fails for a reason that is not the configuration's.
pub fn internal(msg: impl Into<String>) -> CniError {
    CniError::new(Code::Internal, msg)
}

#[cfg(test)]
impl Conf {
    /// What an empty configuration means.
    pub fn test_default() -> Self {
        Self {
            bridge: IfName::parse(DEFAULT_BRIDGE).unwrap(),
            is_gateway: false,
            is_default_gateway: false,
            force_address: false,
            ip_masq: false,
            mtu: Mtu::Default,
            hairpin: false,
            promisc: false,
            vlans: Vlans::default(),
            macspoofchk: false,
            enable_dad: false,
            disable_container_interface: false,
            port_isolation: false,
            mac: None,
            ipam: None,
            dns: Dns::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(json: &str, read: impl FnOnce(&Fields) -> Result<T, CniError>) -> Result<T, String> {
        let node = Node::parse(json.as_bytes()).unwrap();
        let fields = Fields::of(&node, "").unwrap();
        read(&fields).map_err(|e| e.msg)
    }

    #[test]
    fn mtu_is_bytes_or_auto() {
        for (json, wanted) in [
            ("{}", Mtu::Default),
            (r#"{"mtu":0}"#, Mtu::Default),
            (r#"{"MTU":1450}"#, Mtu::Bytes(1450)),
            (r#"{"mtu":"auto"}"#, Mtu::Auto),
        ] {
            assert_eq!(with(json, mtu), Ok(wanted), "{json}");
        }
        for json in [
            r#"{"mtu":67}"#,
            r#"{"mtu":-1}"#,
            r#"{"mtu":65536}"#,
            r#"{"mtu":"1500"}"#,
            r#"{"mtu":1.5}"#,
        ] {
            assert!(with(json, mtu).unwrap_err().contains("mtu"), "{json}");
        }
    }

    #[test]
    fn a_trunk_is_a_sorted_union() {
        let json = r#"{"vlan":7,"vlanTrunk":[{"minID":20,"maxID":22},{"id":21},{"id":3}],"preserveDefaultVlan":true}"#;
        let wanted = Vlans {
            pvid: 7,
            trunk: vec![3, 20, 21, 22],
            filtering: true,
            preserve_default: true,
        };
        assert_eq!(with(json, vlans), Ok(wanted));
        // Also an empty trunk asks for a bridge that filters.
        assert!(with(r#"{"vlanTrunk":[]}"#, vlans).unwrap().filtering);
        assert!(!with("{}", vlans).unwrap().filtering);
    }

    #[test]
    fn wrong_vlans_are_named() {
        for (json, msg) in [
            (
                r#"{"vlan":4095}"#,
                "invalid VLAN ID 4095 (must be between 0 and 4094)",
            ),
            (
                r#"{"vlan":-1}"#,
                "invalid VLAN ID -1 (must be between 0 and 4094)",
            ),
            (
                r#"{"vlanTrunk":[{"minID":5}]}"#,
                "minID and maxID should be configured simultaneously",
            ),
            (
                r#"{"vlanTrunk":[{"minID":5,"maxID":4}]}"#,
                "minID is greater than maxID in trunk parameter",
            ),
            (
                r#"{"vlanTrunk":[{"id":0}]}"#,
                "incorrect trunk id parameter: 0",
            ),
            (
                r#"{"vlanTrunk":[{"minID":1,"maxID":4095}]}"#,
                "incorrect trunk maxID parameter: 4095",
            ),
        ] {
            assert_eq!(with(json, vlans), Err(msg.to_owned()), "{json}");
        }
    }

    #[test]
    fn either_masquerade_backend_is_ours() {
        for json in [
            "{}",
            r#"{"ipMasqBackend":"iptables"}"#,
            r#"{"ipMasqBackend":"nftables"}"#,
        ] {
            assert_eq!(with(json, check_masq_backend), Ok(()));
        }
        assert!(with(r#"{"ipMasqBackend":"pf"}"#, check_masq_backend).is_err());
    }
}
