//! Oracles: for syntax `serde_json`, for Go's ways the outputs of the reference's plugins (Go 1.19 and later).

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
        ("", "unexpected end of JSON input (line 1, column 1)"),
        ("  ", "unexpected end of JSON input (line 1, column 3)"),
        ("{", "unexpected end of JSON input (line 1, column 2)"),
        (
            "{\"a\":1",
            "unexpected end of JSON input (line 1, column 7)",
        ),
        ("\"a", "unexpected end of JSON input (line 1, column 3)"),
        (
            "{}x",
            "invalid character 'x' after top-level value (line 1, column 3)",
        ),
        (
            "{}\n\n {}",
            "invalid character '{' after top-level value (line 3, column 2)",
        ),
        (
            "{a:1}",
            "invalid character 'a' looking for beginning of object key string (line 1, column 2)",
        ),
        (
            "{\"a\":1,}",
            "invalid character '}' looking for beginning of object key string (line 1, column 8)",
        ),
        (
            "{\"a\" 1}",
            "invalid character '1' after object key (line 1, column 6)",
        ),
        (
            "{\"a\":1 \"b\":2}",
            "invalid character '\"' after object key:value pair (line 1, column 8)",
        ),
        (
            "[1,]",
            "invalid character ']' looking for beginning of value (line 1, column 4)",
        ),
        (
            "[1 2]",
            "invalid character '2' after array element (line 1, column 4)",
        ),
        (
            "'a'",
            "invalid character '\\'' looking for beginning of value (line 1, column 1)",
        ),
        (
            "\u{feff}{}",
            "invalid character 'ï' looking for beginning of value (line 1, column 1)",
        ),
        (
            "// no\n{}",
            "invalid character '/' looking for beginning of value (line 1, column 1)",
        ),
        ("nul", "unexpected end of JSON input (line 1, column 4)"),
        (
            "nulL",
            "invalid character 'L' in literal null (expecting 'l') (line 1, column 4)",
        ),
        (
            "True",
            "invalid character 'T' looking for beginning of value (line 1, column 1)",
        ),
        (
            "01",
            "invalid character '1' after top-level value (line 1, column 2)",
        ),
        ("-", "unexpected end of JSON input (line 1, column 2)"),
        (
            "-a",
            "invalid character 'a' in numeric literal (line 1, column 2)",
        ),
        (
            "+1",
            "invalid character '+' looking for beginning of value (line 1, column 1)",
        ),
        (
            ".5",
            "invalid character '.' looking for beginning of value (line 1, column 1)",
        ),
        ("1.", "unexpected end of JSON input (line 1, column 3)"),
        (
            "1.x",
            "invalid character 'x' after decimal point in numeric literal (line 1, column 3)",
        ),
        ("1e+", "unexpected end of JSON input (line 1, column 4)"),
        (
            "1ex",
            "invalid character 'x' in exponent of numeric literal (line 1, column 3)",
        ),
        (
            "NaN",
            "invalid character 'N' looking for beginning of value (line 1, column 1)",
        ),
        (
            "\"\\x\"",
            "invalid character 'x' in string escape code (line 1, column 3)",
        ),
        (
            "\"\\u12g4\"",
            "invalid character 'g' in \\u hexadecimal character escape (line 1, column 6)",
        ),
        (
            "\"\\u+123\"",
            "invalid character '+' in \\u hexadecimal character escape (line 1, column 4)",
        ),
        (
            "\"a\nb\"",
            "invalid character '\\x0a' in string literal (line 1, column 3)",
        ),
        (
            "\"a\0b\"",
            "invalid character '\\x00' in string literal (line 1, column 3)",
        ),
        (
            "\0",
            "invalid character '\\x00' looking for beginning of value (line 1, column 1)",
        ),
    ] {
        assert_eq!(refused(text.as_bytes()), want, "{text:?}");
    }
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
        // Half a surrogate pair is one U+FFFD, and what follows is read for itself.
        (br#""\ud800""#, "\u{fffd}"),
        (br#""\ud800x""#, "\u{fffd}x"),
        (br#""\udc00\ud800""#, "\u{fffd}\u{fffd}"),
        (br#""\ud800\u0041""#, "\u{fffd}A"),
        (br#""\ud800\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
        (br#""\ud800\n""#, "\u{fffd}\n"),
        // Every byte that is not UTF-8 is one U+FFFD (seen from the reference: `e2 82 41 ff`).
        (b"\"\xe2\x82A\xff\"", "\u{fffd}\u{fffd}A\u{fffd}"),
        (
            b"\"\xc0\xaf\xed\xa0\x80\\n\"",
            "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\n",
        ),
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
fn numbers_keep_every_digit() {
    for (text, want) in [
        ("0", Number::I64(0)),
        // Go reads it into an int, too.
        ("-0", Number::I64(0)),
        ("-12", Number::I64(-12)),
        ("9223372036854775807", Number::I64(i64::MAX)),
        ("-9223372036854775808", Number::I64(i64::MIN)),
        ("9223372036854775808", Number::U64(1 << 63)),
        ("18446744073709551615", Number::U64(u64::MAX)),
    ] {
        assert_eq!(parse(text), Node::Number(want), "{text}");
    }
    for text in [
        "18446744073709551616",
        "-9223372036854775809",
        "1.0",
        "-0.0",
        "1e2",
        "-2.5E-3",
        "1e400",
        "123456789012345678901234567890.5",
    ] {
        assert_eq!(parse(text), Node::Number(Number::Other(text.into())));
        assert_eq!(parse(text).write_compact(), text);
    }
    let digits = "9".repeat(1 << 20);
    assert_eq!(parse(&digits).write_compact(), digits);
    assert_eq!(Number::from(u64::MAX).as_u64(), Some(u64::MAX));
    assert_eq!(Number::from(5u64), Number::I64(5));
    assert_eq!(Number::I64(-1).as_u64(), None);
}

#[test]
fn depth_and_size_are_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let mut node = &parse(&nested(MAX_DEPTH));
    let mut depth = 1;
    while let Node::Array(items) = node
        && let Some(inner) = items.first()
    {
        node = inner;
        depth += 1;
    }
    assert_eq!(depth, MAX_DEPTH);
    assert!(refused(nested(MAX_DEPTH + 1).as_bytes()).starts_with("exceeded max depth"));
    assert!(refused("[".repeat(1 << 20).as_bytes()).starts_with("exceeded max depth"));
    assert!(refused("{\"a\":".repeat(1 << 20).as_bytes()).starts_with("exceeded max depth"));
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
        "-?(0|[1-9][0-9]{0,3})\\.[0-9]{1,3}([eE][+-]?[0-9]{1,2})?"
            .prop_map(|text| Node::Number(Number::Other(text.into()))),
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

/// Whether `serde_json` read the same. Keys are sorted and unique on both sides; its floats may be off by the
/// last place, and its `-0` is a float.
fn same(ours: &Node, theirs: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (ours, theirs) {
        (Node::Null, Value::Null) => true,
        (Node::Bool(a), Value::Bool(b)) => a == b,
        (Node::Number(Number::Other(text)), Value::Number(b)) => {
            let (a, b) = (text.parse::<f64>().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= a.abs() * 4.0 * f64::EPSILON
        }
        (Node::Number(Number::I64(0)), Value::Number(b)) => b.as_f64() == Some(0.0),
        (Node::Number(a), Value::Number(b)) => (a.as_i64(), a.as_u64()) == (b.as_i64(), b.as_u64()),
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
            (Ok(_), Err(error)) => prop_assert!(error.to_string().starts_with("number out of range"), "{}", error),
            (Err(error), Ok(_)) => prop_assert!(false, "{}", error),
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
