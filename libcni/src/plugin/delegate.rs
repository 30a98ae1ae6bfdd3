//! Running another plugin (CNI 1.1.0, "Section 4: Plugin Delegation").
//!
//! A delegate is a *name* looked up in `CNI_PATH`, never a path: a configuration must not be able to run
//! any file of the host (CVE-2021-20206).

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::signal;
use crate::kernel::process::{self, Ended, Environment, Output};
use crate::record;
use crate::spec::Verb;
use crate::spec::error::{CniError, Code};
use crate::spec::json::Node;

/// How often a delegate that is being replaced (`ETXTBSY`) is tried, and the pause in between.
const BUSY_TRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// The first regular file called `name` in `path`, the elements of `CNI_PATH`.
///
/// # Errors
/// An empty name, a name with a slash, an empty path, or nothing found: code 7, for these are mistakes of
/// the network configuration or of the runtime's set-up.
pub fn find(name: &str, path: &[String]) -> Result<PathBuf, CniError> {
    let invalid = |msg: String, details: &str| {
        Err(CniError::new(Code::InvalidConfig, msg).with_details(details))
    };
    if name.is_empty() {
        return invalid("no plugin name provided".into(), "set `ipam.type`");
    }
    if name.contains('/') || name == "." || name == ".." {
        return invalid(
            format!("invalid plugin name: {name}"),
            "a plugin is named, not given by path; it is looked up in CNI_PATH",
        );
    }
    if path.is_empty() {
        return invalid("no paths provided".into(), "set CNI_PATH");
    }
    for dir in path {
        let dir = if dir.is_empty() { "." } else { dir };
        let file = Path::new(dir).join(name);
        if file.metadata().is_ok_and(|m| m.is_file()) {
            return Ok(file);
        }
    }
    invalid(
        format!(
            "failed to find plugin {name:?} in path [{}]",
            path.join(" ")
        ),
        "install it in one of these directories, or correct `ipam.type`",
    )
}

/// Runs `file` for `verb` with this process's environment and the very bytes of stdin it got, and returns
/// what it printed.
///
/// # Errors
/// The delegate's own error object as it stands; or, where it printed none, code 999 with its exit status
/// or signal and its stderr. The spec has no code 0, which the reference prints there.
pub fn exec(file: &Path, verb: Verb, stdin: &[u8]) -> Result<Vec<u8>, CniError> {
    let output = spawn(file, verb, stdin).map_err(|e| {
        CniError::new(
            Code::Io,
            format!("failed to run delegate {}: {e}", file.display()),
        )
    })?;
    if output.ended == Ended::Exit(0) {
        // The reference passes a delegate's log on only when it succeeded.
        let _ = std::io::stderr().write_all(&output.stderr);
        return Ok(output.stdout);
    }
    // One that we stopped did not fail by itself.
    signal::check()?;
    Err(failure(file, output.ended, &output.stdout, &output.stderr))
}

fn spawn(file: &Path, verb: Verb, stdin: &[u8]) -> std::io::Result<Output> {
    let name = file.to_string_lossy();
    let traceparent = record::traceparent();
    let mut env = vec![("CNI_COMMAND", verb.as_str())];
    env.extend(traceparent.as_deref().map(|span| ("TRACEPARENT", span)));
    for _ in 1..BUSY_TRIES {
        match process::run(file, &[&name], Environment::With(&env), stdin) {
            Err(e) if e.kind() == ErrorKind::ExecutableFileBusy => std::thread::sleep(BUSY_PAUSE),
            outcome => return outcome,
        }
    }
    Err(ErrorKind::ExecutableFileBusy.into())
}

/// What a plugin that did not exit 0 said, or, if that was nothing, what is known of it.
pub(crate) fn failure(file: &Path, ended: Ended, stdout: &[u8], stderr: &[u8]) -> CniError {
    let text = String::from_utf8_lossy(stdout);
    let stderr = String::from_utf8_lossy(stderr);
    let how = format!("{}: {ended}", file.display());
    if !text.trim().is_empty() {
        let told = Node::parse(stdout).ok();
        let told = told.and_then(|node| CniError::from_node(&node).ok());
        return match told {
            Some(error) if error.code != Code::Other(0) => error,
            // It failed, and 0 is no error's code.
            Some(error) if !error.msg.is_empty() => CniError {
                code: Code::Internal,
                ..error
            },
            _ => CniError::new(
                Code::Internal,
                format!("netplugin failed but error parsing its diagnostic message {text:?}"),
            )
            .with_details(how),
        };
    }
    let msg = if stderr.trim().is_empty() {
        format!("netplugin failed with no error message: {ended}")
    } else {
        format!("netplugin failed: {:?}", tail(&stderr))
    };
    CniError::new(Code::Internal, msg).with_details(how)
}

/// The last 2 KiB of a log: enough for a message and its trace, little enough for an event.
fn tail(text: &str) -> &str {
    let mut from = text.len().saturating_sub(2048);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text.get(from..).unwrap_or_default().trim_end()
}
