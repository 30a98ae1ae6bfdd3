//! A container on a [`Node`].

use std::io::Read;
use std::process::{Child, ExitStatus, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{IMAGE, NAMESPACE, Node, PATIENCE};
use crate::place::{STOP, pause};

/// A running container. Dropping it leaves it to its node.
#[derive(Debug)]
pub struct Container<'n> {
    node: &'n Node,
    name: String,
    /// `ctr run`, which waits for the container and, if it attached it, detaches it from the network.
    runner: Child,
    /// Its process, as the node numbers it.
    pid: u32,
}

impl Node {
    /// Starts a pod: a container whose network is what the conflist's plugins make of its fresh network namespace.
    /// Returns when its process runs, hence after ADD. An error has the runtime's words, and with them the plugin's.
    pub fn pod(&self, name: &str, argv: &[&str]) -> Result<Container<'_>> {
        self.begin(name, &["--cni"], argv)
    }

    /// Starts a container that joins the network namespace of `pod`, as the containers of a Kubernetes pod join the pause
    /// container's. The plugins are not called.
    pub fn join(&self, pod: &Container<'_>, name: &str, argv: &[&str]) -> Result<Container<'_>> {
        self.begin(
            name,
            &["--with-ns", &format!("network:{}", pod.netns_path())],
            argv,
        )
    }

    /// Runs a container in the network namespace of `pod` to its end.
    pub fn join_once(&self, pod: &Container<'_>, name: &str, argv: &[&str]) -> Result<Output> {
        let flags = ["--with-ns", &format!("network:{}", pod.netns_path())];
        let argv = self.ctr_run(name, &flags, argv);
        self.command(&argv.iter().map(String::as_str).collect::<Vec<_>>())
            .output()
            .context("start ctr run")
    }

    fn ctr_run(&self, name: &str, flags: &[&str], argv: &[&str]) -> Vec<String> {
        let cgroup = format!("{}/{name}", self.cgroup());
        [
            "ctr",
            "--namespace",
            NAMESPACE,
            "run",
            "--rm",
            "--cgroup",
            &cgroup,
        ]
        .iter()
        .chain(flags)
        .chain(&[IMAGE, name])
        .chain(argv)
        .map(|word| (*word).to_owned())
        .collect()
    }

    fn begin(&self, name: &str, flags: &[&str], argv: &[&str]) -> Result<Container<'_>> {
        ensure!(!STOP.load(Ordering::Relaxed), "asked to stop");
        let mut flags = flags.to_vec();
        flags.push("--null-io");
        let argv = self.ctr_run(name, &flags, argv);
        let mut runner = self
            .command(&argv.iter().map(String::as_str).collect::<Vec<_>>())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start ctr run")?;

        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = runner.try_wait()? {
                // ctr leaves the task of a pod whose ADD failed; a kubelet would clear it away, so do we.
                let _ = self.ctr(&["tasks", "delete", "--force", name]);
                let _ = self.ctr(&["containers", "delete", name]);
                bail!(
                    "container {name} did not start: {}",
                    ending(&mut runner, status)
                );
            }
            let tasks = self.ctr(&["tasks", "ls"])?;
            let row = tasks
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>());
            if let Some([_, pid, _]) = row
                .into_iter()
                .find(|row| matches!(row[..], [n, _, "RUNNING"] if n == name))
                .as_deref()
            {
                return Ok(Container {
                    node: self,
                    name: name.to_owned(),
                    runner,
                    pid: pid.parse()?,
                });
            }
            ensure!(
                Instant::now() < deadline,
                "container {name} did not start within {PATIENCE:?}"
            );
            pause();
        }
    }
}

impl Container<'_> {
    /// Its name for `ctr`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `CNI_CONTAINERID`: go-cni puts containerd's namespace before the name.
    pub fn id(&self) -> String {
        format!("{NAMESPACE}-{}", self.name)
    }

    /// Its first process, as the node numbers it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its network namespace, as a path on the node. This is what ADD gets as `CNI_NETNS`.
    pub fn netns_path(&self) -> String {
        format!("/proc/{}/ns/net", self.pid)
    }

    /// Its network namespace by inode: `net:[4026532561]`.
    pub fn netns(&self) -> Result<String> {
        Ok(self
            .node
            .run(&["readlink", &self.netns_path()])?
            .trim()
            .to_owned())
    }

    /// Runs one of busybox's programs inside; its standard output.
    ///
    /// Through the container's namespaces rather than `ctr tasks exec`, which now and then loses the output of a program
    /// that ends at once: it stops reading when it hears of the end.
    pub fn exec(&self, argv: &[&str]) -> Result<String> {
        let target = format!("--target={}", self.pid);
        let enter = [
            "nsenter", &target, "--mount", "--net", "--pid", "--ipc", "--uts", "--root", "--wd",
            "--",
        ];
        let whole = [
            &enter[..],
            &["/bin/busybox", "env", "-i", "PATH=/bin"],
            argv,
        ]
        .concat();
        self.node.run(&whole)
    }

    /// Runs one of the node's programs in the container's network namespace only: `ip addr`, say.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        self.node.run(
            &self
                .in_netns(argv)
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        )
    }

    /// Like [`Container::run`], for programs that print JSON.
    pub fn json(&self, argv: &[&str]) -> Result<Value> {
        self.node.json(
            &self
                .in_netns(argv)
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        )
    }

    fn in_netns(&self, argv: &[&str]) -> Vec<String> {
        let netns = format!("--net={}", self.netns_path());
        ["nsenter", &netns, "--"]
            .iter()
            .chain(argv)
            .map(|word| (*word).to_owned())
            .collect()
    }

    /// Kills it and waits until the runtime is done with it: for a pod, after DEL. An error if the runtime complained.
    pub fn remove(mut self) -> Result<()> {
        self.node
            .ctr(&["tasks", "kill", "--signal", "SIGKILL", &self.name])?;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.runner.try_wait()? {
                break status;
            }
            ensure!(!STOP.load(Ordering::Relaxed), "asked to stop");
            ensure!(
                Instant::now() < deadline,
                "container {} did not end within {PATIENCE:?}",
                self.name
            );
            pause();
        };
        // ctr passes on the exit status of the container, killed; a failed DEL it only logs.
        let said = ending(&mut self.runner, status);
        ensure!(
            !said.contains("level=error"),
            "container {} did not end well: {said}",
            self.name
        );
        Ok(())
    }
}

fn ending(runner: &mut Child, status: ExitStatus) -> String {
    let mut said = String::new();
    if let Some(stderr) = runner.stderr.as_mut() {
        // What cannot be read is left out of the message, which is all this is for.
        let _ = stderr.read_to_string(&mut said);
    }
    format!("{status}: {}", said.trim())
}
