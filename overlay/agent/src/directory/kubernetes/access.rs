//! The API server: the way to it, single requests, and what its refusals mean.

use std::error::Error as _;
use std::time::Duration;

use http::Request;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request as Path;
use kube::{Client, Config};
use serde::Deserialize;
use serde_json::Value;

use super::Options;
use super::annotation::clip;
use super::node::Node;
use crate::directory::DirectoryError;

/// Where Nodes are.
pub const NODES: &str = "/api/v1/nodes";

/// The API server, as this agent uses it.
#[derive(Clone)]
pub struct Access {
    client: Client,
    /// How long a single request may take.
    patience: Duration,
}

/// What did not work, in words.
#[derive(Debug)]
pub struct Trouble {
    /// HTTP's, or 0 if the server was not reached.
    pub code: u16,
    /// What the server or the way to it said.
    pub why: String,
}

#[derive(Deserialize)]
struct Pod {
    spec: PodSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    node_name: Option<String>,
}

// === impl Access ===

impl Access {
    /// Reads what there is to read; connects to nothing yet.
    pub async fn open(options: &Options) -> Result<Self, DirectoryError> {
        let mut config = config(options).await?;
        config.connect_timeout = Some(options.pace.connect);
        // Tries again on its own for 503, without a word, for up to a quarter of an hour.
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|e| wrong("the API server's client", &e))?;
        Ok(Self {
            client,
            patience: options.pace.patience,
        })
    }

    /// The node that a pod runs on.
    pub async fn node_of_pod(&self, namespace: &str, pod: &str) -> Result<String, Trouble> {
        let path = Path::new(format!("/api/v1/namespaces/{namespace}/pods"));
        let request = path
            .get(pod, &Default::default())
            .map_err(Trouble::of_request)?;
        let text = self.ask(request).await?;
        let pod: Pod = serde_json::from_str(&text).map_err(Trouble::of_json)?;
        let name = pod.spec.node_name.filter(|name| !name.is_empty());
        name.ok_or_else(|| Trouble::new("the pod has no node yet"))
    }

    /// Writes metadata or status of a Node, in one request. Answers what it is then.
    pub async fn patch(&self, node: &str, body: &Value) -> Result<Node, Trouble> {
        let params = PatchParams {
            field_manager: Some("overlayd".into()),
            ..PatchParams::default()
        };
        let request = Path::new(NODES)
            .patch_subresource("status", node, &params, &Patch::Strategic(body))
            .map_err(Trouble::of_request)?;
        let text = self.ask(request).await?;
        Node::parse(text.as_bytes()).map_err(|(_, why)| Trouble::new(&why))
    }

    async fn ask(&self, request: Request<Vec<u8>>) -> Result<String, Trouble> {
        match tokio::time::timeout(self.patience, self.client.request_text(request)).await {
            Ok(answer) => answer.map_err(Trouble::from),
            Err(_) => Err(Trouble::silent(self.patience)),
        }
    }

    /// Opens an answer that may be long, or never end.
    pub async fn stream(
        &self,
        path_and_query: &str,
    ) -> Result<impl futures_util::AsyncBufRead + use<>, Trouble> {
        let request = Request::get(path_and_query)
            .body(Vec::new())
            .map_err(|e| Trouble::new(&e.to_string()))?;
        match tokio::time::timeout(self.patience, self.client.request_stream(request)).await {
            Ok(answer) => answer.map_err(Trouble::from),
            Err(_) => Err(Trouble::silent(self.patience)),
        }
    }

    /// How long the next bytes of an answer may take.
    pub fn patience(&self) -> Duration {
        self.patience
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

/// As flannel takes its options: a kubeconfig and an address that overrides its server; else what a pod is given.
async fn config(options: &Options) -> Result<Config, DirectoryError> {
    let url = options.api_url.as_deref().map(|url| {
        let parsed = url.parse::<http::Uri>().ok();
        parsed.filter(|url| url.scheme().is_some()).ok_or_else(|| {
            DirectoryError(format!(
                "the API server's address {} is none; http://HOST:PORT or https://HOST:PORT is wanted",
                super::annotation::brief(url)
            ))
        })
    });
    let url = url.transpose()?;
    if let Some(path) = &options.kubeconfig {
        let what = format!("the kubeconfig {}", path.display());
        let file = Kubeconfig::read_from(path).map_err(|e| wrong(&what, &e))?;
        let read = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let mut config = read.map_err(|e| wrong(&what, &e))?;
        config.cluster_url = url.unwrap_or(config.cluster_url);
        return Ok(config);
    }
    match url {
        // In a pod its token and certificate serve for that address, too.
        Some(url) => match Config::incluster_dns() {
            Ok(mut config) => {
                config.cluster_url = url;
                Ok(config)
            }
            Err(_) => Ok(Config::new(url)),
        },
        None => Config::incluster().map_err(|e| {
            let DirectoryError(text) = wrong("the API server", &e);
            DirectoryError(format!(
                "{text}; outside of a pod, tell it by --kubeconfig-file or --kube-api-url"
            ))
        }),
    }
}

fn wrong(what: &str, e: &dyn std::error::Error) -> DirectoryError {
    DirectoryError(format!("{what}: {}", chain(e)))
}

/// An error and its causes, each said once.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        let more = e.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = e.source();
    }
    clip(&text)
}

// === impl Trouble ===

impl Trouble {
    /// Not the server's.
    pub fn new(why: &str) -> Self {
        Self {
            code: 0,
            why: clip(why),
        }
    }

    /// Nothing came for this long.
    pub fn silent(patience: Duration) -> Self {
        Self::new(&format!("no answer for {} s", patience.as_secs()))
    }

    /// The server's.
    pub fn of_code(code: u16, message: &str) -> Self {
        let remedy = match code {
            401 => "; its token or certificate is not taken",
            403 => {
                "; its account needs nodes: list, watch, and nodes/status: patch (deploy/kubernetes.yaml)"
            }
            _ => "",
        };
        Self {
            code,
            why: format!("HTTP {code}: {}{remedy}", clip(message)),
        }
    }

    /// Has what was asked for been forgotten?
    pub fn is_gone(&self) -> bool {
        self.code == 410
    }

    fn of_request(e: kube::core::request::Error) -> Self {
        Self::new(&chain(&e))
    }

    fn of_json(e: serde_json::Error) -> Self {
        Self::new(&e.to_string())
    }
}

impl From<kube::Error> for Trouble {
    fn from(e: kube::Error) -> Self {
        match &e {
            kube::Error::Api(status) => Self::of_code(status.code, &status.message),
            // "ServiceError" is no news.
            other => Self::new(&chain(other.source().unwrap_or(other))),
        }
    }
}
