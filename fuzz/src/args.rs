//! The environment, and `CNI_ARGS` in it.

use libcni::spec::args::{Env, Invocation, KNOWN_ARGS, parse_args};
use libcni::spec::{Attachment, CallEnv};

use crate::config::refused;

/// Lines `KEY=VALUE`, as `env` prints them.
struct Lines(Vec<(String, String)>);

impl Env for Lines {
    fn var(&self, name: &str) -> Option<String> {
        let found = self.0.iter().find(|(key, _)| key == name)?;
        Some(found.1.clone())
    }
}

/// An environment, a variable a line.
pub fn args(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let lines = Lines(pairs.map(|(k, v)| (k.into(), v.into())).collect());
    if let Some(args) = lines.var("CNI_ARGS") {
        pairs_of(&args);
    }
    match Invocation::read(&lines) {
        Err(error) => refused(&error),
        Ok(Invocation::Call(call)) => checked(&call),
        Ok(Invocation::About | Invocation::Unknown(_)) => {}
    }
}

fn checked(call: &CallEnv) {
    if let Some(attachment) = &call.attachment {
        names(attachment);
    }
    pairs_of(&call.args);
}

/// They name files and interfaces.
pub(crate) fn names(attachment: &Attachment) {
    let id = attachment.container_id.as_str();
    stays_here(id);
    let safe = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    assert!(id.chars().all(safe), "{id:?}");
    let ifname = attachment.ifname.as_str();
    stays_here(ifname);
    let wrong = |c: char| c == ':' || c.is_whitespace();
    assert!(ifname.len() < 16 && !ifname.contains(wrong), "{ifname:?}");
}

/// As the name of a file, it is one in the directory it is put in.
pub(crate) fn stays_here(name: &str) {
    let leads_away = name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']);
    assert!(!leads_away, "{name:?}");
}

fn pairs_of(args: &str) {
    let pairs = match parse_args(args, KNOWN_ARGS) {
        Ok(pairs) => pairs,
        Err(error) => return refused(&error),
    };
    for (at, (key, _)) in pairs.iter().enumerate() {
        assert!(KNOWN_ARGS.contains(&key.as_str()), "{key:?}");
        assert!(
            pairs.iter().skip(at + 1).all(|(k, _)| k != key),
            "{key:?} twice"
        );
    }
    let joined: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let again = parse_args(&joined.join(";"), KNOWN_ARGS);
    assert_eq!(again, Ok(pairs), "written again");
}
