//! deploy/kubernetes.yaml is what the agent needs, and no more.

use clap::Parser;
use overlayd::options::{DirectoryKind, Options as Flags};

use super::*;

fn manifest() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kubernetes.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, documents) = text.split_once("\n---\n").unwrap();
    let documents = documents.split("\n---\n");
    documents
        .map(|text| serde_saphyr::from_str(text).unwrap())
        .collect()
}

fn of_kind(kind: &str) -> Value {
    let mut all = manifest()
        .into_iter()
        .filter(|object| object["kind"] == kind);
    let found = all.next().unwrap();
    assert!(all.next().is_none());
    found
}

fn container() -> Value {
    of_kind("DaemonSet")["spec"]["template"]["spec"]["containers"][0].clone()
}

#[test]
fn its_objects_name_each_other() {
    let kinds: Vec<_> = manifest()
        .iter()
        .map(|object| object["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        kinds,
        [
            "Namespace",
            "ServiceAccount",
            "ClusterRole",
            "ClusterRoleBinding",
            "ConfigMap",
            "DaemonSet"
        ]
    );
    let namespace = of_kind("Namespace")["metadata"]["name"].clone();
    for kind in ["ServiceAccount", "ConfigMap", "DaemonSet"] {
        assert_eq!(of_kind(kind)["metadata"]["namespace"], namespace);
    }
    let (binding, account) = (of_kind("ClusterRoleBinding"), of_kind("ServiceAccount"));
    assert_eq!(
        binding["roleRef"]["name"],
        of_kind("ClusterRole")["metadata"]["name"]
    );
    assert_eq!(binding["subjects"][0]["name"], account["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["namespace"], namespace);
    let set = of_kind("DaemonSet");
    let pod = &set["spec"]["template"];
    assert_eq!(
        pod["spec"]["serviceAccountName"],
        account["metadata"]["name"]
    );
    assert_eq!(
        set["spec"]["selector"]["matchLabels"],
        pod["metadata"]["labels"]
    );
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let config = volumes
        .iter()
        .find(|volume| volume["configMap"].is_object())
        .unwrap();
    assert_eq!(
        config["configMap"]["name"],
        of_kind("ConfigMap")["metadata"]["name"]
    );
    let mounts = container()["volumeMounts"].as_array().unwrap().clone();
    let names = |list: &[Value]| list.iter().map(|v| v["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(volumes), names(&mounts));
    for (volume, mount) in volumes.iter().zip(&mounts) {
        if volume["hostPath"].is_object() {
            assert_eq!(volume["hostPath"]["path"], mount["mountPath"]);
        }
        assert_ne!(mount["mountPath"], "/opt/cni/bin");
    }
}

#[test]
fn the_agent_is_no_more_privileged_than_it_must_be() {
    let set = of_kind("DaemonSet");
    assert_eq!(set["spec"]["template"]["spec"]["hostNetwork"], true);
    let security = container()["securityContext"].clone();
    assert_eq!(security["privileged"], false);
    assert_eq!(
        security["capabilities"],
        json!({ "drop": ["ALL"], "add": ["NET_ADMIN"] })
    );
    assert_eq!(
        of_kind("ClusterRole")["rules"],
        json!([
            { "apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"] },
            { "apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"] },
        ])
    );
}

#[test]
fn its_configuration_and_arguments_are_taken() {
    let text = of_kind("ConfigMap")["data"]["net-conf.json"]
        .as_str()
        .unwrap()
        .to_owned();
    let conf = conf(&text);
    assert!(conf.warnings.is_empty(), "{:?}", conf.warnings);
    let container = container();
    let args = container["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arg| arg.as_str().unwrap());
    let flags = Flags::try_parse_from(std::iter::once("overlayd").chain(args)).unwrap();
    assert_eq!(flags.directory.kind(), DirectoryKind::Kubernetes);
    assert!(flags.node.ip_masq);
    let mounts = |path: &std::path::Path| {
        let all = container["volumeMounts"].as_array().unwrap();
        all.iter()
            .any(|mount| path.starts_with(mount["mountPath"].as_str().unwrap()))
    };
    for path in [
        &flags.node.subnet_file,
        &flags.node.cni_conf,
        &flags.node.state_dir,
        &flags.directory.net_config_path,
    ] {
        assert!(mounts(path), "{}", path.display());
    }
    for probe in ["livenessProbe", "readinessProbe"] {
        let probe = &container[probe]["httpGet"];
        assert_eq!(probe["port"], flags.node.healthz_port);
        assert_eq!(probe["host"], flags.node.healthz_ip.to_string());
    }
}

/// The rights of the manifest are all that is asked for, from the first word to the last.
#[test]
fn what_the_agent_asks_for_is_what_it_may() {
    scene(|api| async move {
        api.put(apiserver::node("me", &["10.244.1.0/24"]));
        let mut directory = open(&api).await;
        directory.hints().await.unwrap();
        let conf = conf(V4);
        let of_me = me(&conf);
        let lease = directory.lease(&conf, &of_me, None).await.unwrap();
        let mut running = follow(directory, conf, of_me, lease);
        running.until_complete().await;
        running.ready.send_replace(Ready::Yes);
        eventually(|| api.condition("me")["status"] == "False" && api.watches() == 1).await;
        for asked in api.asked("", "") {
            let (path, query) = asked.uri.split_once('?').unwrap_or((&asked.uri, ""));
            let verb = match (asked.method.as_str(), path) {
                ("GET", "/api/v1/nodes") if query.contains("watch=true") => "watch",
                ("GET", "/api/v1/nodes") => "list",
                ("PATCH", "/api/v1/nodes/me/status") => "patch",
                other => panic!("{other:?}"),
            };
            println!("{verb}");
        }
        assert!(api.asked("PATCH", "/status").len() >= 2);
    });
}
