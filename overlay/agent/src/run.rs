//! The process: options in, the agent's life, signals.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::info;

use crate::agent::{Agent, Inputs};
use crate::cache::Known;
use crate::directory::etcd::{self, Etcd};
use crate::directory::file::Files;
use crate::directory::kubernetes::{self, Kubernetes};
use crate::directory::{DirectoryError, Ready, View};
use crate::http::{self, Told};
use crate::join::{Ends, Place, join};
use crate::metrics::Metrics;
use crate::options::{DirectoryKind, DirectoryOptions, Options};

/// Runs as the node's agent, until a signal.
///
/// # Errors
/// What cannot get better: an option, a certificate, an address in use.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let Options {
        directory,
        place,
        node,
        ..
    } = options;
    let known = Known::read(&node.state_dir);
    let metrics = Arc::new(Mutex::new(Metrics::new()));
    let (ready_sender, ready) = watch::channel(Ready::No("starting".into()));
    let (view_sender, view) = watch::channel(Arc::<View>::default());
    let (joined_sender, joined) = mpsc::channel(1);
    let (me, _) = watch::channel(None);

    if node.healthz_port != 0 {
        let addr = SocketAddr::new(node.healthz_ip, node.healthz_port);
        let listener = TcpListener::bind(addr).await;
        let listener = listener.with_context(|| {
            format!(
                "listen on {addr}: give --healthz-ip and --healthz-port others, or port 0 for none"
            )
        })?;
        info!(metrics = %http::shown(addr), "listens");
        let told = Told {
            ready: ready.clone(),
            view: view.clone(),
            metrics: metrics.clone(),
        };
        tokio::spawn(http::serve(listener, told));
    }

    let place = Place::new(&place, node.state_dir.clone()).context("--iface-regex")?;
    let ends = Ends {
        joined: joined_sender,
        me: me.clone(),
        ready,
        view: view_sender,
    };
    let before = known.as_ref().map(Known::lease);
    let directory = begin(&directory, place, before, ends).await?;
    let inputs = Inputs {
        joined,
        view,
        me,
        ready: ready_sender,
        directory,
        metrics,
    };
    let mut stopped = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [Ok(terminate), Ok(interrupt)] = &mut stopped else {
        bail!("cannot wait for signals");
    };
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stops; the network stays as it is");
    };
    Agent::new(node, inputs, known).run(stop).await?;
    Ok(())
}

/// Begins to join by the directory that is wanted.
async fn begin(
    options: &DirectoryOptions,
    place: Place,
    before: Option<crate::directory::Lease>,
    ends: Ends,
) -> anyhow::Result<JoinHandle<DirectoryError>> {
    match options.kind() {
        DirectoryKind::File => {
            let Some(dir) = &options.peers_dir else {
                bail!("the file directory needs --peers-dir");
            };
            let files = Files::open(dir, &node_name(options)?)?;
            Ok(tokio::spawn(join(files, place, before, ends)))
        }
        DirectoryKind::Etcd => {
            let etcd = Etcd::open(etcd_options(options)?)?;
            Ok(tokio::spawn(join(etcd, place, before, ends)))
        }
        DirectoryKind::Kubernetes => {
            let kubernetes = Kubernetes::open(kubernetes_options(options)).await?;
            Ok(tokio::spawn(join(kubernetes, place, before, ends)))
        }
    }
}

fn etcd_options(options: &DirectoryOptions) -> anyhow::Result<etcd::Options> {
    let endpoints = options
        .etcd_endpoints
        .split(',')
        .map(str::trim)
        .filter(|url| !url.is_empty());
    let login = match (&options.etcd_username, &options.etcd_password) {
        (None, None) => None,
        (Some(user), Some(password)) => Some(etcd::Login {
            user: user.clone(),
            password: password.clone(),
        }),
        _ => bail!("--etcd-username and --etcd-password go together"),
    };
    Ok(etcd::Options {
        endpoints: endpoints.map(str::to_owned).collect(),
        prefix: options.etcd_prefix.clone(),
        ca_file: options.etcd_cafile.clone(),
        cert_file: options.etcd_certfile.clone(),
        key_file: options.etcd_keyfile.clone(),
        login,
        ..etcd::Options::default()
    })
}

fn kubernetes_options(options: &DirectoryOptions) -> kubernetes::Options {
    let env = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    kubernetes::Options {
        kubeconfig: options.kubeconfig_file.clone(),
        api_url: options.kube_api_url.clone(),
        annotation_prefix: options.kube_annotation_prefix.clone(),
        net_conf: options.net_config_path.clone(),
        node_name: options.node_name.clone(),
        pod: env("POD_NAMESPACE").zip(env("POD_NAME")),
        set_network_unavailable: options.set_node_network_unavailable,
        ..kubernetes::Options::default()
    }
}

/// The node's name: as given, else the host's.
fn node_name(options: &DirectoryOptions) -> anyhow::Result<String> {
    if let Some(name) = &options.node_name {
        return Ok(name.clone());
    }
    let name = nix::unistd::gethostname().context("ask for the host's name")?;
    Ok(name.to_string_lossy().into_owned())
}
