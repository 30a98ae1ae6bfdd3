//! The watch: bookmarks, breaks, 410, and who is woken by what.

use super::*;
use apiserver::Fault;

/// Runs with n7 and n8, and is through with its start.
async fn started(api: &ApiServer) -> Running {
    api.put(apiserver::node("me", &["10.244.1.0/24"]));
    api.put(peer(7));
    api.put(peer(8));
    let mut running = run(api, V4).await;
    running.until_complete().await;
    running.ready.send_replace(Ready::Yes);
    eventually(|| api.condition("me")["status"] == "False").await;
    eventually(|| api.watches() == 1).await;
    running
}

/// The versions that watches of all Nodes were asked from.
fn versions(api: &ApiServer) -> Vec<String> {
    let asked = api.asked("GET", "watch=true").into_iter();
    let all = asked.filter(|asked| !asked.uri.contains("fieldSelector"));
    let version = |uri: &str| uri.split("resourceVersion=").nth(1).unwrap().to_owned();
    all.map(|asked| version(&asked.uri)).collect()
}

fn lists(api: &ApiServer) -> usize {
    api.asked("GET", "/nodes?limit")
        .iter()
        .filter(|asked| !asked.uri.contains("fieldSelector"))
        .count()
}

#[test]
fn a_watch_resumes_at_its_bookmark() {
    scene(|api| async move {
        let mut running = started(&api).await;
        let before = running.view.borrow().events;
        {
            let mut store = api.store();
            store.pass(1000);
            store.bookmark();
        }
        let at = api.store().version.to_string();
        // The bookmark wakes nobody, but is noted.
        eventually(|| running.view.borrow().events > before).await;
        // Everything before the bookmark is forgotten: whoever resumes anywhere else is told 410.
        api.store().compact();
        api.store().cut_watches();
        eventually(|| versions(&api).len() == 2).await;
        assert_eq!(versions(&api)[1], at);
        eventually(|| api.watches() == 1).await;
        api.put(peer(9));
        running.until(|view| view.peers.len() == 3).await;
        assert_eq!(lists(&api), 1);
        assert_eq!(running.view.borrow().away, None);
    });
}

#[test]
fn a_watch_that_ends_or_breaks_misses_nothing() {
    scene(|api| async move {
        let mut running = started(&api).await;
        for number in 10..20 {
            if number % 2 == 0 {
                api.store().watches.clear();
            } else {
                api.store().cut_watches();
            }
            api.put(peer(number));
            let name = format!("n{number}");
            running.until(|view| view.peers.contains_key(&name)).await;
            eventually(|| api.watches() == 1).await;
        }
        assert_eq!(lists(&api), 1, "no new list");
    });
}

#[test]
fn gone_as_an_event_replaces_what_was_known() {
    scene(|api| async move {
        let mut running = started(&api).await;
        let kept = Arc::clone(&running.view.borrow().peers["n8"]);
        {
            let mut store = api.store();
            store.cut_watches();
            store.delete("n7");
            store.put(peer(9));
            store.compact();
        }
        let view = running.until(|view| view.peers.contains_key("n9")).await;
        assert_eq!(names(&view), ["n8", "n9"], "n7 has vanished meanwhile");
        assert!(
            Arc::ptr_eq(&kept, &view.peers["n8"]),
            "what stayed the same is the same"
        );
        assert_eq!((lists(&api), view.away.clone()), (2, None));
        // Not older than what was heard already, wherever the answer comes from.
        let second = api.asked("GET", "resourceVersionMatch=NotOlderThan");
        assert_eq!(second.len(), 1);
    });
}

#[test]
fn gone_as_a_status_and_in_the_middle_of_a_watch() {
    scene(|api| async move {
        let mut running = started(&api).await;
        api.store().faults.push(Fault {
            method: "GET",
            part: "watch=true",
            times: 1,
            code: 410,
        });
        api.store().cut_watches();
        api.put(peer(9));
        running.until(|view| view.peers.len() == 3).await;
        eventually(|| lists(&api) == 2).await;
        eventually(|| api.watches() == 1).await;
        let expired = json!({ "kind": "Status", "status": "Failure", "message": "too old", "reason": "Expired", "code": 410 });
        api.store().say_and_end("ERROR", &expired);
        eventually(|| lists(&api) == 3).await;
        eventually(|| api.watches() == 1).await;
        api.put(peer(10));
        running.until(|view| view.peers.len() == 4).await;
    });
}

#[test]
fn a_list_comes_in_pages_and_begins_anew_when_one_expires() {
    scene(|api| async move {
        for number in 10..60 {
            api.put(peer(number));
        }
        api.store().page = Some(7);
        let mut running = started(&api).await;
        assert_eq!(running.view.borrow().peers.len(), 52);
        assert_eq!(api.asked("GET", "continue=").len(), 52 / 7);
        api.store().faults.push(Fault {
            method: "GET",
            part: "continue=",
            times: 1,
            code: 410,
        });
        {
            let mut store = api.store();
            store.cut_watches();
            store.delete("n10");
            store.compact();
        }
        let view = running.until(|view| !view.peers.contains_key("n10")).await;
        assert_eq!(view.peers.len(), 51, "no part of a list counts");
    });
}

#[test]
fn the_server_goes_away_and_comes_back() {
    scene(|api| async move {
        let mut running = started(&api).await;
        api.down();
        let view = running.until(|view| view.away.is_some()).await;
        assert_eq!(names(&view), ["n7", "n8"], "what it said last stands");
        assert!(view.complete && view.lost.is_none());
        api.delete("n7");
        api.put(peer(9));
        running
            .ready
            .send_replace(Ready::No("the parent is down".into()));
        api.up();
        let view = running.until(|view| view.away.is_none()).await;
        assert!(view.complete);
        running.until(|view| names(view) == ["n8", "n9"]).await;
        eventually(|| api.condition("me")["status"] == "True").await;
        running.ready.send_replace(Ready::Yes);
        eventually(|| api.condition("me")["status"] == "False").await;
    });
}

#[test]
fn a_server_that_is_away_from_the_start_is_told_of() {
    scene(|api| async move {
        api.put(apiserver::node("me", &["10.244.1.0/24"]));
        let mut directory = open(&api).await;
        let conf = conf(V4);
        let of_me = me(&conf);
        let lease = directory.lease(&conf, &of_me, None).await.unwrap();
        api.store().faults.push(Fault {
            method: "GET",
            part: "/nodes?limit",
            times: 3,
            code: 403,
        });
        let mut running = follow(directory, conf, of_me, lease);
        let view = running.until(|view| view.away.is_some()).await;
        assert!(!view.complete);
        let why = view.away.clone().unwrap();
        assert!(
            why.contains("403") && why.contains("nodes/status: patch"),
            "{why}"
        );
        let view = running.until_complete().await;
        assert_eq!(view.away, None);
    });
}

#[test]
fn heartbeats_wake_nobody() {
    scene(|api| async move {
        let mut running = started(&api).await;
        running.until(|view| view.events >= 3).await;
        let before = running.view.borrow_and_update().events;
        for beat in 0..20 {
            let time = format!("2026-11-21T10:00:{beat:02}Z");
            let status = json!({ "status": { "conditions": [ { "type": "Ready", "lastHeartbeatTime": time } ] } });
            api.edit("n7", &status);
            api.edit("me", &status);
        }
        // Noted all the same.
        eventually(|| running.view.borrow().events >= before + 40).await;
        assert!(!running.view.has_changed().unwrap());
    });
}

#[test]
fn many_events_at_once_are_one_view() {
    scene(|api| async move {
        let mut running = started(&api).await;
        let (mut views, mut told) = (running.view.clone(), 0);
        let began = std::time::Instant::now();
        {
            let mut store = api.store();
            for round in 0..3 {
                for number in 20..220 {
                    let mut node = peer(number);
                    let data =
                        format!(r#"{{"VNI":1,"VtepMAC":"12:c6:65:89:b{round}:{number:02x}"}}"#);
                    node["metadata"]["annotations"][format!("{PREFIX}/backend-data")] = data.into();
                    store.put(node);
                }
            }
        }
        let last = |view: &View| {
            let site = view.peers.get("n219").and_then(|peer| peer.v4);
            site.is_some_and(|site| site.vtep.unwrap().mac.to_string() == "12:c6:65:89:b2:db")
        };
        while !last(&views.borrow_and_update()) {
            tokio::time::timeout(PATIENCE, views.changed())
                .await
                .unwrap()
                .unwrap();
            told += 1;
        }
        assert_eq!(running.view.borrow_and_update().peers.len(), 202);
        // They are gathered for 5 ms each.
        let time = began.elapsed();
        assert!(
            told <= 10 + time.as_millis() / 5,
            "600 events, {told} views in {time:?}"
        );
    });
}

#[test]
fn an_event_that_cannot_be_read_harms_its_own_node_only() {
    scene(|api| async move {
        let mut running = started(&api).await;
        let odd = json!({ "metadata": { "name": "n7", "resourceVersion": "1000" }, "spec": "odd" });
        {
            let mut store = api.store();
            store.pass(1000);
            let line = apiserver::line("MODIFIED", &odd.to_string());
            for watch in &store.watches {
                watch.to.send(Ok(line.clone())).unwrap();
            }
        }
        let view = running.until(|view| view.skipped.contains_key("n7")).await;
        assert_eq!(names(&view), ["n8"]);
        api.put(peer(7));
        running.until(|view| names(view) == ["n7", "n8"]).await;
    });
}

#[test]
fn a_list_that_breaks_off_in_the_middle_counts_for_nothing() {
    scene(|api| async move {
        let mut running = started(&api).await;
        api.store().faults.push(Fault {
            method: "GET",
            part: "/nodes?limit",
            times: 3,
            code: Fault::HALF,
        });
        {
            let mut store = api.store();
            store.cut_watches();
            for number in 20..40 {
                store.put(peer(number));
            }
            store.delete("n7");
            store.compact();
        }
        let mut views = running.view.clone();
        let mut sizes = Vec::new();
        while !views.borrow_and_update().peers.contains_key("n39") {
            sizes.push(views.borrow().peers.len());
            views.changed().await.unwrap();
        }
        assert_eq!(views.borrow().peers.len(), 21);
        assert!(sizes.iter().all(|size| *size == 2), "{sizes:?}");
        running.until(|view| view.away.is_none()).await;
    });
}

#[test]
fn an_error_in_a_watch_is_told_and_survived() {
    scene(|api| async move {
        let mut running = started(&api).await;
        let error = json!({ "kind": "Status", "status": "Failure", "message": "etcd is slow", "code": 500 });
        api.store().say_and_end("ERROR", &error);
        let view = running.until(|view| view.away.is_some()).await;
        assert!(view.away.as_ref().unwrap().contains("etcd is slow"));
        api.put(peer(9));
        let view = running.until(|view| view.peers.len() == 3).await;
        assert_eq!((lists(&api), view.away.clone()), (1, None));
    });
}
