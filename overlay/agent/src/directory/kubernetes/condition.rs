//! The condition NetworkUnavailable: flannel's words when the network is up, and the reason when it is not.
//!
//! A Node with this condition True gets a taint, and no pods.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::annotation::clip;
use super::node::{Condition, NETWORK_UNAVAILABLE};
use crate::directory::Ready;

/// What it has to say; the times aside.
pub fn wanted(ready: &Ready) -> Condition {
    let (status, reason, message) = match ready {
        Ready::Yes => (
            "False",
            "FlannelIsUp",
            "Flannel is running on this node".to_owned(),
        ),
        Ready::No(why) => ("True", "FlannelIsDown", clip(why)),
    };
    Condition {
        kind: NETWORK_UNAVAILABLE.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        last_transition_time: None,
    }
}

/// Is there nothing to write?
pub fn stands(wanted: &Condition, found: Option<&Condition>) -> bool {
    found.is_some_and(|found| {
        let same_words = found.reason == wanted.reason && found.message == wanted.message;
        found.status == wanted.status && same_words
    })
}

/// As it is written. The time of transition is that of a change between True and False, and nothing else.
pub fn write(wanted: &Condition, found: Option<&Condition>) -> Value {
    let now = now();
    let since = found
        .filter(|found| found.status == wanted.status)
        .and_then(|found| found.last_transition_time.clone());
    json!({
        "type": wanted.kind,
        "status": wanted.status,
        "reason": wanted.reason,
        "message": wanted.message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": since.unwrap_or_else(|| now.clone()),
    })
}

/// RFC 3339 in whole seconds, the API server's form.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_api_servers_form() {
        let now = now();
        assert_eq!(now.len(), "2026-11-21T09:39:46Z".len(), "{now}");
        assert!(now.ends_with('Z') && now.parse::<Timestamp>().is_ok());
    }

    #[test]
    fn the_time_of_transition_changes_with_the_status_only() {
        let up = wanted(&Ready::Yes);
        let found = |status: &str| Condition {
            status: status.into(),
            last_transition_time: Some("2020-01-01T00:00:00Z".into()),
            ..up.clone()
        };
        let time = |found: &Condition| write(&up, Some(found))["lastTransitionTime"].clone();
        assert_eq!(time(&found("False")), "2020-01-01T00:00:00Z");
        assert_ne!(time(&found("True")), "2020-01-01T00:00:00Z");
        assert!(!stands(&up, Some(&found("True"))) && !stands(&up, None));
        assert!(stands(&up, Some(&found("False"))));
    }
}
