//! `macspoofchk`: from a pod's port only frames with the pod's own source address get onto the bridge.
//!
//! One rule for all pods, and two elements for each:
//! ```text
//! table bridge podwire {
//!     set guarded { type ifname; elements = { "vethab12cd34" comment "cbr0 <container ID> eth0" } }
//!     set allowed { type ifname . ether_addr; elements = {
//!         "vethab12cd34" . 42:be:53:ec:aa:c4 comment "cbr0 <container ID> eth0" } }
//!     chain prerouting {
//!         type filter hook prerouting priority dstnat; policy accept;
//!         iifname @guarded iifname . ether saddr != @allowed drop
//!     }
//! }
//! ```
//! (The reference makes two chains and four rules per pod in table `bridge nat`; [`super::legacy`] removes those.)
//! IP addresses are not filtered, as in the reference.

use super::{FirewallError, TABLE, TABLE_COMMENT, is_of_network, owner, settle};
use crate::kernel::Mac;
use crate::kernel::nft::{
    Base, Element, Family, KeyType, Netfilter, Rule, SetSpec, Table, Transaction, Verdict,
    matching, tidy,
};
use crate::nl::NlError;
use crate::spec::{Attachment, IfName, NetName};

const BRIDGE: Table<'static> = Table::new(Family::Bridge, TABLE);
const CHAIN: &str = "prerouting";
const GUARDED: SetSpec<'static> = SetSpec {
    name: "guarded",
    key: KeyType::IFNAME,
    verdicts: false,
    comment: "ports of pods",
};
const ALLOWED: SetSpec<'static> = SetSpec {
    name: "allowed",
    key: KeyType::IFNAME_ETHER,
    verdicts: false,
    comment: "what may come from them",
};
/// IFNAMSIZ
const IFNAME_BYTES: usize = 16;

/// Guards the port: frames that enter the bridge there need this source address. What another attachment left under
/// the same port's name is replaced. Writes nothing if it stands already.
///
/// # Errors
/// [`FirewallError::Kernel`]; nothing has changed then.
pub fn add(
    netfilter: &mut Netfilter,
    net: &NetName,
    attachment: &Attachment,
    port: &IfName,
    mac: Mac,
) -> Result<(), FirewallError> {
    let pair = Pair::new(owner(net, attachment), port, mac);
    settle(&what(port.as_str()), |attempt| {
        pair.ensure(netfilter, attempt)
    })
}

/// Whether the port is guarded as [`add`] made it, rule included.
///
/// # Errors
/// [`FirewallError::Tampered`] if not.
pub fn check(
    netfilter: &mut Netfilter,
    net: &NetName,
    attachment: &Attachment,
    port: &IfName,
    mac: Mac,
) -> Result<(), FirewallError> {
    let pair = Pair::new(owner(net, attachment), port, mac);
    let what = what(port.as_str());
    match pair
        .missing(netfilter)
        .map_err(|e| FirewallError::kernel(&what, e))?
    {
        None => Ok(()),
        Some(object) => Err(FirewallError::Tampered {
            what,
            family: Family::Bridge,
            object: object.to_owned(),
        }),
    }
}

/// Removes what the attachment has, whatever its port was called, and with the last element the table. Success if
/// there is nothing. Deletes if it finds something; then closing `netfilter` waits.
///
/// # Errors
/// [`FirewallError::Kernel`]
pub fn remove(
    netfilter: &mut Netfilter,
    net: &NetName,
    attachment: &Attachment,
) -> Result<(), FirewallError> {
    let owner = owner(net, attachment);
    settle(&what(attachment.ifname.as_str()), |_| {
        remove_where(netfilter, &|comment| comment == owner)
    })
}

/// Removes the elements of this network that belong to none of the `valid` attachments.
///
/// # Errors
/// [`FirewallError::Kernel`]
pub fn gc(
    netfilter: &mut Netfilter,
    net: &NetName,
    valid: &[Attachment],
) -> Result<(), FirewallError> {
    let valid: Vec<String> = valid
        .iter()
        .map(|attachment| owner(net, attachment))
        .collect();
    let stale = |comment: &str| is_of_network(comment, net) && !valid.iter().any(|v| v == comment);
    settle(&what(net.as_str()), |_| remove_where(netfilter, &stale))
}

fn what(subject: &str) -> String {
    ["MAC filter for ", subject].concat()
}

fn remove_where(netfilter: &mut Netfilter, doomed: &dyn Fn(&str) -> bool) -> Result<(), NlError> {
    let mut transaction = Transaction::new();
    let mut is_empty = true;
    for set in [GUARDED.name, ALLOWED.name] {
        for element in BRIDGE.elements(netfilter, set)? {
            is_empty = false;
            if doomed(&element.comment) {
                transaction.push(BRIDGE.del_element(set, &element.key));
            }
        }
    }
    if !transaction.is_empty() {
        transaction.commit(netfilter)?;
    } else if !is_empty || BRIDGE.uses(netfilter)?.is_none() {
        return Ok(()); // else the table is what a killed DEL left
    }
    // Only now: of several that delete the last elements at once, each sees the others' before, and the last one sees
    // none behind.
    tidy(|| remove_empty_table(netfilter))
}

fn remove_empty_table(netfilter: &mut Netfilter) -> Result<(), NlError> {
    // Somebody may just be adding: delete only if nothing changes meanwhile.
    let generation = netfilter.generation()?;
    for set in [GUARDED.name, ALLOWED.name] {
        if !BRIDGE.elements(netfilter, set)?.is_empty() {
            return Ok(());
        }
    }
    let mut transaction = Transaction::at_generation(generation);
    if BRIDGE.uses(netfilter)?.is_some() {
        transaction.push(BRIDGE.del());
    }
    transaction.commit(netfilter)
}

/// `iifname @guarded iifname . ether saddr != @allowed drop`
fn rule() -> Rule {
    Rule::new(
        matching::input_in(GUARDED.name)
            .input_and_mac_not_in(ALLOWED.name)
            .verdict(Verdict::Drop),
        "",
    )
}

/// A transaction that begins with the table and all of it that does not belong to a pod.
fn with_table(netfilter: &mut Netfilter, attempt: u32) -> Result<Transaction, NlError> {
    let mut transaction = Transaction::begin(netfilter, attempt)?;
    if BRIDGE.chain(netfilter, CHAIN)?.is_none() {
        transaction.push(BRIDGE.add(TABLE_COMMENT));
        transaction.push(BRIDGE.add_set(&GUARDED));
        transaction.push(BRIDGE.add_set(&ALLOWED));
        transaction.push(BRIDGE.add_chain(CHAIN, Some(Base::BRIDGE_PREROUTING), ""));
        transaction.push(BRIDGE.add_rule(CHAIN, &rule()));
    }
    Ok(transaction)
}

/// A port's two elements.
struct Pair {
    guarded: Element,
    allowed: Element,
}

// === impl Pair ===

impl Pair {
    fn new(owner: String, port: &IfName, mac: Mac) -> Pair {
        let mut name = port.as_str().as_bytes().to_vec();
        name.resize(IFNAME_BYTES, 0);
        let mut name_and_mac = name.clone();
        name_and_mac.extend_from_slice(&mac.0);
        name_and_mac.extend_from_slice(&[0; 2]);
        Pair {
            guarded: Element {
                key: name,
                verdict: None,
                comment: owner.clone(),
            },
            allowed: Element {
                key: name_and_mac,
                verdict: None,
                comment: owner,
            },
        }
    }

    fn ensure(&self, netfilter: &mut Netfilter, attempt: u32) -> Result<(), NlError> {
        let guarded = BRIDGE.element(netfilter, GUARDED.name, &self.guarded.key)?;
        let allowed = BRIDGE.element(netfilter, ALLOWED.name, &self.allowed.key)?;
        if guarded.as_ref() == Some(&self.guarded) && allowed.as_ref() == Some(&self.allowed) {
            return Ok(());
        }
        let mut transaction = match BRIDGE.chain(netfilter, CHAIN)? {
            Some(_) => Transaction::new(),
            None => with_table(netfilter, attempt)?,
        };
        if guarded.is_some() {
            transaction.push(BRIDGE.del_element(GUARDED.name, &self.guarded.key));
        }
        if guarded.is_some() || allowed.is_some() {
            for former in BRIDGE.elements(netfilter, ALLOWED.name)? {
                if former.key.starts_with(&self.guarded.key) {
                    transaction.push(BRIDGE.del_element(ALLOWED.name, &former.key));
                }
            }
        }
        transaction.push(BRIDGE.add_element(GUARDED.name, &self.guarded));
        transaction.push(BRIDGE.add_element(ALLOWED.name, &self.allowed));
        transaction.commit(netfilter)
    }

    fn missing(&self, netfilter: &mut Netfilter) -> Result<Option<&'static str>, NlError> {
        if BRIDGE
            .element(netfilter, GUARDED.name, &self.guarded.key)?
            .as_ref()
            != Some(&self.guarded)
        {
            return Ok(Some("the port's element in set guarded"));
        }
        if BRIDGE
            .element(netfilter, ALLOWED.name, &self.allowed.key)?
            .as_ref()
            != Some(&self.allowed)
        {
            return Ok(Some("the port's element in set allowed"));
        }
        let base = BRIDGE
            .chain(netfilter, CHAIN)?
            .is_some_and(|c| c.is_base(Base::BRIDGE_PREROUTING));
        let whole = base && Rule::same(&[rule()], &BRIDGE.rules(netfilter, CHAIN)?);
        Ok((!whole).then_some("chain prerouting"))
    }
}

#[cfg(test)]
mod tests;
