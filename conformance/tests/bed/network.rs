//! A network of ours, called as a runtime calls it: the plugins in order with each other's results, DEL backwards with
//! the cached one. Not every test file uses all of it.
#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Call, Output, Pod};

/// A network configuration list.
pub struct Network {
    /// `None` where each plugin's says its own.
    version: Option<&'static str>,
    name: String,
    plugins: Vec<Value>,
}

/// A pod on it, from ADD to [`Attached::detach`].
pub struct Attached<'n> {
    network: &'n Network,
    pub pod: Pod,
    /// `CNI_CONTAINERID`
    pub id: String,
    /// What ADD returned.
    pub result: Value,
}

// === impl Network ===

impl Network {
    pub fn new(name: &str, plugins: &[Value]) -> Network {
        let (name, plugins) = (name.to_owned(), plugins.to_vec());
        Network {
            version: Some("1.1.0"),
            name,
            plugins,
        }
    }

    /// `bridge` with `host-local`, whose keys are given over the usual ones, and `loopback`.
    pub fn bridge(bridge: &str, ipam: &Value, more: &Value) -> Network {
        let mut conf = json!({"type": "bridge", "bridge": bridge, "isDefaultGateway": true, "hairpinMode": true});
        conf["ipam"] = ipam.clone();
        conf["ipam"]["type"] = "host-local".into();
        lay_over(&mut conf, more);
        Network::new(bridge, &[conf, json!({"type": "loopback"})])
    }

    /// The same under another name.
    pub fn named(self, name: &str) -> Network {
        let name = name.to_owned();
        Network { name, ..self }
    }

    /// Where each plugin's own configuration says the spec version.
    pub fn of_its_own_version(self) -> Network {
        Network {
            version: None,
            ..self
        }
    }

    /// ADD for a new pod.
    #[track_caller]
    pub fn attach(&self, id: &str) -> Attached<'_> {
        self.attach_pod(Pod::new(id), id)
    }

    /// ADD for a namespace that is there.
    #[track_caller]
    pub fn attach_pod(&self, pod: Pod, id: &str) -> Attached<'_> {
        let mut result = Value::Null;
        for at in 0..self.plugins.len() {
            let output = self.call(at, "ADD", id, &pod, &result);
            assert!(output.status.success(), "ADD of {id}: {output:?}");
            result = output.json();
        }
        Attached {
            network: self,
            pod,
            id: id.to_owned(),
            result,
        }
    }

    /// One call of one plugin of the list.
    pub fn call(&self, at: usize, verb: &str, id: &str, pod: &Pod, previous: &Value) -> Output {
        let mut conf = self.plugins[at].clone();
        if let Some(version) = self.version {
            conf["cniVersion"] = version.into();
        }
        conf["name"] = self.name.clone().into();
        if !previous.is_null() {
            conf["prevResult"] = previous.clone();
        }
        let plugins = testkit::bin_dir();
        Call::new(plugins.join(conf["type"].as_str().unwrap()))
            .verb(verb)
            .container(id)
            .netns(pod.netns())
            .ifname("eth0")
            .cni_path(&plugins)
            .stdin(conf.to_string())
            .run()
    }
}

fn lay_over(conf: &mut Value, more: &Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        conf[key] = value.clone();
    }
}

// === impl Attached ===

impl Attached<'_> {
    /// The pod's address at this place in the result, without its length.
    pub fn ip(&self, at: usize) -> &str {
        let address = self.result["ips"][at]["address"].as_str().unwrap();
        address.split('/').next().unwrap()
    }

    /// Name of the host end.
    pub fn host_end(&self) -> &str {
        self.result["interfaces"][1]["name"].as_str().unwrap()
    }

    /// MAC of the pod end.
    pub fn mac(&self) -> &str {
        self.result["interfaces"][2]["mac"].as_str().unwrap()
    }

    /// Whether the very first packet is answered.
    pub fn reaches(&self, ip: &str) -> bool {
        ping(&mut self.pod.command("ping"), ip)
    }

    /// What CHECK says.
    pub fn check(&self) -> Output {
        self.network
            .call(0, "CHECK", &self.id, &self.pod, &self.result)
    }

    /// DEL, and the end of the pod.
    #[track_caller]
    pub fn detach(self) {
        for at in (0..self.network.plugins.len()).rev() {
            let output = self
                .network
                .call(at, "DEL", &self.id, &self.pod, &self.result);
            assert!(output.status.success(), "DEL of {}: {output:?}", self.id);
        }
    }
}

/// One packet, one answer within a second.
pub fn ping(command: &mut std::process::Command, ip: &str) -> bool {
    let output = command.args(["-n", "-c1", "-W1", ip]).output().unwrap();
    output.status.success()
}

/// One packet from the node.
pub fn node_reaches(ip: &str) -> bool {
    ping(&mut std::process::Command::new("ping"), ip)
}

/// The reservations of a network and what goes with them, without hidden names.
pub fn store(network: &str) -> Vec<String> {
    let dir = fs::read_dir(format!("/var/lib/cni/networks/{network}"))
        .into_iter()
        .flatten();
    let mut names: Vec<_> = dir
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

/// How long a packet may be under way.
pub const PATIENCE: Duration = Duration::from_secs(2);
