//! Oracles: for the tree `serde_json::Value`, for Go's ways the outputs of the reference's plugins (Go 1.19 and later).

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Node {
    Node::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(bytes: &[u8]) -> String {
    Node::parse(bytes).expect_err("accepted").to_string()
}

// === reading ===

#[test]
fn what_is_no_document_is_refused_with_the_place() {
    for (text, want) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{\"a\":1", "EOF while parsing an object at line 1 column 6"),
        ("{}\n\n {}", "trailing characters at line 3 column 2"),
        ("{a:1}", "key must be a string at line 1 column 2"),
        ("{\"a\":1,}", "trailing comma at line 1 column 8"),
        ("{\"a\":1,\n\"b\": }", "expected value at line 2 column 6"),
        (
            "\"\\ud800\"",
            "unexpected end of hex escape at line 1 column 8",
        ),
        ("[1e999]", "number out of range at line 1 column 6"),
    ] {
        assert_eq!(refused(text.as_bytes()), want, "{text:?}");
    }
    for text in [
        "  ",
        "{",
        "\"a",
        "{}x",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "{1:2}",
        "[1,]",
        "[1 2]",
        "'a'",
        "\u{feff}{}",
        "// no\n{}",
        "nul",
        "nulL",
        "True",
        "01",
        "-",
        "-a",
        "+1",
        ".5",
        "1.",
        "1.x",
        "1e+",
        "1ex",
        "NaN",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u+123\"",
        "\"a\nb\"",
        "\"a\0b\"",
        "\0",
        "{}\0",
        // Half a surrogate pair, at the end, before a letter, before another pair, in a key.
        "\"\\udc00\"",
        "\"\\ud800x\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800\\ud83d\\ude00\"",
        "{\"\\ud800\":1}",
        "-1e400",
    ] {
        let why = refused(text.as_bytes());
        assert!(why.contains(" at line "), "{text:?}: {why}");
    }
    // Outside a string there is no excuse for what is not UTF-8.
    refused(b"\xff{}");
    refused(b"{}\xff");
}

#[test]
fn strings_are_read_as_go_reads_them() {
    for (bytes, want) in [
        (&br#""""#[..], ""),
        (
            br#""a\"\\\/\b\f\n\r\t\u0041\u00e9z""#,
            "a\"\\/\u{8}\u{c}\n\r\tA\u{e9}z",
        ),
        (br#""\u0000""#, "\0"),
        (br#""\ud83d\ude00""#, "\u{1f600}"),
        (br#""\uD83D\uDE00!""#, "\u{1f600}!"),
        // Go counts the U+FFFD for a cut sequence by bytes, this by sequences; it refuses neither.
        (b"\"\xe2\x82A\xff\"", "\u{fffd}A\u{fffd}"),
        (b"\"\xc0\xaf\\n\"", "\u{fffd}\u{fffd}\n"),
        ("\"ü€😀\u{7f}\"".as_bytes(), "ü€😀\u{7f}"),
    ] {
        assert_eq!(
            Node::parse(bytes).unwrap().as_str(),
            Some(want),
            "{}",
            String::from_utf8_lossy(bytes)
        );
    }
    // In keys too.
    let node = Node::parse(b"{\"a\xff\":1}").unwrap();
    assert_eq!(node, Node::obj().put("a\u{fffd}", 1u32).build());
}

#[test]
fn numbers() {
    for (text, want) in [
        ("0", Number::from(0)),
        ("-12", Number::from(-12)),
        ("9223372036854775807", Number::from(i64::MAX)),
        ("-9223372036854775808", Number::from(i64::MIN)),
        ("18446744073709551615", Number::from(u64::MAX)),
    ] {
        assert_eq!(parse(text), Node::Number(want), "{text}");
        assert_eq!(parse(text).write_compact(), text);
    }
    for (text, want) in [
        ("1.0", 1.0),
        ("1e2", 100.0),
        ("-2.5E-3", -0.0025),
        ("-0", -0.0),
        ("18446744073709551616", 18446744073709551616.0),
        ("-9223372036854775809", -9223372036854775808.0),
        ("1e-400", 0.0),
    ] {
        let want = Number::from_f64(want).unwrap();
        assert!(want.is_f64());
        assert_eq!(parse(text), Node::Number(want), "{text}");
    }
    assert_eq!(parse("[0.5,1e300]").write_compact(), "[0.5,1e+300]");
}

#[test]
fn depth_and_size_are_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let mut node = &parse(&nested(127));
    let mut depth = 1;
    while let Node::Array(items) = node
        && let Some(inner) = items.first()
    {
        node = inner;
        depth += 1;
    }
    assert_eq!(depth, 127);
    for text in [nested(128), "[".repeat(1 << 20), "{\"a\":".repeat(1 << 20)] {
        assert!(refused(text.as_bytes()).starts_with("recursion limit exceeded"));
    }
    // Depth is nesting, not the number of brackets.
    parse(&format!("[{}[]]", "[],".repeat(10_000)));

    let sized = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    parse(&sized(MAX_BYTES));
    assert!(
        refused(sized(MAX_BYTES + 1).as_bytes()).starts_with("the document is larger than 16 MiB")
    );
}

// === printing ===

#[test]
fn printed_as_go_prints_it() {
    let node = parse(r#"{"b":[1,{"c":[]},{}],"a":{"x":null,"y":true,"z":false},"":"" }"#);
    assert_eq!(
        node.write_indented(),
        "{\n    \"b\": [\n        1,\n        {\n            \"c\": []\n        },\n        {}\n    ],\n    \"a\": {\n        \
         \"x\": null,\n        \"y\": true,\n        \"z\": false\n    },\n    \"\": \"\"\n}"
    );
    assert_eq!(
        node.write_compact(),
        r#"{"b":[1,{"c":[]},{}],"a":{"x":null,"y":true,"z":false},"":""}"#
    );
}

#[test]
fn strings_are_escaped_as_go_escapes_them() {
    for (text, want) in [
        ("a\"b\\c/d", r#""a\"b\\c/d""#),
        ("\n\r\t\u{8}\u{c}", r#""\n\r\t\b\f""#),
        ("\0\u{1}\u{b}\u{1f}", r#""\u0000\u0001\u000b\u001f""#),
        ("<script>&", r#""\u003cscript\u003e\u0026""#),
        ("a\u{2028}\u{2029}b", r#""a\u2028\u2029b""#),
        ("\u{7f}\u{fffd}ü😀", "\"\u{7f}\u{fffd}ü😀\""),
    ] {
        assert_eq!(Node::from(text).write_compact(), want);
        assert_eq!(
            Node::obj().put(text, true).build().write_compact(),
            format!("{{{want}:true}}")
        );
    }
}

#[test]
fn sorted_as_a_go_map() {
    let mut node = parse(r#"{"b":1,"a":{"z":1,"B":2,"z":3},"b":[{"y":1,"x":2}],"A":0}"#);
    node.sort_keys();
    assert_eq!(
        node.write_compact(),
        r#"{"A":0,"a":{"B":2,"z":3},"b":[{"x":2,"y":1}]}"#
    );
}

#[test]
fn built_objects_omit_what_is_empty() {
    let node = Node::obj()
        .put("a", "")
        .put_filled("b", "")
        .put_filled("c", Vec::new())
        .put_filled("d", Node::obj())
        .put_filled("e", Node::Null)
        .put_filled("f", 0u32)
        .put_some("g", None::<u32>)
        .put_some("h", Some(0u8))
        .put_filled("i", ["x".to_owned()].as_slice())
        .build();
    assert_eq!(node.write_compact(), r#"{"a":"","f":0,"h":0,"i":["x"]}"#);
}

// === properties ===

fn any_node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        Just(Node::Null),
        any::<bool>().prop_map(Node::Bool),
        any::<i64>().prop_map(Node::from),
        any::<u64>().prop_map(Node::from),
        // Few enough digits that text and double are each other's nearest.
        any::<i32>().prop_map(|n| Node::Number(Number::from_f64(f64::from(n) / 1000.0).unwrap())),
        any::<String>().prop_map(Node::String),
        "[<>&\u{2028}\u{2029}\\\\\"\0-\u{20}]{0,6}".prop_map(Node::String),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Node::Array),
            prop::collection::vec((any::<String>(), inner), 0..6).prop_map(Node::Object),
        ]
    })
}

/// Whether `serde_json` read the same. Keys are sorted and unique on both sides.
fn same(ours: &Node, theirs: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (ours, theirs) {
        (Node::Null, Value::Null) => true,
        (Node::Bool(a), Value::Bool(b)) => a == b,
        (Node::Number(a), Value::Number(b)) => a == b,
        (Node::String(a), Value::String(b)) => a == b,
        (Node::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Node::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same(a, b))
        }
        _ => false,
    }
}

/// Text that is nearly JSON.
fn nearly_json() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"b\\n\"",
        "\"\\u0041\"",
        "\"\\ud83d\\ude00\"",
        "1",
        "-0.5",
        "1e3",
        "0",
        "-",
        "true",
        "false",
        "null",
        " ",
        "\n",
        "\"",
        "\\",
        "e",
        "99999999999999999999",
    ]);
    prop::collection::vec(token, 0..14).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn printed_and_read_again_is_the_same(node in any_node()) {
        for text in [node.write_compact(), node.write_indented()] {
            prop_assert_eq!(&Node::parse(text.as_bytes()).unwrap(), &node, "{}", text);
        }
        prop_assert!(serde_json::from_str::<serde_json::Value>(&node.write_compact()).is_ok());
    }

    #[test]
    fn accepts_what_serde_json_accepts(text in nearly_json()) {
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        let ours = Node::parse(text.as_bytes());
        match (ours, theirs) {
            (Ok(mut ours), Ok(theirs)) => {
                ours.sort_keys();
                prop_assert!(same(&ours, &theirs), "{:?} {:?}", ours, theirs);
            }
            (Err(_), Err(_)) => {}
            (ours, theirs) => prop_assert!(false, "{:?} {:?}", ours, theirs),
        }
    }

    #[test]
    fn no_bytes_can_harm(bytes in prop::collection::vec(any::<u8>(), 0..64), json in nearly_json()) {
        let _ = Node::parse(&bytes);
        let mut mixed = json.into_bytes();
        mixed.extend_from_slice(&bytes);
        if let Ok(node) = Node::parse(&mixed) {
            prop_assert!(Node::parse(node.write_compact().as_bytes()).is_ok());
        }
    }
}
