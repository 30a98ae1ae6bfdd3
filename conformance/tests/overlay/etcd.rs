//! etcd, as Debian has it.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use conformance::deployment::Plan;
use conformance::fleet::Space;

/// Where it is, of the outsider.
pub const URL: &str = "http://192.168.64.100:2379";

/// A deployment whose directory it is.
pub fn plan() -> Plan {
    let mut plan = Plan::new(&testkit::bin_dir(), Path::new("/run/overlay"));
    plan.files = false;
    plan.options = [&format!("--etcd-endpoints={URL}"), "--etcd-prefix=/podwire"]
        .map(str::to_owned)
        .into();
    plan
}

/// The server, until dropped.
pub struct Etcd<'a> {
    space: &'a Space,
    server: Option<Child>,
}

// === impl Etcd ===

impl<'a> Etcd<'a> {
    pub fn start(space: &'a Space) -> Self {
        let mut etcd = Self {
            space,
            server: None,
        };
        etcd.resume();
        etcd
    }

    pub fn resume(&mut self) {
        let mut command = self.space.command("etcd");
        command.args([
            "--data-dir=/run/etcd",
            "--log-level=error",
            "--unsafe-no-fsync",
        ]);
        command.args(["--listen-client-urls", URL, "--advertise-client-urls", URL]);
        command.args(["--listen-peer-urls=http://127.0.0.1:0"]);
        self.server = Some(
            command
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        );
        testkit::eventually(Duration::from_secs(60), || {
            self.ctl(&["get", "config"]).is_some()
        });
    }

    pub fn ctl(&self, args: &[&str]) -> Option<String> {
        let mut command = self.space.command("etcdctl");
        // A write has to come about; whoever reads asks again.
        let seconds = if args[0] == "put" { 20 } else { 2 };
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={URL}"))
            .arg(format!("--command-timeout={seconds}s"))
            .args(args);
        let output = command.output().unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    }

    pub fn compact(&self) {
        let Some(status) = self.ctl(&["get", "config", "-w", "json"]) else {
            return;
        };
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        self.ctl(&["compact", &status["header"]["revision"].to_string()]);
    }

    pub fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }
}

impl Drop for Etcd<'_> {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.kill();
        }
    }
}
