//! Pods whose addresses come from another IPAM: one element each.

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use super::{INET, multicast, remove_empty_table};
use crate::firewall::{
    FirewallError, OBJECT_NET_BYTES, TABLE_COMMENT, is_of_network, owner, settle, shortened,
};
use crate::kernel::nft::{
    Base, Element, Family, KeyType, Netfilter, Rule, SetSpec, Transaction, Verdict, matching,
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
    // Chains and maps are there but for a network's first pod: not asked for until they are missing.
    let mut with_chains = false;
    settle(&pods.what(), || {
        let outcome = pods.ensure(netfilter, &wanted, with_chains);
        with_chains |= outcome.as_ref().is_err_and(|e| e.is(Errno::ENOENT));
        outcome
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

fn remove(
    netfilter: &mut Netfilter,
    net: &NetName,
    doomed: &dyn Fn(&str) -> bool,
) -> Result<(), FirewallError> {
    let pods = Pods::new(net);
    settle(&pods.what(), || pods.remove(netfilter, doomed))
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
        with_chains: bool,
    ) -> Result<(), NlError> {
        let mut transaction = Transaction::new();
        let mut chains = Vec::new();
        for w in wanted {
            let there = INET.element(netfilter, w.map, &w.element.key)?;
            if there.as_ref() == Some(&w.element) {
                continue;
            }
            if with_chains && !chains.contains(&&w.chain) {
                self.ensure_chains(netfilter, &mut transaction, w, chains.is_empty())?;
                chains.push(&w.chain);
            }
            if there.is_some() {
                transaction.push(INET.del_element(w.map, &w.element.key));
            }
            transaction.push(INET.add_element(w.map, &w.element));
        }
        transaction.commit(netfilter)
    }

    /// Adds to the transaction what the element needs and is not there; table and maps only the first time.
    fn ensure_chains(
        &self,
        netfilter: &mut Netfilter,
        transaction: &mut Transaction,
        wanted: &Wanted<'_>,
        first: bool,
    ) -> Result<(), NlError> {
        if first && INET.chain(netfilter, &self.base)?.is_none() {
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
        if INET.chain(netfilter, &wanted.chain)?.is_none() {
            transaction.push(INET.add_chain(&wanted.chain, None, &self.comment()));
            for rule in subnet_rules(wanted.subnet) {
                transaction.push(INET.add_rule(&wanted.chain, &rule));
            }
        }
        Ok(())
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
            return Ok(());
        }
        let (gone, left) = self.split(netfilter, doomed)?;
        if gone.is_empty() {
            return Ok(());
        }
        if unused_chains(&gone, &left).is_empty() {
            return delete(Transaction::new(), &gone).commit(netfilter);
        }
        // Somebody may just be adding to what looks unused: look again, and delete only what was seen.
        let generation = netfilter.generation()?;
        let (gone, left) = self.split(netfilter, doomed)?;
        let mut transaction = delete(Transaction::at_generation(generation), &gone);
        if left.is_empty() {
            transaction.push(INET.del_chain(&self.base));
            for (map, _) in &self.maps {
                transaction.push(INET.del_set(map));
            }
        }
        for chain in unused_chains(&gone, &left) {
            transaction.push(INET.del_chain(chain));
        }
        transaction.commit(netfilter)?;
        if left.is_empty() {
            remove_empty_table(netfilter)
        } else {
            Ok(())
        }
    }

    /// The network's elements: those to go, those to stay.
    fn split(
        &self,
        netfilter: &mut Netfilter,
        doomed: &dyn Fn(&str) -> bool,
    ) -> Result<(Vec<Found<'_>>, Vec<Found<'_>>), NlError> {
        let mut all = Vec::new();
        for (map, _) in &self.maps {
            all.extend(
                INET.elements(netfilter, map)?
                    .into_iter()
                    .map(|element| Found { map, element }),
            );
        }
        Ok(all
            .into_iter()
            .partition(|found| doomed(&found.element.comment)))
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
fn subnet_rules(subnet: IpNetwork) -> [Rule; 3] {
    [
        Rule::new(matching::destination(subnet).verdict(Verdict::Return), ""),
        Rule::new(
            matching::destination(multicast(subnet)).verdict(Verdict::Return),
            "",
        ),
        Rule::new(matching::Match::all().masquerade(), ""),
    ]
}

/// The subnet chains that only elements to go refer to.
fn unused_chains<'a>(gone: &'a [Found<'_>], left: &[Found<'_>]) -> Vec<&'a str> {
    let mut unused = Vec::new();
    for found in gone {
        let Some(Verdict::Goto(chain)) = &found.element.verdict else {
            continue;
        };
        let used = left
            .iter()
            .any(|l| l.element.verdict == found.element.verdict);
        if !used && !unused.contains(&chain.as_str()) {
            unused.push(chain.as_str());
        }
    }
    unused
}

fn delete(mut transaction: Transaction, gone: &[Found<'_>]) -> Transaction {
    for found in gone {
        transaction.push(INET.del_element(found.map, &found.element.key));
    }
    transaction
}
