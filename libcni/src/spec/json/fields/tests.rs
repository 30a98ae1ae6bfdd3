use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Node {
    Node::parse(text.as_bytes()).unwrap()
}

#[track_caller]
fn with<T>(text: &str, read: impl Fn(&Fields<'_>) -> Result<T, FieldError>) -> Result<T, String> {
    let node = parse(text);
    Fields::of(&node, "")
        .and_then(|fields| read(&fields))
        .map_err(|error| error.to_string())
}

#[test]
fn keys_match_in_any_case() {
    for key in [
        "socketPath",
        "SOCKETPATH",
        "socketpath",
        "\u{17f}oc\u{212a}etpath",
        "SocKetPath",
    ] {
        let got = with(&format!("{{\"{key}\":\"x\"}}"), |f| f.str("socketPath"));
        assert_eq!(got, Ok(Some("x".to_owned())), "{key}");
    }
    for key in [
        "socketPat",
        "socketPath ",
        "soçketPath",
        "ſocketPathſ",
        "sokketPath",
        "",
    ] {
        let got = with(&format!("{{\"{key}\":\"x\"}}"), |f| f.str("socketPath"));
        assert_eq!(got, Ok(None), "{key}");
    }
}

#[test]
fn of_equal_keys_the_last_counts_and_null_is_absent() {
    let str = |text: &str| with(text, |f| f.str("a"));
    assert_eq!(str(r#"{"a":"1","A":"2"}"#), Ok(Some("2".into())));
    assert_eq!(str(r#"{"a":"1","a":null}"#), Ok(Some("1".into())));
    assert_eq!(str(r#"{"a":null}"#), Ok(None));
    assert_eq!(str("{}"), Ok(None));
    assert_eq!(str("null"), Ok(None));

    let strings = |text: &str| with(text, |f| f.strings("a"));
    assert_eq!(
        strings(r#"{"a":["1"],"a":["2",null]}"#),
        Ok(Some(vec!["2".into(), String::new()]))
    );
    assert_eq!(strings(r#"{"a":["1"],"a":null}"#), Ok(None));
    assert_eq!(strings(r#"{"a":[]}"#), Ok(Some(vec![])));
}

#[test]
fn objects_under_equal_keys_are_merged() {
    let text = r#"{"ipam":{"type":"a","x":1},"IPAM":{"Type":"b","deep":{"p":1}},"ipam":null,"ipam":{"deep":{"q":2}}}"#;
    let node = parse(text);
    let fields = Fields::of(&node, "").unwrap();
    let ipam = fields.fields("ipam").unwrap().unwrap();
    assert_eq!(ipam.str("type"), Ok(Some("b".into())));
    assert_eq!(ipam.i64("x"), Ok(Some(1)));
    let deep = ipam.fields("deep").unwrap().unwrap();
    assert_eq!((deep.i64("p"), deep.i64("q")), (Ok(Some(1)), Ok(Some(2))));
    assert_eq!(fields.str_at(&["ipam", "type"]), Ok(Some("b".into())));
    assert_eq!(fields.str_at(&["ipam", "none", "type"]), Ok(None));

    // A map is emptied by null.
    let merged = fields.node("ipam").unwrap();
    assert_eq!(merged.write_compact(), r#"{"deep":{"q":2}}"#);
    let node = parse(r#"{"m":{"k":"1","K":"2"},"m":{"k":"3"},"n":1,"n":"x"}"#);
    let fields = Fields::of(&node, "").unwrap();
    assert_eq!(
        fields.node("m").unwrap().write_compact(),
        r#"{"k":"1","K":"2","k":"3"}"#
    );
    assert_eq!(fields.node("n").unwrap().as_str(), Some("x"));
    let map = fields.fields("m").unwrap().unwrap();
    let map: Vec<_> = map
        .entries()
        .into_iter()
        .map(|(k, v)| (k, v.as_str().unwrap()))
        .collect();
    assert_eq!(map, [("k", "3"), ("K", "2")]);
}

#[test]
fn wrong_types_name_key_value_and_what_is_allowed() {
    let long = format!("{{\"a\":\"{}\"}}", "ü".repeat(200));
    for (got, want) in [
        (
            with(r#"{"mtu":"5"}"#, |f| f.u32("mtu").map(drop)),
            r#""mtu" is a string ("5"); allowed: an integer from 0 to 4294967295"#,
        ),
        (
            with(r#"{"mtu":-1}"#, |f| f.u32("mtu").map(drop)),
            r#""mtu" is a number (-1); allowed: an integer from 0 to 4294967295"#,
        ),
        (
            with(r#"{"mtu":4294967296}"#, |f| f.u32("mtu").map(drop)),
            r#""mtu" is a number (4294967296); allowed: an integer from 0 to 4294967295"#,
        ),
        (
            with(r#"{"a":1.0}"#, |f| f.i64("a").map(drop)),
            r#""a" is a number (1.0); allowed: an integer"#,
        ),
        (
            with(r#"{"a":18446744073709551615}"#, |f| f.i64("a").map(drop)),
            r#""a" is a number (18446744073709551615); allowed: an integer"#,
        ),
        (
            with(r#"{"a":"true"}"#, |f| f.bool("a").map(drop)),
            r#""a" is a string ("true"); allowed: true or false"#,
        ),
        (
            with(r#"{"a":true}"#, |f| f.str("a").map(drop)),
            r#""a" is a boolean (true); allowed: a string"#,
        ),
        (
            with(r#"{"a":{}}"#, |f| f.array("a").map(drop)),
            r#""a" is an object; allowed: an array"#,
        ),
        (
            with(r#"{"a":[1]}"#, |f| f.fields("a").map(drop)),
            r#""a" is an array; allowed: an object"#,
        ),
        (
            with(r#"{"a":["",7]}"#, |f| f.strings("a").map(drop)),
            r#""a[1]" is a number (7); allowed: a string"#,
        ),
        (
            with(r#"{"a":"10.0.0"}"#, |f| f.ip("a").map(drop)),
            r#""a" is "10.0.0"; allowed: an IP address such as "10.0.0.1" or "fd00::1""#,
        ),
        (
            with(r#"{"a":""}"#, |f| f.cidr("a").map(drop)),
            r#""a" is ""; allowed: an address with its prefix length such as "10.0.0.1/24" or "fd00::1/64""#,
        ),
        (
            with("[]", |_| Ok(())),
            "the document is an array; allowed: an object",
        ),
        (
            with(&long, |f| f.ip("a").map(drop)),
            &format!(
                "\"a\" is \"{}...\"; allowed: an IP address such as \"10.0.0.1\" or \"fd00::1\"",
                "ü".repeat(80)
            ),
        ),
    ] {
        assert_eq!(got, Err(want.to_owned()));
    }
}

#[test]
fn paths_are_whole() {
    let node = parse(r#"{"ipam":{"ranges":[[],[{},{"subnet":5}]]}}"#);
    let ipam = Fields::of(&node, "")
        .unwrap()
        .fields("ipam")
        .unwrap()
        .unwrap();
    let sets = ipam.array("ranges").unwrap().unwrap();
    let wrapped = Node::obj().put("ranges", sets[1].clone()).build();
    let error = Fields::of(&wrapped, "ipam")
        .unwrap()
        .array_of_fields("ranges")
        .unwrap()
        .unwrap()
        .iter()
        .map(|range| range.cidr("subnet"))
        .find_map(Result::err)
        .unwrap();
    assert_eq!(error.path(), "ipam.ranges[1].subnet");
    assert_eq!(ipam.path_of("dataDir"), "ipam.dataDir");
}

#[test]
fn addresses_and_empty_ones() {
    assert_eq!(with(r#"{"a":""}"#, |f| f.ip("a")), Ok(None));
    assert_eq!(
        with(r#"{"a":"::ffff:1.2.3.4"}"#, |f| f.ip("a")),
        Ok(Some([1, 2, 3, 4].into()))
    );
    let net = with(r#"{"a":"10.2.3.4/24"}"#, |f| f.cidr("a"))
        .unwrap()
        .unwrap();
    assert_eq!(net.to_string(), "10.2.3.4/24");
}

proptest! {
    #[test]
    fn any_case_of_a_key_is_the_key(upper in prop::collection::vec(any::<bool>(), 11)) {
        let mut key = String::new();
        for (c, upper) in "cniVersions".chars().zip(upper) {
            let c = if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            key.push(c);
        }
        let node = Node::obj().put(&key, "x").build();
        prop_assert_eq!(Fields::of(&node, "").unwrap().str("cniVersions"), Ok(Some("x".to_owned())));
    }
}
