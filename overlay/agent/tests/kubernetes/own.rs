//! This node's own Node: what it says stays true, whoever writes to it.

use super::*;
use apiserver::Fault;

async fn started(api: &ApiServer) -> Running {
    api.put(apiserver::node("me", &["10.244.1.0/24"]));
    let mut running = run(api, V4).await;
    running.until_complete().await;
    running.ready.send_replace(Ready::Yes);
    eventually(|| api.condition("me")["status"] == "False").await;
    eventually(|| api.watches() == 1).await;
    // It has heard of all it wrote: what it does from now on has another cause.
    let watch = api.asked("GET", "watch=true").pop().unwrap().uri;
    let from: u64 = watch
        .rsplit_once("resourceVersion=")
        .unwrap()
        .1
        .parse()
        .unwrap();
    let since = api
        .store()
        .history
        .iter()
        .filter(|(version, ..)| *version > from)
        .count();
    eventually(|| running.view.borrow().events > since as u64).await;
    running
}

#[test]
fn section_2_3_the_condition_is_flannels_and_follows_the_network() {
    scene(|api| async move {
        api.put(apiserver::node("me", &["10.244.1.0/24"]));
        let running = run(&api, V4).await;
        // A node without the condition has no network yet: that is said at once.
        eventually(|| api.condition("me")["status"] == "True").await;
        assert_eq!(api.condition("me")["message"], "starting");
        running.ready.send_replace(Ready::Yes);
        eventually(|| api.condition("me")["status"] == "False").await;
        let up = api.condition("me");
        assert_eq!(up["reason"], "FlannelIsUp");
        assert_eq!(up["message"], "Flannel is running on this node");
        assert_eq!(up["lastTransitionTime"], up["lastHeartbeatTime"]);
        assert_eq!(
            api.node("me")["status"]["conditions"]
                .as_array()
                .unwrap()
                .len(),
            2,
            "Ready stays"
        );
        running
            .ready
            .send_replace(Ready::No("no parent interface".into()));
        eventually(|| api.condition("me")["status"] == "True").await;
        assert_eq!(api.condition("me")["message"], "no parent interface");
        let written = api.asked("PATCH", "/status");
        assert!(
            written
                .iter()
                .all(|asked| asked.content_type == "application/strategic-merge-patch+json")
        );
        drop(running);
    });
}

#[test]
fn a_restart_is_no_outage() {
    scene(|api| async move {
        drop(started(&api).await);
        let before = api.store().version;
        // However long the start takes here, it is within the grace.
        let mut patient = options(&api.url());
        patient.pace.grace = PATIENCE;
        let mut again = run_with(patient, V4).await;
        again.until_complete().await;
        again.ready.send_replace(Ready::Yes);
        // A write to wait for: nothing came before it.
        api.edit("me", &annotation("public-ip", "192.0.2.66".into()));
        eventually(|| api.annotations("me")[&format!("{PREFIX}/public-ip")] == "192.0.2.10").await;
        assert_eq!(api.store().version, before + 2);
        assert_eq!(api.condition("me")["status"], "False");
    });
}

#[test]
fn the_condition_is_tried_until_it_sticks() {
    scene(|api| async move {
        api.put(apiserver::node("me", &["10.244.1.0/24"]));
        let running = run(&api, V4).await;
        eventually(|| api.condition("me")["status"] == "True").await;
        for code in [500, 403, 0, 409] {
            api.store().faults.push(Fault {
                method: "PATCH",
                part: "/status",
                times: 1,
                code,
            });
        }
        running.ready.send_replace(Ready::Yes);
        eventually(|| api.condition("me")["status"] == "False").await;
        assert!(api.store().faults.iter().all(|fault| fault.times == 0));
    });
}

#[test]
fn a_cloud_controller_that_sets_the_condition_is_contradicted() {
    scene(|api| async move {
        let _running = started(&api).await;
        let theirs = json!({ "status": { "conditions": [ {
            "type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated",
            "message": "Node created without a route", "lastTransitionTime": "2020-01-01T00:00:00Z",
        } ] } });
        for _ in 0..3 {
            api.edit("me", &theirs);
            eventually(|| api.condition("me")["status"] == "False").await;
            assert_eq!(api.condition("me")["reason"], "FlannelIsUp");
        }
        // Only the words differ: no transition.
        let words = json!({ "status": { "conditions": [ {
            "type": "NetworkUnavailable", "reason": "RouteCreated", "lastTransitionTime": "2020-01-01T00:00:00Z",
        } ] } });
        api.edit("me", &words);
        eventually(|| api.condition("me")["reason"] == "FlannelIsUp").await;
        assert_eq!(
            api.condition("me")["lastTransitionTime"],
            "2020-01-01T00:00:00Z"
        );
    });
}

#[test]
fn the_condition_can_be_left_alone() {
    scene(|api| async move {
        api.put(apiserver::node("me", &["10.244.1.0/24"]));
        let options = Options {
            set_network_unavailable: false,
            ..options(&api.url())
        };
        let mut running = run_with(options, V4).await;
        running.until_complete().await;
        running.ready.send_replace(Ready::Yes);
        api.edit("me", &annotation("public-ip", "192.0.2.66".into()));
        eventually(|| api.annotations("me")[&format!("{PREFIX}/public-ip")] == "192.0.2.10").await;
        assert_eq!(api.condition("me"), Value::Null);
    });
}

#[test]
fn annotations_that_somebody_changes_are_written_again_at_growing_intervals() {
    scene(|api| async move {
        let _running = started(&api).await;
        let stands = |api: &ApiServer| {
            let found = api.annotations("me");
            let has = |key: &str, value: &str| {
                found
                    .get(&format!("{PREFIX}/{key}"))
                    .is_some_and(|v| v == value)
            };
            has("kube-subnet-manager", "true")
                && has("backend-data", DATA)
                && has("public-ip", "192.0.2.10")
        };
        for patch in [
            annotation("backend-data", "{}".into()),
            annotation("kube-subnet-manager", Value::Null),
            annotation("public-ip", "A".repeat(100_000).into()),
            json!({ "metadata": { "annotations": null } }),
        ] {
            api.edit("me", &patch);
            eventually(|| stands(&api)).await;
        }
        let before = api.asked("PATCH", "").len();
        // Somebody who never gives in: no more than one write per pause (50 ms at most here, 25 at least).
        let writes = || api.asked("PATCH", "").len() - before;
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(300) || writes() < 2 {
            api.edit("me", &annotation("backend-data", "{}".into()));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (writes, time) = (writes(), began.elapsed());
        assert!(
            writes as u128 <= time.as_millis() / 25 + 2,
            "{writes} writes in {time:?}"
        );
    });
}

#[test]
fn a_new_address_or_mac_is_published_in_one_write() {
    scene(|api| async move {
        let running = started(&api).await;
        let before = api.asked("PATCH", "").len();
        let mut now = running.me.borrow().clone();
        let end = now.v4.as_mut().unwrap();
        end.public_ip = "192.0.2.11".parse().unwrap();
        end.vtep = Some(vtep(DATA_V6));
        running.me.send_replace(now);
        eventually(|| api.annotations("me")[&format!("{PREFIX}/backend-data")] == DATA_V6).await;
        assert_eq!(
            api.annotations("me")[&format!("{PREFIX}/public-ip")],
            "192.0.2.11"
        );
        assert_eq!(api.asked("PATCH", "").len(), before + 1);
        // An operator's wish is followed as it comes and goes.
        api.edit(
            "me",
            &annotation("public-ip-overwrite", "203.0.113.9".into()),
        );
        eventually(|| api.annotations("me")[&format!("{PREFIX}/public-ip")] == "203.0.113.9").await;
        api.edit("me", &annotation("public-ip-overwrite", Value::Null));
        eventually(|| api.annotations("me")[&format!("{PREFIX}/public-ip")] == "192.0.2.11").await;
    });
}

#[test]
fn rule_15_a_pod_cidr_that_changes_under_the_pods_is_told_and_not_followed() {
    scene(|api| async move {
        let mut running = started(&api).await;
        assert_eq!(running.view.borrow().lost, None);
        let cidr = |cidr: &str| json!({ "spec": { "podCIDR": cidr, "podCIDRs": [cidr] } });
        api.edit("me", &cidr("10.244.9.0/24"));
        let view = running.until(|view| view.lost.is_some()).await;
        let why = view.lost.clone().unwrap();
        assert!(
            why.contains("10.244.9.0/24") && why.contains("10.244.1.0/24"),
            "{why}"
        );
        api.edit("me", &cidr("10.244.1.0/24"));
        running.until(|view| view.lost.is_none()).await;
        api.delete("me");
        let view = running.until(|view| view.lost.is_some()).await;
        assert!(view.lost.as_ref().unwrap().contains("deleted"));
        // Registered again, with the same podCIDR: everything is written again.
        api.put(apiserver::node("me", &["10.244.1.0/24"]));
        running.until(|view| view.lost.is_none()).await;
        eventually(|| api.annotations("me").len() == 4 && api.condition("me")["status"] == "False")
            .await;
    });
}
