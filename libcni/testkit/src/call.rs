//! Running a plugin as a container runtime would.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;

/// One invocation: the program, `CNI_*`, stdin. Nothing of the test's own environment but `PATH` is passed.
///
/// ```no_run
/// let out = testkit::Call::new(testkit::bin_dir().join("loopback"))
///     .verb("ADD").container("c1").netns("/run/netns/one").ifname("lo")
///     .stdin(r#"{"cniVersion":"1.1.0","name":"lo","type":"loopback"}"#)
///     .run();
/// assert!(out.status.success());
/// ```
#[derive(Debug, Clone)]
pub struct Call {
    program: PathBuf,
    env: Vec<(OsString, OsString)>,
    stdin: Vec<u8>,
}

/// What it did.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// The Result or the error object.
    pub stdout: String,
    /// Its log.
    pub stderr: String,
}

// === impl Call ===

impl Call {
    /// Of this executable.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let program = program.into();
        let env = vec![("PATH".into(), crate::netns::tools_path().into())];
        Self {
            program,
            env,
            stdin: Vec::new(),
        }
    }

    /// `CNI_COMMAND`
    pub fn verb(self, verb: &str) -> Self {
        self.env("CNI_COMMAND", verb)
    }

    /// `CNI_CONTAINERID`
    pub fn container(self, id: &str) -> Self {
        self.env("CNI_CONTAINERID", id)
    }

    /// `CNI_NETNS`
    pub fn netns(self, path: &str) -> Self {
        self.env("CNI_NETNS", path)
    }

    /// `CNI_IFNAME`
    pub fn ifname(self, name: &str) -> Self {
        self.env("CNI_IFNAME", name)
    }

    /// `CNI_ARGS`
    pub fn args(self, args: &str) -> Self {
        self.env("CNI_ARGS", args)
    }

    /// `CNI_PATH`
    pub fn cni_path(self, path: impl AsRef<OsStr>) -> Self {
        self.env("CNI_PATH", path)
    }

    /// Any variable; the last one of a name counts.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.into(), value.as_ref().into()));
        self
    }

    /// Takes a variable away.
    pub fn without(mut self, key: &str) -> Self {
        self.env.retain(|(k, _)| k != key);
        self
    }

    /// The configuration.
    pub fn stdin(mut self, config: impl Into<Vec<u8>>) -> Self {
        self.stdin = config.into();
        self
    }

    /// The command, for what [`Call::run`] does not offer (many at once, signals).
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(&self) -> Output {
        let mut child = self
            .command()
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", self.program.display()));
        // Configurations are far smaller than a pipe's 64 KiB, so writing first cannot block for good.
        match child.stdin.take().unwrap().write_all(&self.stdin) {
            // It may refuse its environment before reading.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
            written => written.unwrap(),
        }
        let output = child.wait_with_output().unwrap();
        Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it, panics unless it succeeds, returns its Result (null when it printed nothing).
    #[track_caller]
    pub fn ok(&self) -> Value {
        let output = self.run();
        assert!(output.status.success(), "{self:?}\n{output:?}");
        if output.stdout.is_empty() {
            Value::Null
        } else {
            output.json()
        }
    }

    /// Runs it, panics unless it fails, returns its error object.
    #[track_caller]
    pub fn err(&self) -> Value {
        let output = self.run();
        assert!(!output.status.success(), "{self:?}\n{output:?}");
        output.json()
    }
}

// === impl Output ===

impl Output {
    /// stdout as JSON; panics when it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("stdout is not JSON ({e}): {self:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bin_dir, in_netns};

    #[test]
    fn a_plugin_is_built_and_called() {
        in_netns(|| {
            let call = Call::new(bin_dir().join("loopback")).stdin(r#"{"cniVersion":"1.1.0"}"#);
            let versions = call.clone().verb("VERSION").ok();
            assert_eq!(versions["cniVersion"], "1.1.0");
            let error = call
                .clone()
                .verb("ADD")
                .without("CNI_COMMAND")
                .verb("BOIL")
                .err();
            assert!(error["code"].is_u64(), "{error}");
        });
    }

    /// Another process of the same run finds them built.
    #[test]
    fn all_plugins_are_in_one_place() {
        in_netns(|| {
            for plugin in ["bridge", "loopback", "host-local"] {
                assert!(bin_dir().join(plugin).is_file());
            }
        });
    }
}
