//! What the Go plugins left behind, found by the names they derive and removed.
//!
//! For nodes that change over with pods alive: such a pod was added by the reference and is deleted by us. Its
//! objects are found by name, without a list of anything, so where there are none it costs a few reads:
//!
//! | made by | what | where |
//! |---|---|---|
//! | `ipMasq`, iptables-nft | chain `CNI-<24 hex>`, a jump for each address | `ip nat`, `ip6 nat` |
//! | `ipMasq`, iptables-legacy | the same | the kernel's old tables |
//! | `ipMasqBackend: nftables` | a rule for each address, by its comment | `inet cni_plugins_masquerade` |
//! | `macspoofchk` | two chains and a jump | `bridge nat` |
//!
//! Tables and base chains stay: other pods of the reference may use them. Names: `pkg/utils/utils.go`,
//! `pkg/ip/ipmasq_{iptables,nftables}_linux.go`, `pkg/link/spoofcheck.go` of containernetworking/plugins v1.9.1.

use std::net::IpAddr;

use super::{FirewallError, settle, sha512};
use crate::kernel::nft::{Family, ListedRule, Netfilter, Table, Transaction};
use crate::nl::NlError;
use crate::spec::{Attachment, NetName};

mod iptables;
mod xtables;

const GO_MASQUERADE: Table<'static> = Table::new(Family::Inet, "cni_plugins_masquerade");
const GO_MASQUERADE_CHAIN: &str = "masq_checks";
const GO_SPOOF: Table<'static> = Table::new(Family::Bridge, "nat");
const GO_SPOOF_BASE: &str = "PREROUTING";
/// What a name may have in nf_tables, its NUL included (`NFT_NAME_MAXLEN`).
const NAME_BYTES: usize = 256;
/// Hex digits of each half of the nftables backend's comment.
const HALF_DIGITS: usize = 16;

/// Removes what the reference made for the attachment: masquerading of the `addresses`, the MAC filter.
///
/// The reference's iptables chain is shared by all interfaces a container has on the network (its name leaves the
/// interface out), so the addresses tell whose jump is whose, and the chain goes with its last jump. With none of its
/// addresses known the chain stays.
///
/// Returns what it could not do and nobody can help now, a line each, for the log. Deletes if it finds something; then
/// closing `netfilter` waits.
///
/// # Errors
/// [`FirewallError::Kernel`], after everything was tried.
pub fn remove(
    netfilter: &mut Netfilter,
    net: &NetName,
    attachment: &Attachment,
    addresses: &[IpAddr],
) -> Result<Vec<String>, FirewallError> {
    let chain = iptables::chain_name(net, attachment.container_id.as_str());
    let comment = masquerade_comment(net, attachment);
    let spoof = [
        "cni-br-iface-",
        attachment.container_id.as_str(),
        "-",
        attachment.ifname.as_str(),
    ]
    .concat();
    let mut outcomes = vec![
        settle("the reference's nftables masquerading", |_| {
            remove_rules(netfilter, &GO_MASQUERADE, GO_MASQUERADE_CHAIN, &|l| {
                l.rule.comment.starts_with(&comment)
            })
        }),
        settle("the reference's MAC filter", |_| {
            remove_spoof(netfilter, &spoof)
        }),
    ];
    for table in &iptables::TABLES {
        outcomes.push(settle("the reference's iptables masquerading", |_| {
            iptables::remove(netfilter, table, &chain, addresses)
        }));
    }
    let warnings = xtables::remove(&chain, net, attachment, addresses);
    outcomes
        .into_iter()
        .collect::<Result<(), _>>()
        .map(|()| warnings)
}

/// Removes what the reference made for containers of this network that are in none of the `valid` attachments.
///
/// Not its MAC filters, which do not name their network, and not the old kernel tables.
///
/// # Errors
/// [`FirewallError::Kernel`], after everything was tried.
pub fn gc(
    netfilter: &mut Netfilter,
    net: &NetName,
    valid: &[Attachment],
) -> Result<(), FirewallError> {
    let of_network = [&sha512::hex(net.as_str(), HALF_DIGITS), "-"].concat();
    let valid_comments: Vec<String> = valid
        .iter()
        .map(|attachment| masquerade_comment(net, attachment))
        .collect();
    let stale = |listed: &ListedRule| {
        let comment = &listed.rule.comment;
        comment.starts_with(&of_network)
            && !valid_comments
                .iter()
                .any(|valid| comment.starts_with(valid))
    };
    let mut outcomes = vec![settle("the reference's nftables masquerading", |_| {
        remove_rules(netfilter, &GO_MASQUERADE, GO_MASQUERADE_CHAIN, &stale)
    })];
    for table in &iptables::TABLES {
        outcomes.push(settle("the reference's iptables masquerading", |_| {
            iptables::gc(netfilter, table, net, valid)
        }));
    }
    outcomes.into_iter().collect()
}

/// `H(network)[:16]-H(ifname:containerID)[:16]`: how the nftables backend's comments begin.
fn masquerade_comment(net: &NetName, attachment: &Attachment) -> String {
    let owner = [
        attachment.ifname.as_str(),
        ":",
        attachment.container_id.as_str(),
    ]
    .concat();
    [
        &sha512::hex(net.as_str(), HALF_DIGITS),
        "-",
        &sha512::hex(&owner, HALF_DIGITS),
    ]
    .concat()
}

/// Deletes some rules of a chain, if it exists.
fn remove_rules(
    netfilter: &mut Netfilter,
    table: &Table<'_>,
    chain: &str,
    doomed: &dyn Fn(&ListedRule) -> bool,
) -> Result<(), NlError> {
    let mut transaction = Transaction::new();
    // A list of a chain that does not exist is as cheap as a get, and empty.
    for listed in table.rules(netfilter, chain)?.iter().filter(|l| doomed(l)) {
        transaction.push(table.del_rule(chain, listed.handle));
    }
    transaction.commit(netfilter)
}

/// The jumps to the interface's chain, that chain, and the one it jumps to.
fn remove_spoof(netfilter: &mut Netfilter, chain: &str) -> Result<(), NlError> {
    let mac_chain = [chain, "-mac"].concat();
    // The kernel refuses such a name, even in a question: the reference cannot have used it.
    if mac_chain.len() >= NAME_BYTES {
        return Ok(());
    }
    let there = [chain, &mac_chain].map(|name| GO_SPOOF.chain(netfilter, name));
    let [there, mac_there] = there.map(|found| found.map(|chain| chain.is_some()));
    let (there, mac_there) = (there?, mac_there?);
    let mut transaction = Transaction::new();
    if there {
        for listed in GO_SPOOF.rules(netfilter, GO_SPOOF_BASE)? {
            if iptables::jumps_to(&listed.rule, chain) {
                transaction.push(GO_SPOOF.del_rule(GO_SPOOF_BASE, listed.handle));
            }
        }
        transaction.push(GO_SPOOF.del_chain(chain));
    }
    if mac_there {
        transaction.push(GO_SPOOF.del_chain(&mac_chain));
    }
    transaction.commit(netfilter)
}

#[cfg(test)]
mod tests;
