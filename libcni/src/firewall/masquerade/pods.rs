//! Pods whose addresses come from another IPAM: one element each.

use ipnetwork::IpNetwork;

use super::{INET, multicast, remove_empty_table};
use crate::firewall::{
    FirewallError, OBJECT_NET_BYTES, TABLE_COMMENT, is_of_network, owner, settle, shortened,
};
use crate::kernel::nft::{
    Base, Element, Family, KeyType, Netfilter, Rule, SetSpec, Transaction, Verdict, matching, tidy,
};
use crate::nl::NlError;
use crate::spec::{Attachment, NetName};

/// Makes one pod masquerade: each of its addresses, towards what is outside the address's own subnet.
///
/// Returns after one read per address if all is there. An address that another attachment of the network held before is
/// taken over; its former owner's DEL will leave it alone.
///
/// # Errors
/// [`FirewallError::Kernel`]; nothing has changed then.
pub fn ensure_pod(
    netfilter: &mut Netfilter,
    net: &NetName,
    attachment: &Attachment,
    addresses: &[IpNetwork],
) -> Result<(), FirewallError> {
    let pods = Pods::new(net);
    let wanted = pods.wanted(&owner(net, attachment), addresses);
    settle(&pods.what(), |attempt| {
        pods.ensure(netfilter, &wanted, attempt)
    })
}

/// Whether everything [`ensure_pod`] made stands.
///
/// # Errors
/// [`FirewallError::Tampered`] if not.
pub fn check_pod(
    netfilter: &mut Netfilter,
    net: &NetName,
    attachment: &Attachment,
    addresses: &[IpNetwork],
) -> Result<(), FirewallError> {
    let pods = Pods::new(net);
    let missing = pods.first_missing(netfilter, &pods.wanted(&owner(net, attachment), addresses));
    match missing.map_err(|e| FirewallError::kernel(&pods.what(), e))? {
        None => Ok(()),
        Some(object) => Err(FirewallError::Tampered {
            what: pods.what(),
            family: Family::Inet,
            object,
        }),
    }
}

/// Removes the attachment's elements, and with the network's last one its chains and maps. Success if there are none.
/// Deletes if it finds something; then closing `netfilter` waits.
///
/// # Errors
/// [`FirewallError::Kernel`]
pub fn remove_pod(
    netfilter: &mut Netfilter,
    net: &NetName,
    attachment: &Attachment,
) -> Result<(), FirewallError> {
    let owner = owner(net, attachment);
    remove(netfilter, net, &|comment| comment == owner)
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
    remove(netfilter, net, &|comment| {
        is_of_network(comment, net) && !valid.iter().any(|v| v == comment)
    })
}

/// How many rules a subnet's chain has; what else uses it are elements.
const SUBNET_RULES: u32 = 3;

fn remove(
    netfilter: &mut Netfilter,
    net: &NetName,
    doomed: &dyn Fn(&str) -> bool,
) -> Result<(), FirewallError> {
    let pods = Pods::new(net);
    settle(&pods.what(), |_| pods.remove(netfilter, doomed))
}

/// The names of one network's objects.
struct Pods {
    net: String,
    base: String,
    maps: [(String, KeyType); 2],
}

/// An element that is to be there.
struct Wanted<'a> {
    map: &'a str,
    element: Element,
    subnet: IpNetwork,
    chain: String,
}

/// An element that is there.
struct Found<'a> {
    map: &'a str,
    element: Element,
}

// === impl Found ===

impl Found<'_> {
    /// Where its verdict leads.
    fn chain(&self) -> &str {
        match &self.element.verdict {
            Some(Verdict::Goto(chain)) => chain,
            _ => "",
        }
    }
}

// === impl Pods ===

impl Pods {
    fn new(net: &NetName) -> Pods {
        let net = shortened(net.as_str(), OBJECT_NET_BYTES).into_owned();
        let base = ["pods/", &net].concat();
        let maps = [
            ([&base, "/4"].concat(), KeyType::IPV4_ADDR),
            ([&base, "/6"].concat(), KeyType::IPV6_ADDR),
        ];
        Pods { net, base, maps }
    }

    fn what(&self) -> String {
        ["masquerade a pod of network ", &self.net].concat()
    }

    fn wanted<'a>(&'a self, owner: &str, addresses: &[IpNetwork]) -> Vec<Wanted<'a>> {
        let [(map4, _), (map6, _)] = &self.maps;
        let mut all: Vec<Wanted<'a>> = Vec::new();
        for address in addresses {
            let map = if address.is_ipv4() { map4 } else { map6 };
            let key = matching::octets(address.ip());
            // `nft` names may contain a slash, but not the colon of an IPv6 address.
            let subnet = [
                &address.network().to_string(),
                "/",
                &address.prefix().to_string(),
            ]
            .concat();
            let chain = [&self.base, "/", &subnet.replace(':', "_")].concat();
            if all.iter().any(|w| w.element.key == key) {
                continue;
            }
            let verdict = Some(Verdict::Goto(chain.clone()));
            let element = Element {
                key,
                verdict,
                comment: owner.to_owned(),
            };
            all.push(Wanted {
                map,
                element,
                subnet: *address,
                chain,
            });
        }
        all
    }

    fn ensure(
        &self,
        netfilter: &mut Netfilter,
        wanted: &[Wanted<'_>],
        attempt: u32,
    ) -> Result<(), NlError> {
        let mut changes = Vec::new();
        let mut without_chain = Vec::new();
        for w in wanted {
            let there = INET.element(netfilter, w.map, &w.element.key)?;
            if there.as_ref() == Some(&w.element) {
                continue;
            }
            if INET.chain(netfilter, &w.chain)?.is_none() {
                without_chain.push(w);
            }
            if there.is_some() {
                changes.push(INET.del_element(w.map, &w.element.key));
            }
            changes.push(INET.add_element(w.map, &w.element));
        }
        let mut transaction = match without_chain.is_empty() {
            true => Transaction::new(),
            false => self.with_chains(netfilter, &without_chain, attempt)?,
        };
        for change in changes {
            transaction.push(change);
        }
        transaction.commit(netfilter)
    }

    /// A transaction that begins with the chains the elements need, and with table, maps and base chain for a first
    /// one.
    fn with_chains(
        &self,
        netfilter: &mut Netfilter,
        elements: &[&Wanted<'_>],
        attempt: u32,
    ) -> Result<Transaction, NlError> {
        let mut transaction = Transaction::begin(netfilter, attempt)?;
        if INET.chain(netfilter, &self.base)?.is_none() {
            transaction.push(INET.add(TABLE_COMMENT));
            for (map, key) in &self.maps {
                transaction.push(INET.add_set(&SetSpec {
                    name: map,
                    key: *key,
                    verdicts: true,
                    comment: "",
                }));
            }
            transaction.push(INET.add_chain(
                &self.base,
                Some(Base::POSTROUTING_NAT),
                &self.comment(),
            ));
            for rule in self.base_rules() {
                transaction.push(INET.add_rule(&self.base, &rule));
            }
        }
        for (n, w) in elements.iter().enumerate() {
            let another_s = elements
                .iter()
                .take(n)
                .any(|before| before.chain == w.chain);
            if another_s || INET.chain(netfilter, &w.chain)?.is_some() {
                continue;
            }
            transaction.push(INET.add_chain(&w.chain, None, &self.comment()));
            for rule in subnet_rules(w.subnet) {
                transaction.push(INET.add_rule(&w.chain, &rule));
            }
        }
        Ok(transaction)
    }

    fn first_missing(
        &self,
        netfilter: &mut Netfilter,
        wanted: &[Wanted<'_>],
    ) -> Result<Option<String>, NlError> {
        for w in wanted {
            if INET.element(netfilter, w.map, &w.element.key)?.as_ref() != Some(&w.element) {
                return Ok(Some(
                    [
                        "the element of ",
                        &w.subnet.ip().to_string(),
                        " in map ",
                        w.map,
                    ]
                    .concat(),
                ));
            }
            if !Rule::same(&subnet_rules(w.subnet), &INET.rules(netfilter, &w.chain)?) {
                return Ok(Some(["chain ", &w.chain].concat()));
            }
        }
        let base = INET
            .chain(netfilter, &self.base)?
            .is_some_and(|c| c.is_base(Base::POSTROUTING_NAT));
        if !base || !Rule::same(&self.base_rules(), &INET.rules(netfilter, &self.base)?) {
            return Ok(Some(["chain ", &self.base].concat()));
        }
        Ok(None)
    }

    fn remove(
        &self,
        netfilter: &mut Netfilter,
        doomed: &dyn Fn(&str) -> bool,
    ) -> Result<(), NlError> {
        if INET.chain(netfilter, &self.base)?.is_none() {
            return remove_empty_table(netfilter); // that a killed DEL left
        }
        let mut gone = self.elements(netfilter)?;
        gone.retain(|found| doomed(&found.element.comment));
        if gone.is_empty() {
            return tidy(|| self.remove_unused(netfilter)); // likewise
        }
        let mut transaction = Transaction::new();
        for found in &gone {
            transaction.push(INET.del_element(found.map, &found.element.key));
        }
        transaction.commit(netfilter)?;
        // Only now: of several that delete the last elements at once, each sees the others' before, and the last one
        // sees none behind.
        for found in &gone {
            let chain = INET.chain(netfilter, found.chain())?;
            if chain.is_some_and(|chain| chain.uses <= SUBNET_RULES) {
                return tidy(|| self.remove_unused(netfilter));
            }
        }
        Ok(())
    }

    /// Deletes the subnet chains no element refers to, and without any element the base chain and the maps, too.
    fn remove_unused(&self, netfilter: &mut Netfilter) -> Result<(), NlError> {
        // Somebody may just be adding to what looks unused: delete only if nothing changes meanwhile.
        let generation = netfilter.generation()?;
        let left = self.elements(netfilter)?;
        let mut transaction = Transaction::at_generation(generation);
        if left.is_empty() && INET.chain(netfilter, &self.base)?.is_some() {
            transaction.push(INET.del_chain(&self.base));
            for (map, _) in &self.maps {
                transaction.push(INET.del_set(map));
            }
        }
        let subnets = [&self.base, "/"].concat();
        for chain in INET.chains(netfilter)? {
            if chain.starts_with(&subnets) && !left.iter().any(|found| found.chain() == chain) {
                transaction.push(INET.del_chain(&chain));
            }
        }
        transaction.commit(netfilter)?;
        if left.is_empty() {
            remove_empty_table(netfilter)?;
        }
        Ok(())
    }

    fn elements(&self, netfilter: &mut Netfilter) -> Result<Vec<Found<'_>>, NlError> {
        let mut all = Vec::new();
        for (map, _) in &self.maps {
            all.extend(
                INET.elements(netfilter, map)?
                    .into_iter()
                    .map(|element| Found { map, element }),
            );
        }
        Ok(all)
    }

    fn comment(&self) -> String {
        ["network ", &self.net].concat()
    }

    /// `ip saddr vmap @pods/<net>/4`, `ip6 saddr vmap @pods/<net>/6`
    fn base_rules(&self) -> [Rule; 2] {
        let [(map4, _), (map6, _)] = &self.maps;
        [(true, map4), (false, map6)]
            .map(|(ipv4, map)| Rule::new(matching::source_vmap(ipv4, map), ""))
    }
}

/// `ip daddr <subnet> return`, `ip daddr 224.0.0.0/4 return`, `masquerade`
fn subnet_rules(subnet: IpNetwork) -> [Rule; SUBNET_RULES as usize] {
    [
        Rule::new(matching::destination(subnet).verdict(Verdict::Return), ""),
        Rule::new(
            matching::destination(multicast(subnet)).verdict(Verdict::Return),
            "",
        ),
        Rule::new(matching::Match::all().masquerade(), ""),
    ]
}
