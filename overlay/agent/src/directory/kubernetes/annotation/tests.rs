//! Section 2.1 of flannel's contract.

use proptest::prelude::*;

use super::*;

#[test]
fn section_2_1_prefixes() {
    for (given, key) in [
        (
            "flannel.alpha.coreos.com",
            "flannel.alpha.coreos.com/backend-type",
        ),
        (
            "flannel.alpha.coreos.com/",
            "flannel.alpha.coreos.com/backend-type",
        ),
        ("x.y/foo", "x.y/foo-backend-type"),
        ("x.y/foo-", "x.y/foo-backend-type"),
        ("x_1.y-2/f_o-o", "x_1.y-2/f_o-o-backend-type"),
    ] {
        assert_eq!(Prefix::parse(given).unwrap().key(TYPE), key);
    }
    for wrong in [
        "", "/", "x", "x/", "x/foo", "x.y/a/b", "X.y", "x.y/Foo", "x.y/a.b", "x..y", ".x", "x.",
        "x.y/-", "x y.z", "x.y\n", "ä.y",
    ] {
        assert!(Prefix::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn names_are_told_apart_by_the_whole_prefix() {
    let prefix = Prefix::parse("x.y").unwrap();
    let value = |value: &str| Ok(value.to_owned());
    let node = Node {
        annotations: vec![
            ("x.y/node-public-ip".into(), value("1")),
            ("z.x.y/public-ip".into(), value("2")),
            ("x.y/foo-public-ip".into(), value("3")),
            ("x.y/public-ip".into(), value("4")),
            ("x.y/backend-data".into(), Err(70_000)),
            ("x.y/public-ipv6".into(), value("")),
        ],
        ..Node::default()
    };
    assert_eq!(prefix.read(&node, PUBLIC_IP.of(false)), Ok(Some("4")));
    assert_eq!(prefix.read(&node, PUBLIC_IP.of(true)), Ok(None));
    assert!(
        prefix
            .read(&node, DATA.of(false))
            .unwrap_err()
            .contains("70000 bytes")
    );
}

proptest! {
    #[test]
    fn what_is_logged_is_short_and_on_one_line(text in "\\PC*|[\\x00-\\x7f]{0,400}|(?s:.{0,400})") {
        for told in [brief(&text), clip(&text)] {
            prop_assert!(told.chars().count() <= 303);
            prop_assert!(!told.contains(['\n', '\r', '\u{1b}', '\0']), "{told:?}");
        }
    }

    #[test]
    fn any_prefix_is_taken_or_refused(text in "[a-zA-Z./_ -]{0,12}") {
        if let Ok(prefix) = Prefix::parse(&text) {
            prop_assert_eq!(prefix.key("").matches('/').count(), 1);
            prop_assert!(prefix.key("").ends_with(['/', '-']));
        }
    }
}
