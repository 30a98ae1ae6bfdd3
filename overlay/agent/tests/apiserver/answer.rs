//! Requests and their answers.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::Response;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::patch;
use super::serve::Answer;
use super::store::{Asked, Fault, Store, Watch, line};

/// No answer.
pub enum Broken {
    /// The connection breaks.
    Connection,
    /// It stays open.
    Server,
}

type Query = HashMap<String, String>;

/// Answers, or breaks the connection.
pub fn answer(
    store: &mut Store,
    asked: &Asked,
    authorization: &str,
) -> Result<Response<Answer>, Broken> {
    if let Some(fault) = store
        .faults
        .iter_mut()
        .find(|f| f.times > 0 && f.method == asked.method && asked.uri.contains(f.part))
    {
        fault.times -= 1;
        let code = fault.code;
        return match code {
            Fault::BREAK => Err(Broken::Connection),
            Fault::HANG => Err(Broken::Server),
            Fault::HALF => Ok(half(store, &parse(&asked.uri))),
            code => Ok(failure(code, "a fault")),
        };
    }
    if let Some(token) = &store.token
        && *authorization != format!("Bearer {token}")
    {
        return Ok(failure(401, "Unauthorized"));
    }
    let (path, query) = asked.uri.split_once('?').unwrap_or((&asked.uri, ""));
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    Ok(match (asked.method.as_str(), parts.as_slice()) {
        ("GET", ["api", "v1", "nodes"]) => {
            let query = parse(query);
            if query.get("watch").is_some_and(|watch| watch == "true") {
                watch(store, &query)
            } else {
                list(store, &query)
            }
        }
        ("GET", ["api", "v1", "nodes", name]) => match store.nodes.get(*name) {
            Some(node) => json_answer(200, store.text(node)),
            None => failure(404, "nodes not found"),
        },
        ("PATCH", ["api", "v1", "nodes", name]) => patched(store, asked, name, false),
        ("PATCH", ["api", "v1", "nodes", name, "status"]) => patched(store, asked, name, true),
        ("GET", ["api", "v1", "namespaces", namespace, "pods", name]) => {
            match store.pods.get(&format!("{namespace}/{name}")) {
                Some(node) => json_answer(200, json!({ "spec": { "nodeName": node } }).to_string()),
                None => failure(404, "pods not found"),
            }
        }
        _ => failure(404, "no such path"),
    })
}

fn list(store: &mut Store, query: &Query) -> Response<Answer> {
    let text = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
    let (version, mut items) = match text("continue") {
        "" => {
            let since: u64 = text("resourceVersion").parse().unwrap_or_default();
            if since > store.version {
                return failure(504, "Too large resource version");
            }
            let name = name_of(query);
            let nodes = store.nodes.iter();
            let chosen = nodes.filter(|(n, _)| name.as_ref().is_none_or(|name| name == *n));
            let items: Vec<Arc<Value>> = chosen.map(|(_, node)| Arc::clone(node)).collect();
            (store.version, items)
        }
        token => match store.snapshots.remove(token) {
            Some(rest) => {
                let version = token.split('-').next().unwrap();
                (version.parse().unwrap(), rest)
            }
            None => return failure(410, "The provided continue parameter is too old"),
        },
    };
    // From its memory the real server gives all at once.
    let limit = text("limit")
        .parse()
        .ok()
        .filter(|_| text("resourceVersion") != "0");
    let most = limit
        .into_iter()
        .chain(store.page)
        .min()
        .unwrap_or(usize::MAX);
    let rest = items.split_off(items.len().min(most));
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if !rest.is_empty() {
        let token = format!("{version}-{}", rest.len());
        metadata["continue"] = token.as_str().into();
        store.snapshots.insert(token, rest);
    }
    let items: Vec<String> = items.iter().map(|node| store.text(node)).collect();
    let body = format!(
        "{{\"kind\":\"NodeList\",\"apiVersion\":\"v1\",\"metadata\":{metadata},\"items\":[{}]}}\n",
        items.join(",")
    );
    json_answer(200, body)
}

/// The first half of a list, and then a connection that breaks.
fn half(store: &mut Store, query: &Query) -> Response<Answer> {
    let mut answer = list(store, query);
    if let Answer::Whole(Some(text)) = answer.body() {
        let (to, lines) = mpsc::unbounded_channel();
        to.send(Ok(text.slice(..text.len() / 2))).unwrap();
        // Not before the half has left.
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let _ = to.send(Err(io::Error::other("cut")));
        });
        *answer.body_mut() = Answer::Lines(lines);
    }
    answer
}

fn watch(store: &mut Store, query: &Query) -> Response<Answer> {
    let version: u64 = query["resourceVersion"].parse().unwrap();
    let (to, lines) = mpsc::unbounded_channel();
    if version < store.forgotten {
        // The real one answers so, too: 200, and the error as the first event.
        let status = status(
            410,
            &format!("too old resource version: {version} ({})", store.forgotten),
        );
        to.send(Ok(line("ERROR", &status.to_string()))).unwrap();
    } else {
        let watch = Watch {
            name: name_of(query),
            bookmarks: query
                .get("allowWatchBookmarks")
                .is_some_and(|allow| allow == "true"),
            to,
        };
        for (at, name, line) in &store.history {
            if *at > version && watch.name.as_ref().is_none_or(|only| only == name) {
                watch.to.send(Ok(line.clone())).unwrap();
            }
        }
        store.watches.push(watch);
    }
    let answer = Response::builder().header("content-type", "application/json");
    answer.body(Answer::Lines(lines)).unwrap()
}

fn patched(store: &mut Store, asked: &Asked, name: &str, of_status: bool) -> Response<Answer> {
    let Some(before) = store.nodes.get(name).cloned() else {
        return failure(404, "nodes not found");
    };
    // The subresource takes metadata and status, the resource everything but status.
    let mut by = asked.body.clone();
    let hidden = if of_status { "spec" } else { "status" };
    by.as_object_mut().unwrap().remove(hidden);
    let mut after = before.as_ref().clone();
    match asked.content_type.as_str() {
        "application/strategic-merge-patch+json" => patch::strategic(&mut after, &by),
        "application/merge-patch+json" => patch::merge(&mut after, &by),
        _ => return failure(415, "the body of the request was in an unknown format"),
    }
    if after != *before {
        store.put(after);
    }
    let text = store.text(&store.nodes[name]);
    json_answer(200, text)
}

fn name_of(query: &Query) -> Option<String> {
    let selector = query.get("fieldSelector")?;
    Some(selector.strip_prefix("metadata.name=").unwrap().to_owned())
}

fn parse(query: &str) -> Query {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.replace("%3D", "=")))
        .collect()
}

fn status(code: u16, message: &str) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        410 => "Expired",
        _ => "Failure",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn failure(code: u16, message: &str) -> Response<Answer> {
    json_answer(code, status(code, message).to_string())
}

fn json_answer(code: u16, text: String) -> Response<Answer> {
    let answer = Response::builder()
        .status(code)
        .header("content-type", "application/json");
    answer.body(text.into()).unwrap()
}
