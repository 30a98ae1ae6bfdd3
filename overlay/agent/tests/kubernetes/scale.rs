//! Item 10.3.6 and pain 20: 5,000 nodes of full size, in little memory and time.
//!
//! The server is a process of its own here: what it needs must not count.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::*;

const NODES: usize = 5000;
/// Tells the test below that it is the server.
const SERVE: &str = "OVERLAYD_TEST_SERVES_NODES";

struct Server {
    child: Child,
    url: String,
}

/// Node `number` of many; they are known from each other by what they have.
fn numbered(number: usize) -> Value {
    let (high, low) = (number / 256, number % 256);
    let data = format!(r#"{{"VNI":1,"VtepMAC":"0a:00:00:00:{high:02x}:{low:02x}"}}"#);
    annotated(
        &format!("ip-10-100-{high}-{low}.eu-central-1.compute.internal"),
        &[&format!("10.{}.{low}.0/24", 64 + high)],
        &[
            ("kube-subnet-manager", "true"),
            ("backend-type", "vxlan"),
            ("backend-data", &data),
            ("public-ip", &format!("10.100.{high}.{low}")),
        ],
    )
}

/// What fills a real Node: who owns which field, and images, each with two long names.
fn filler() -> String {
    let image = |n: usize| {
        let name = format!("registry.example.com/team-{n}/a-service-with-a-name-{n}");
        json!({ "names": [format!("{name}@sha256:{}", "0123456789abcdef".repeat(4)), format!("{name}:v1.{n}")],
            "sizeBytes": 100_000 + n })
    };
    let fields: Vec<Value> = (0..12)
        .map(|n| json!({ "manager": "kubelet", "operation": "Update", "fieldsV1": { "f:status": {
            "f:conditions": { format!("k:{{\"type\":\"C{n}\"}}"): { ".": {}, "f:type": {}, "f:status": {} } } } } }))
        .collect();
    let images: Vec<Value> = (0..36).map(image).collect();
    format!("\"managed\":{},\"images\":{}", json!(fields), json!(images))
}

/// Not a test of its own: the server's process, which ends when its input does.
#[test]
fn serves_nodes() {
    if std::env::var_os(SERVE).is_none() {
        return;
    }
    let api = ApiServer::start();
    for number in 0..NODES {
        api.put(numbered(number));
    }
    api.put(apiserver::node("me", &["10.127.0.0/24"]));
    {
        let mut store = api.store();
        store.filler = Some(filler());
        store.history.clear();
        store.forgotten = store.version;
    }
    println!("\nserving {}", api.url());
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// What this process has worked so far.
fn cpu_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .unwrap()
        .into()
}

/// Resident memory, in KiB: now, and at most so far.
fn memory_kib() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("VmRSS:"), field("VmHWM:"))
}

#[test]
fn pain_20_five_thousand_nodes_in_twelve_mebibytes_and_a_change_costs_little() {
    scene(|_| async move {
        let server = Server::start();
        let text = r#"{"Network": "10.64.0.0/10", "Backend": {"Type": "vxlan"}}"#;
        let mut directory = Kubernetes::open(options(&server.url)).await.unwrap();
        let conf = conf(text);
        let of_me = me(&conf);
        let lease = directory.lease(&conf, &of_me, None).await.unwrap();
        let (before, _) = memory_kib();
        let began = Instant::now();
        let mut running = follow(directory, conf, of_me, lease);
        let complete = running.view.wait_for(|view| view.complete);
        tokio::time::timeout(PATIENCE, complete)
            .await
            .unwrap()
            .unwrap();
        let listed = began.elapsed();
        assert_eq!(running.view.borrow().peers.len(), NODES);
        running.ready.send_replace(Ready::Yes);

        // An agent holds what it was told last.
        let (mut times, mut works) = (Vec::new(), Vec::new());
        let mut held = running.view.borrow_and_update().clone();
        let access =
            kube::Client::try_from(kube::Config::new(server.url.parse().unwrap())).unwrap();
        for round in 0..20 {
            let number = round * 200;
            let name = numbered(number)["metadata"]["name"]
                .as_str()
                .unwrap()
                .to_owned();
            let patch = annotation("public-ip", format!("10.101.0.{round}").into());
            let request = kube::core::Request::new("/api/v1/nodes")
                .patch_subresource(
                    "status",
                    &name,
                    &Default::default(),
                    &kube::api::Patch::Merge(patch),
                )
                .unwrap();
            let (began, worked) = (Instant::now(), cpu_time());
            let written = access.request_text(request);
            let ip = format!("10.101.0.{round}");
            let seen = running.view.wait_for(|view| {
                let site = view.peers[&name].v4.unwrap();
                site.public_ip.to_string() == ip
            });
            let (written, seen) = tokio::join!(written, async {
                (seen.await.unwrap().clone(), began.elapsed())
            });
            written.unwrap();
            held = seen.0;
            times.push(seen.1);
            works.push(cpu_time() - worked);
        }
        let (after, most) = memory_kib();
        times.sort();
        works.sort();
        let (time, work) = (times[times.len() / 2], works[works.len() / 2]);
        println!(
            "5,000 nodes: listed in {listed:?}, {} KiB more (at most {}); a change is seen {time:?} after its request, \
             {:?} at best, for {work:?} of work",
            after - before,
            most - before,
            times[0],
        );
        assert_eq!(held.peers.len(), NODES);
        assert!(most - before <= 12 << 10, "{} KiB", most - before);
        // Work, because others may use the machine as well; the request's own is in it.
        let most = if cfg!(debug_assertions) { 12 } else { 3 };
        let most = Duration::from_millis(most);
        assert!(work <= most && times[0] <= most, "{work:?}, {:?}", times[0]);
    });
}

// === impl Server ===

impl Server {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "scale::serves_nodes", "--nocapture"])
            .env(SERVE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        let url = lines.find_map(|line| line.strip_prefix("serving ").map(str::to_owned));
        Self {
            child,
            url: url.unwrap(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut input) = self.child.stdin.take() {
            let _ = input.write_all(b"\n");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
