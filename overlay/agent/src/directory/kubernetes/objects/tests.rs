//! Whatever the pieces in which it comes, the objects are the same.

use std::convert::Infallible;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The objects of a text that comes in pieces of these lengths, over and over.
fn objects(mut objects: Objects, text: &str, pieces: &[usize]) -> (Vec<Option<Value>>, Vec<u8>) {
    let mut found = Vec::new();
    let (mut rest, mut lengths) = (text.as_bytes(), pieces.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((*lengths.next().unwrap()).clamp(1, rest.len()));
        rest = after;
        let pushed = objects.push(piece, |object| {
            found.push(object.map(|json| serde_json::from_slice(json).unwrap()));
            Ok::<_, Infallible>(())
        });
        pushed.unwrap();
    }
    (found, objects.rest().to_vec())
}

fn json_value() -> impl Strategy<Value = Value> {
    let text = "[a\\\\\"{}\\[\\],:\n ä]{0,6}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        text.prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text, inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn items_of_a_list(
        items in prop::collection::vec(prop::collection::btree_map("[a\"{}]{0,3}", json_value(), 0..4), 0..5),
        pieces in prop::collection::vec(1_usize..40, 1..5),
        pretty: bool,
        metadata_first: bool,
    ) {
        let meta = json!({ "resourceVersion": "7", "odd": { "a": [1, "]"] } });
        let (mut text, show) = (String::from("{\"kind\":\"NodeList\","), |value: &Value| {
            if pretty { format!("{value:#}") } else { value.to_string() }
        });
        let (meta, all) = (format!("\"metadata\":{}", show(&meta)), format!("\"items\":{}", show(&json!(items))));
        text += &if metadata_first { format!("{meta},{all}}}\n") } else { format!("{all},{meta}}}\n") };
        let (found, rest) = objects(Objects::of_list(), &text, &pieces);
        let wanted: Vec<_> = items.iter().map(|item| Some(json!(item))).collect();
        prop_assert_eq!(found, wanted);
        let rest: Value = serde_json::from_slice(&rest).unwrap();
        prop_assert_eq!(&rest["metadata"]["resourceVersion"], "7");
        prop_assert_eq!(&rest["items"], &json!([]));
    }

    #[test]
    fn events_of_a_watch(
        events in prop::collection::vec(prop::collection::btree_map("[a\"{}]{0,3}", json_value(), 0..4), 0..5),
        pieces in prop::collection::vec(1_usize..40, 1..5),
    ) {
        let text: String = events.iter().map(|event| format!("{}\n", json!(event))).collect();
        let (found, _) = objects(Objects::of_watch(), &text, &pieces);
        let wanted: Vec<_> = events.iter().map(|event| Some(json!(event))).collect();
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b']'),
        Just(b'"'), Just(b'\\'), Just(b','), any::<u8>()], 0..200), cut in 0_usize..200) {
        for mut objects in [Objects::of_list(), Objects::of_watch()] {
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            let _ = objects.push(a, |_| Ok::<_, Infallible>(()));
            let _ = objects.push(b, |_| Ok::<_, Infallible>(()));
        }
    }
}

#[test]
fn one_that_is_too_long_is_passed_over() {
    let long = "x".repeat(MAX_OBJECT_BYTES);
    let text = format!("{{\"items\":[{{\"a\":1}},{{\"b\":\"{long}\"}},{{\"c\":2}}]}}");
    for piece in [1 << 16, usize::MAX] {
        let (found, _) = objects(Objects::of_list(), &text, &[piece]);
        assert_eq!(
            found,
            [Some(json!({ "a": 1 })), None, Some(json!({ "c": 2 }))]
        );
    }
}

#[test]
fn who_has_heard_enough_stops_it() {
    let mut heard = 0;
    let pushed = Objects::of_watch().push(b"{}{}{}", |_| {
        heard += 1;
        if heard == 2 { Err("enough") } else { Ok(()) }
    });
    assert_eq!((pushed, heard), (Err("enough"), 2));
}
