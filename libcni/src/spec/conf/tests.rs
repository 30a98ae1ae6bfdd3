use super::*;

const ALL: &[Version] = &Version::ALL;

fn read(text: &str, verb: Verb) -> Result<NetConf, CniError> {
    NetConf::read(&decode(text.as_bytes())?, verb, ALL)
}

#[track_caller]
fn refused(text: &str, verb: Verb, code: u32, msg: &str, details: &str) {
    let error = read(text, verb).unwrap_err();
    assert_eq!(
        (
            error.code.as_u32(),
            error.msg.as_str(),
            error.details.as_str()
        ),
        (code, msg, details),
        "{verb} {text}"
    );
}

/// Spec section 1, "Plugin configuration objects".
#[test]
fn the_common_keys() {
    let conf = read(
        r#"{"cniVersion":"1.1.0","name":"cbr0","type":"bridge","ipam":{"type":"host-local"},
            "dns":{"nameservers":["10.0.0.53"],"domain":"d","search":["s"],"options":["o"]},
            "prevResult":{"ips":[{"address":"10.0.0.2/24"}]},"runtimeConfig":{"mac":"x"},"args":{"cni":{"ips":[]},"y":1},
            "unknown":{"deep":[1e99]},"capabilities":{"mac":true}}"#,
        Verb::Add,
    )
    .unwrap();
    assert_eq!(conf.cni_version, Version::V1_1_0);
    assert_eq!(conf.name.as_str(), "cbr0");
    assert_eq!(conf.type_, "bridge");
    assert_eq!(conf.ipam_type.as_deref(), Some("host-local"));
    assert_eq!(conf.dns.nameservers, ["10.0.0.53"]);
    assert_eq!(
        conf.prev().unwrap().unwrap().ips[0].address.to_string(),
        "10.0.0.2/24"
    );
    assert_eq!(
        conf.runtime_config.unwrap().write_compact(),
        r#"{"mac":"x"}"#
    );
    assert_eq!(conf.args_cni.unwrap().write_compact(), r#"{"ips":[]}"#);
    assert_eq!(conf.valid_attachments, None);

    let least = read(r#"{"NAME":"n"}"#, Verb::Add).unwrap();
    assert_eq!(least.cni_version, Version::V0_1_0);
    assert_eq!((least.type_.as_str(), least.ipam_type.as_ref()), ("", None));
    assert!(least.dns.is_empty());
    assert_eq!(least.prev(), Ok(None));
    for text in [
        r#"{"name":"n","ipam":{},"args":{},"prevResult":null,"runtimeConfig":null,"dns":null,"type":null}"#,
        r#"{"name":"n","ipam":{"type":""},"args":{"cni":null},"cniVersion":null}"#,
        r#"{"name":"n","ipam":null,"args":null,"cniVersion":""}"#,
    ] {
        assert_eq!(read(text, Verb::Add).unwrap(), least, "{text}");
    }
}

#[test]
fn what_is_no_config_is_code_6() {
    let decode = |detail: &str| format!("error unmarshall network config: {detail}");
    for (text, detail) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{} {}", "trailing characters at line 1 column 4"),
        ("[]", "the document is an array; allowed: an object"),
        (
            "\"x\"",
            "the document is a string (\"x\"); allowed: an object",
        ),
        (
            r#"{"name":5}"#,
            "\"name\" is a number (5); allowed: a string",
        ),
    ] {
        for verb in [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status] {
            refused(text, verb, 6, &decode(detail), "");
        }
    }
    let detail =
        r#"decoding version from network config: "cniVersion" is a number (1); allowed: a string"#;
    refused(r#"{"name":"n","cniVersion":1}"#, Verb::Add, 6, detail, "");
}

/// Spec section 1: the name's alphabet; section 5: code 7.
#[test]
fn names() {
    for text in [
        "null",
        "{}",
        r#"{"name":""}"#,
        r#"{"name":null,"cniVersion":1}"#,
    ] {
        refused(text, Verb::Add, 7, "missing network name", "");
    }
    for name in ["../x", ".a", "a b", "ä", "a/b", "a:b"] {
        let text = Node::obj()
            .put("name", name)
            .put("cniVersion", "9")
            .build()
            .write_compact();
        refused(
            &text,
            Verb::Add,
            7,
            "invalid characters found in network name",
            name,
        );
    }
    for name in ["a", "cbr0", "a.b_c-D", "0"] {
        let text = Node::obj().put("name", name).build().write_compact();
        assert_eq!(
            network_name(&decode(text.as_bytes()).unwrap())
                .unwrap()
                .as_str(),
            name
        );
    }
}

/// Spec section 2, "CNI operations": CHECK since 0.4.0, GC and STATUS since 1.1.0.
#[test]
fn verbs_and_versions() {
    let conf = |version: &str| {
        Node::obj()
            .put("name", "n")
            .put("cniVersion", version)
            .build()
            .write_compact()
    };
    for verb in [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status] {
        for version in Version::ALL {
            let since = match verb {
                Verb::Check => Version::V0_4_0,
                Verb::Gc | Verb::Status => Version::V1_1_0,
                _ => Version::V0_1_0,
            };
            let text = conf(version.as_str());
            if version >= since {
                assert_eq!(read(&text, verb).unwrap().cni_version, version, "{verb}");
            } else {
                let msg = format!("config version does not allow {verb}");
                refused(
                    &text,
                    verb,
                    1,
                    &msg,
                    &format!("the config is \"{version}\", {verb} exists since {since}"),
                );
            }
        }
    }
    let list = r#"["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]"#;
    for version in ["9.9.9", "1.0", "1.1.00", "abc", "1.2.3.4", "v1.0.0"] {
        let details = format!("config is \"{version}\", plugin supports {list}");
        refused(
            &conf(version),
            Verb::Add,
            1,
            "incompatible CNI versions",
            &details,
        );
        refused(
            &conf(version),
            Verb::Del,
            1,
            "incompatible CNI versions",
            &details,
        );
    }
    // Where versions are compared, order matters: unparsable, too old, too new, unknown.
    for verb in [Verb::Check, Verb::Gc, Verb::Status] {
        refused(
            &conf("abc"),
            verb,
            6,
            "failed to convert major version part \"abc\": not a number",
            "",
        );
        refused(
            &conf("1.2.3.4"),
            verb,
            6,
            "invalid version \"1.2.3.4\": too many parts",
            "",
        );
        refused(
            &conf("9.9.9"),
            verb,
            1,
            &format!("plugin version does not allow {verb}"),
            "",
        );
        let details = format!("config is \"1.1\", plugin supports {list}");
        refused(&conf("1.1"), verb, 1, "incompatible CNI versions", &details);
    }
}

#[test]
fn a_plugin_may_support_less() {
    let node = decode(br#"{"name":"n","cniVersion":"1.0.0"}"#).unwrap();
    let old = &Version::ALL[..5];
    let error = |verb| NetConf::read(&node, verb, old).unwrap_err().to_string();
    assert_eq!(error(Verb::Check), "plugin version does not allow CHECK");
    assert_eq!(
        error(Verb::Add),
        r#"incompatible CNI versions; config is "1.0.0", plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0"]"#
    );
}

#[test]
fn wrong_types_are_code_7_and_name_the_key() {
    for (rest, what, allowed) in [
        (r#""type":1"#, "\"type\" is a number (1)", "a string"),
        (
            r#""ipam":"host-local""#,
            "\"ipam\" is a string (\"host-local\")",
            "an object",
        ),
        (
            r#""ipam":{"type":[]}"#,
            "\"ipam.type\" is an array",
            "a string",
        ),
        (
            r#""dns":{"nameservers":"1.1.1.1"}"#,
            "\"dns.nameservers\" is a string (\"1.1.1.1\")",
            "an array",
        ),
        (
            r#""dns":{"search":["a",1]}"#,
            "\"dns.search[1]\" is a number (1)",
            "a string",
        ),
        (
            r#""prevResult":[]"#,
            "\"prevResult\" is an array",
            "an object",
        ),
        (
            r#""runtimeConfig":"x""#,
            "\"runtimeConfig\" is a string (\"x\")",
            "an object",
        ),
        (
            r#""args":{"cni":7}"#,
            "\"args.cni\" is a number (7)",
            "an object",
        ),
        (
            r#""cni.dev/valid-attachments":{}"#,
            "\"cni.dev/valid-attachments\" is an object",
            "an array",
        ),
    ] {
        let text = format!("{{\"name\":\"n\",{rest}}}");
        refused(
            &text,
            Verb::Add,
            7,
            &format!("invalid network config: {what}"),
            &format!("allowed: {allowed}"),
        );
    }
}

/// Spec section 2, "GC": `cni.dev/valid-attachments`; libraries before the spec's release sent `cni.dev/attachments`.
#[test]
fn valid_attachments() {
    let list = |rest: &str| -> Result<Option<String>, String> {
        let text = format!("{{\"name\":\"n\",\"cniVersion\":\"1.1.0\",{rest}}}");
        let conf = read(&text, Verb::Gc).map_err(|error| error.to_string())?;
        Ok(conf.valid_attachments.map(|list| {
            list.iter()
                .map(|a| format!("{}/{}", a.container_id, a.ifname))
                .collect::<Vec<_>>()
                .join(" ")
        }))
    };
    let one = r#"[{"containerID":"a","ifname":"eth0"}]"#;
    let two = r#"[{"containerid":"b","ifName":"eth0","x":1},{"containerID":"b","ifname":"eth1"}]"#;
    let (valid, old) = ("\"cni.dev/valid-attachments\":", "\"cni.dev/attachments\":");
    for (rest, want) in [
        ("\"x\":1".to_owned(), None),
        (format!("{valid}null"), None),
        (format!("{valid}[]"), Some("")),
        (format!("{valid}{two}"), Some("b/eth0 b/eth1")),
        (format!("{old}{one}"), Some("a/eth0")),
        (format!("{old}[]"), Some("")),
        (format!("{old}{one},{valid}{two}"), Some("b/eth0 b/eth1")),
        (format!("{old}{one},{valid}[]"), Some("")),
        (format!("{old}{one},{valid}null"), Some("a/eth0")),
    ] {
        assert_eq!(list(&rest), Ok(want.map(str::to_owned)), "{rest}");
    }
    for (rest, want) in [
        (
            r#"[{"containerID":"a"}]"#,
            r#""cni.dev/valid-attachments[0].ifname" is missing; allowed: an interface name"#,
        ),
        (
            r#"[{"containerID":"a","ifname":"x"},{"containerID":"../a","ifname":"x"}]"#,
            r#""cni.dev/valid-attachments[1].containerID" is "../a"; allowed: a container ID"#,
        ),
        (
            r#"[null]"#,
            r#""cni.dev/valid-attachments[0].containerID" is missing; allowed: a container ID"#,
        ),
        (
            r#"["a"]"#,
            r#""cni.dev/valid-attachments[0]" is a string ("a"); allowed: an object"#,
        ),
    ] {
        let got = list(&format!("{valid}{rest}")).unwrap_err();
        assert_eq!(got, format!("invalid network config: {want}"), "{rest}");
    }
}
