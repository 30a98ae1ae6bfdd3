use super::*;

const ADD: [(&str, &str); 5] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "c1"),
    ("CNI_NETNS", "/run/netns/a"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_PATH", "/opt/cni/bin"),
];

/// ADD's environment with some variables replaced; an empty value is as good as none.
fn env(changes: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let mut env: Vec<_> = changes.to_vec();
    env.extend(ADD);
    env
}

fn call(changes: &[(&'static str, &'static str)]) -> CallEnv {
    match Invocation::read(env(changes).as_slice()) {
        Ok(Invocation::Call(call)) => call,
        other => panic!("{changes:?}: {other:?}"),
    }
}

fn refused(changes: &[(&'static str, &'static str)]) -> (u32, String, String) {
    match Invocation::read(env(changes).as_slice()) {
        Err(error) => (error.code.as_u32(), error.msg, error.details),
        other => panic!("{changes:?}: {other:?}"),
    }
}

/// Spec section 2, "Parameters".
#[test]
fn a_complete_call() {
    let call = call(&[("CNI_ARGS", "K=V"), ("CNI_PATH", "/a::/b")]);
    let attachment = call.attachment.as_ref().unwrap();
    assert_eq!(call.verb, Verb::Add);
    assert_eq!(attachment.container_id.as_str(), "c1");
    assert_eq!(attachment.ifname.as_str(), "eth0");
    assert_eq!(call.netns.as_deref(), Some("/run/netns/a"));
    assert_eq!(call.args, "K=V");
    assert_eq!(call.path, ["/a", "", "/b"]);
    assert!(!call.netns_override);
}

/// Spec section 2, the required parameters of each operation; `CNI_PATH` as the reference has it.
#[test]
fn missing_variables_are_named_together_in_order() {
    let none = [
        ("CNI_CONTAINERID", ""),
        ("CNI_NETNS", ""),
        ("CNI_IFNAME", ""),
        ("CNI_PATH", ""),
    ];
    for (verb, want) in [
        (
            "ADD",
            "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing",
        ),
        (
            "CHECK",
            "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing",
        ),
        (
            "DEL",
            "required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_PATH] missing",
        ),
        ("GC", "required env variables [CNI_PATH] missing"),
        ("STATUS", "required env variables [CNI_PATH] missing"),
    ] {
        let mut changes = none.to_vec();
        changes.push(("CNI_COMMAND", verb));
        assert_eq!(
            refused(&changes),
            (4, want.to_owned(), String::new()),
            "{verb}"
        );
    }
    // VERSION needs nothing, DEL no namespace.
    let mut changes = none.to_vec();
    changes.push(("CNI_COMMAND", "VERSION"));
    let version = call(&changes);
    assert_eq!(
        (version.verb, version.attachment, version.netns),
        (Verb::Version, None, None)
    );
    assert!(version.path.is_empty());
    assert_eq!(
        call(&[("CNI_COMMAND", "DEL"), ("CNI_NETNS", "")]).netns,
        None
    );
}

#[test]
fn the_first_invalid_value_wins_over_missing_ones() {
    let bad_id = (
        4,
        "invalid characters in containerID".to_owned(),
        "../x".to_owned(),
    );
    let bad_ifname = (
        4,
        "interface name contains / or : or whitespace characters".to_owned(),
        String::new(),
    );
    assert_eq!(
        refused(&[("CNI_CONTAINERID", "../x"), ("CNI_IFNAME", "a/b")]),
        bad_id
    );
    assert_eq!(
        refused(&[
            ("CNI_CONTAINERID", "../x"),
            ("CNI_IFNAME", ""),
            ("CNI_PATH", "")
        ]),
        bad_id
    );
    assert_eq!(
        refused(&[
            ("CNI_CONTAINERID", ""),
            ("CNI_NETNS", ""),
            ("CNI_IFNAME", "a/b")
        ]),
        bad_ifname
    );
}

#[test]
fn what_a_verb_does_not_need_is_not_checked() {
    for verb in ["GC", "STATUS", "VERSION"] {
        let call = call(&[
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", "../x"),
            ("CNI_IFNAME", "a/b"),
        ]);
        assert_eq!(call.attachment, None, "{verb}");
    }
}

#[test]
fn no_command_and_unknown_commands_are_no_errors_yet() {
    let read = |value| Invocation::read(env(&[("CNI_COMMAND", value)]).as_slice());
    assert_eq!(read(""), Ok(Invocation::About));
    let empty: &[(&str, &str)] = &[];
    assert_eq!(Invocation::read(empty), Ok(Invocation::About));
    // Case-sensitive. Nothing else is required of an unknown command.
    for command in ["add", "ADD ", "FOO"] {
        assert_eq!(read(command), Ok(Invocation::Unknown(command.to_owned())));
    }
    let alone: &[(&str, &str)] = &[("CNI_COMMAND", "FOO")];
    assert_eq!(
        Invocation::read(alone),
        Ok(Invocation::Unknown("FOO".to_owned()))
    );
    assert_eq!(
        unknown_command("FOO").to_node().write_compact(),
        r#"{"code":4,"msg":"unknown CNI_COMMAND: FOO"}"#
    );
    for verb in Verb::ALL {
        assert_eq!(Verb::parse(verb.as_str()), Some(verb));
    }
}

#[test]
fn netns_override() {
    for (value, want) in [
        ("1", true),
        ("true", true),
        ("TRUE", true),
        ("TrUe", true),
        ("", false),
        ("0", false),
        ("yes", false),
        ("11", false),
    ] {
        assert_eq!(
            call(&[("CNI_NETNS_OVERRIDE", value)]).netns_override,
            want,
            "{value}"
        );
    }
}

/// Spec section 2: "must start with an alphanumeric character, optionally followed by any combination of one or more
/// alphanumeric characters, underscore (), dot (.) or hyphen (-)".
#[test]
fn container_ids() {
    for id in ["a", "9", "A.b_c-d", "0123456789abcdef", "a..", "a-"] {
        assert!(ContainerId::parse(id).is_ok(), "{id}");
    }
    assert!(ContainerId::parse(&"a".repeat(5000)).is_ok());
    for id in [
        "-a", ".a", "_a", "..", "a/b", "a b", "a\n", "ä", "aä", "a:b", "a\0",
    ] {
        let error = ContainerId::parse(id).unwrap_err();
        assert_eq!(
            (error.code.as_u32(), error.details.as_str()),
            (4, id),
            "{id:?}"
        );
    }
    assert_eq!(
        ContainerId::parse("").unwrap_err().code,
        Code::UnknownContainer
    );
}

/// Spec section 2, `CNI_IFNAME`; the kernel's `dev_valid_name()`.
#[test]
fn interface_names() {
    for name in [
        "a",
        "eth0",
        "123456789abcdef",
        "a.b",
        "...",
        "-",
        "é23456789abcde",
        "a\u{200b}",
    ] {
        assert!(IfName::parse(name).is_ok(), "{name:?}");
    }
    for (name, want) in [
        ("", "interface name is empty"),
        (
            "123456789abcdefg",
            "interface name is too long; interface name should be less than 16 characters",
        ),
        (
            "é23456789abcdef",
            "interface name is too long; interface name should be less than 16 characters",
        ),
        (".", "interface name is . or .."),
        ("..", "interface name is . or .."),
        (
            "a/b",
            "interface name contains / or : or whitespace characters",
        ),
        (
            "a:b",
            "interface name contains / or : or whitespace characters",
        ),
        (
            "a b",
            "interface name contains / or : or whitespace characters",
        ),
        (
            "a\u{85}",
            "interface name contains / or : or whitespace characters",
        ),
        (
            "a\u{a0}",
            "interface name contains / or : or whitespace characters",
        ),
        (
            "a\u{3000}",
            "interface name contains / or : or whitespace characters",
        ),
        ("a\0b", "interface name contains a NUL"),
    ] {
        let error = IfName::parse(name).unwrap_err();
        assert_eq!(
            (error.code.as_u32(), error.to_string()),
            (4, want.to_owned()),
            "{name:?}"
        );
    }
}

#[test]
fn bytes_that_are_not_utf8_are_not_guessed() {
    for (name, value) in [("CNI_IFNAME", "a\u{fffd}"), ("CNI_NETNS", "/run/\u{fffd}")] {
        assert_eq!(
            refused(&[(name, value)]),
            (4, format!("{name} is not UTF-8"), value.to_owned())
        );
    }
}

// === CNI_ARGS ===

fn parsed(args: &str) -> Result<Vec<(String, String)>, String> {
    parse_args(args, &["IP", "MAC"]).map_err(|error| {
        assert_eq!(error.code, Code::InvalidEnvironment);
        error.msg
    })
}

/// Spec section 2, `CNI_ARGS`: "Alphanumeric key-value pairs separated by semicolons".
#[test]
fn args() {
    let pairs = |pairs: &[(&str, &str)]| {
        Ok(pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect())
    };
    for (args, want) in [
        ("", pairs(&[])),
        ("IP=10.1.2.3", pairs(&[("IP", "10.1.2.3")])),
        ("IP=1;MAC=2", pairs(&[("IP", "1"), ("MAC", "2")])),
        ("IP=1;MAC=2;IP=3", pairs(&[("IP", "3"), ("MAC", "2")])),
        ("IP=", pairs(&[("IP", "")])),
        ("IgnoreUnknown=1;FOO=bar;IP=1", pairs(&[("IP", "1")])),
        ("FOO=bar;IP=1;IgnoreUnknown=True", pairs(&[("IP", "1")])),
        ("IgnoreUnknown=TRUE;K8S_POD_NAME=x;=", pairs(&[])),
        ("IgnoreUnknown=FALSE;IP=1", pairs(&[("IP", "1")])),
    ] {
        assert_eq!(parsed(args), want, "{args}");
    }
    for (args, want) in [
        (";", r#"ARGS: invalid pair """#),
        ("IP=1;", r#"ARGS: invalid pair """#),
        ("IgnoreUnknown=1;IP", r#"ARGS: invalid pair "IP""#),
        ("IgnoreUnknown=1;A=b=c", r#"ARGS: invalid pair "A=b=c""#),
        ("FOO=bar", r#"ARGS: unknown args ["FOO=bar"]"#),
        (
            "FOO=bar;IP=1;ip=2",
            r#"ARGS: unknown args ["FOO=bar" "ip=2"]"#,
        ),
        (
            "FOO=bar;IgnoreUnknown=0",
            r#"ARGS: unknown args ["FOO=bar"]"#,
        ),
        (
            "FOO=bar;ignoreunknown=1",
            r#"ARGS: unknown args ["FOO=bar" "ignoreunknown=1"]"#,
        ),
        // The last one counts.
        (
            "FOO=bar;IgnoreUnknown=1;IgnoreUnknown=0",
            r#"ARGS: unknown args ["FOO=bar"]"#,
        ),
        (
            "IgnoreUnknown=yes",
            r#"ARGS: error parsing value of pair "IgnoreUnknown=yes": boolean unmarshal error: invalid input yes"#,
        ),
    ] {
        assert_eq!(parsed(args), Err(want.to_owned()), "{args}");
    }
}
