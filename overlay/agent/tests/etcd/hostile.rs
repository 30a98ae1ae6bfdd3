//! What anybody who may write to etcd can put there. It changes nothing for honest nodes, and is named.

use etcd_client::Client;

use crate::node::*;
use crate::server::*;

/// Largest value etcd takes, nearly.
const HUGE: usize = 1_400_000;

async fn raw(admin: &mut Client, rest: &[u8], value: impl Into<Vec<u8>>) {
    let key = [key("subnets").as_bytes(), rest].concat();
    admin.put(key, value, None).await.unwrap();
}

#[test]
fn item_5_stray_keys_and_odd_values_are_passed_over_and_named() {
    scene(V4, async |_server, mut admin| {
        let huge = format!(r#"{{"PublicIP":"192.0.2.8","x":"{}"}}"#, "x".repeat(HUGE));
        let deep = "[".repeat(100_000);
        let odd: &[(&[u8], &str, &str)] = &[
            (b"/10.5.20.0-24", "", "EOF"),
            (b"/10.5.21.0-24", "null", "PublicIP"),
            (b"/10.5.22.0-24", "[1]", "object"),
            (b"/10.5.23.0-24", "{", "EOF"),
            (b"/10.5.24.0-24", "{}", "PublicIP"),
            (b"/10.5.25.0-24", r#"{"PublicIP":null}"#, "PublicIP"),
            (b"/10.5.26.0-24", r#"{"PublicIP":"fd00::1"}"#, "PublicIP"),
            (b"/10.5.27.0-24", r#"{"PublicIP":7}"#, "PublicIP"),
            (b"/10.5.28.0-24", &huge, "bytes"),
            (b"/10.5.29.0-24", &deep, "bytes"),
            (b"/10.5.30.0-32", "{}", "key"),
            (b"/10.5.31.0-99", "{}", "key"),
            (b"/10.5.32.0-024", "{}", "key"),
            (b"/10.5.33.0", "{}", "key"),
            (b"/fc00::-64", "{}", "key"),
            (b"/10.5.34.0-24&10.5.35.0-24", "{}", "key"),
            (b"/deep/10.5.36.0-24", "{}", "key"),
            (b"-old/10.5.37.0-24", "{}", "key"),
            (b"/\xff\xfe", "{}", "key"),
            (b"/a\nb", "{}", "key"),
            (b"", "{}", "key"),
        ];
        // Half of it is there before us, half comes while we look.
        let mut node = None;
        put(&mut admin, "subnets/10.5.9.0-24", value(9)).await;
        for (i, (rest, value, _)) in odd.iter().enumerate() {
            if i == odd.len() / 2 {
                node = Some(Node::v4(1, "10.5.1.0/24").await);
            }
            raw(&mut admin, rest, *value).await;
        }
        put(&mut admin, "subnets/10.5.10.0-24", value(10)).await;
        let mut node = node.unwrap();
        let view = node.sees_peers(&["10.5.10.0-24", "10.5.9.0-24"]).await;
        assert_eq!(view.skipped.len(), odd.len(), "{:#?}", view.skipped);
        for (rest, _, why) in odd {
            let shown = rest.strip_prefix(b"/").unwrap_or(rest);
            let shown = shown.escape_ascii().to_string();
            let found = view.skipped.iter().find(|(name, _)| name.contains(&shown));
            let (name, reason) = found.unwrap_or_else(|| panic!("{shown} in {:#?}", view.skipped));
            assert!(reason.contains(why), "{name}: {reason}");
            assert!(name.len() < 500 && reason.len() < 500, "{name}: {reason}");
        }
        // A list tells the same as the events did.
        drop(node);
        let mut again = Node::v4(1, "10.5.1.0/24").await;
        let listed = again.sees_peers(&["10.5.10.0-24", "10.5.9.0-24"]).await;
        assert_eq!(listed.skipped, view.skipped);
    });
}

/// More than one answer may hold, in values that are none; then as many events at once.
#[test]
fn huge_values_do_not_hide_the_honest_ones() {
    scene(V4, async |_server, mut admin| {
        let junk = "x".repeat(HUGE);
        for n in 100..108 {
            put(&mut admin, &format!("subnets/10.5.{n}.0-24"), junk.as_str()).await;
            put(
                &mut admin,
                &format!("subnets/10.5.{}.0-24", n + 100),
                value(n),
            )
            .await;
        }
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        let view = node.sees("the honest", |view| view.peers.len() == 8).await;
        assert_eq!(view.skipped.len(), 8);
        for n in 108..116 {
            put(&mut admin, &format!("subnets/10.5.{n}.0-24"), junk.as_str()).await;
            put(
                &mut admin,
                &format!("subnets/10.5.{}.0-24", n + 100),
                value(n),
            )
            .await;
        }
        let view = node
            .sees("all the honest", |view| view.peers.len() == 16)
            .await;
        assert_eq!(view.skipped.len(), 16);
    });
}

/// An etcd whose limits were raised: not even one key fits into an answer.
#[test]
fn a_value_larger_than_any_answer_is_passed_over() {
    testkit::in_netns(|| {
        block_on(async {
            let _server = Server::start("http", &["--max-request-bytes", "10000000"]);
            let mut admin = admin().await;
            put(&mut admin, "config", V4).await;
            let junk = "x".repeat(5_000_000);
            put(&mut admin, "subnets/10.5.8.0-24", junk.as_str()).await;
            for n in [7, 9] {
                put(&mut admin, &format!("subnets/10.5.{n}.0-24"), value(n)).await;
            }
            let mut node = Node::v4(1, "10.5.1.0/24").await;
            let view = node.sees_peers(&["10.5.7.0-24", "10.5.9.0-24"]).await;
            assert_eq!(
                view.skipped["10.5.8.0-24"],
                "the value is larger than 4 MiB"
            );
            put(&mut admin, "subnets/10.5.10.0-24", junk).await;
            put(&mut admin, "subnets/10.5.11.0-24", value(11)).await;
            let view = node
                .sees_peers(&["10.5.11.0-24", "10.5.7.0-24", "10.5.9.0-24"])
                .await;
            assert_eq!(view.skipped.len(), 2);
            // It does not hide its own removal either.
            delete(&mut admin, "subnets/10.5.10.0-24").await;
            node.sees("it is gone", |view| view.skipped.len() == 1)
                .await;
        });
    });
}

#[test]
fn ten_thousand_stray_keys_are_counted_not_named() {
    scene(V4, async |_server, mut admin| {
        let keys: Vec<_> = (0..10_000)
            .map(|n| (format!("subnets/stray-{n:05}"), String::new()))
            .collect();
        put_all(&mut admin, &keys).await;
        put(&mut admin, "subnets/10.5.9.0-24", value(9)).await;
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        let view = node.sees_peers(&["10.5.9.0-24"]).await;
        assert_eq!(view.skipped.len(), 257);
        assert_eq!(view.skipped["(more)"], "9744");
        delete(&mut admin, "subnets/stray-09999").await;
        node.sees("one less", |view| view.skipped["(more)"] == "9743")
            .await;
    });
}

/// Several keys for one subnet, with our address, with our very subnet: told as they are, for the judge; our own key
/// is never among them.
#[test]
fn liars_are_told_as_they_are() {
    scene(V4, async |_server, mut admin| {
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        let lies = [
            "10.0.0.0-8",
            "10.5.1.0-24&fc00::-64",
            "10.5.1.0-25",
            "10.5.1.7-24",
            "224.0.0.0-4",
        ];
        for name in lies {
            put(
                &mut admin,
                &format!("subnets/{name}"),
                r#"{"PublicIP":"192.0.0.9","PublicIPv6":"fd00::9"}"#,
            )
            .await;
        }
        put(&mut admin, "subnets/10.5.40.0-24", value(1)).await;
        let view = node
            .sees("all", |view| view.peers.len() == lies.len() + 1)
            .await;
        assert!(view.lost.is_none() && view.skipped.is_empty());
        assert!(!view.peers.contains_key("10.5.1.0-24"));
    });
}
