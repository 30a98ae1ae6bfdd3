//! A small client of the Kubernetes Container Runtime Interface: which pod sandboxes there are, and to run, stop and
//! remove them. It speaks CRI v1 over a unix socket to containerd (from 1.6) and CRI-O.
//!
//! The API blocks. Every call has a deadline, so a server that hangs is an error, never a hang. A [`Client`] may be used by
//! many threads at once, and finds the runtime again after its restart.
//! It is not for async code: a call from within a tokio runtime panics.
//!
//! ```no_run
//! let client = cri::Client::connect("/run/containerd/containerd.sock", std::time::Duration::from_secs(10))?;
//! for sandbox in client.list_pod_sandboxes()? {
//!     println!("{} {}/{}", sandbox.id, sandbox.namespace, sandbox.name);
//! }
//! # Ok::<(), cri::CriError>(())
//! ```

mod error;
mod wire;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use prost::Message;
use tokio::runtime::{Builder, Runtime};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

pub use error::CriError;
pub use tonic::Code as GrpcCode;
use wire::{
    Done, LinuxPodSandboxConfig, ListPodSandboxRequest, ListPodSandboxResponse, PodSandboxConfig,
    PodSandboxMetadata, PodSandboxState, PodSandboxStatusRequest, PodSandboxStatusResponse,
    RunPodSandboxRequest, RunPodSandboxResponse, SandboxRequest, StatusRequest, StatusResponse, V1,
    V1ALPHA2, VersionRequest, VersionResponse,
};

/// The kubelet's own limit; tonic's of 4 MiB is less than a crowded node's list.
const MAX_ANSWER: usize = 16 << 20;

/// A connection to a container runtime.
#[derive(Debug)]
pub struct Client {
    /// Turns only while a call is made; the connection's task lives on it.
    runtime: Runtime,
    channel: Channel,
    socket: PathBuf,
    timeout: Duration,
}

/// A pod as its runtime knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// What CNI plugins get as `CNI_CONTAINERID`.
    pub id: String,
    /// Its sandbox runs. One that does not may still hold its network: only StopPodSandbox takes that away.
    pub ready: bool,
    /// By the runtime's clock.
    pub created_at: SystemTime,
    /// The Kubernetes namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
}

/// What a sandbox to be run is called, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxConfig {
    /// The pod's name.
    pub name: String,
    /// The Kubernetes namespace.
    pub namespace: String,
    /// The pod's UID. Name, namespace, UID and attempt together are one sandbox.
    pub uid: String,
    /// How many sandboxes this pod had before.
    pub attempt: u32,
    /// Its host name; empty: the runtime's choice.
    pub hostname: String,
    /// The cgroup to put it under; empty: the runtime's choice.
    pub cgroup_parent: String,
}

/// A sandbox and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxStatus {
    /// The same as in the list.
    pub sandbox: Sandbox,
    /// The primary address first; none on the node's own network, and none once it is stopped.
    pub ips: Vec<String>,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `containerd`, `cri-o`
    pub runtime: String,
    /// The runtime's own version.
    pub version: String,
    /// Of CRI: `v1`
    pub api: String,
}

/// One of the runtime's conditions: `RuntimeReady`, `NetworkReady`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Its name.
    pub kind: String,
    /// It holds.
    pub holds: bool,
    /// If it does not: why, in a word.
    pub reason: String,
    /// If it does not: why, for people.
    pub message: String,
}

// === impl Client ===

impl Client {
    /// Connects to the socket at this path (`unix:///run/...` is understood too). `timeout` is for this and for each call.
    ///
    /// Errors: nobody there, no permission. What kind of server it is shows with the first call.
    pub fn connect(socket: impl AsRef<Path>, timeout: Duration) -> Result<Client, CriError> {
        let socket = socket.as_ref();
        let socket = socket
            .to_str()
            .ok_or_else(|| CriError::Path(socket.into()))?;
        let socket = socket.strip_prefix("unix://").unwrap_or(socket);
        let path = PathBuf::from(socket);
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let endpoint = Endpoint::from_shared(format!("unix://{socket}"))
            .map_err(|_| CriError::Path(path.clone()))?;
        let connected =
            runtime.block_on(async { tokio::time::timeout(timeout, endpoint.connect()).await });
        let channel = match connected {
            Ok(Ok(channel)) => channel,
            Ok(Err(e)) => return Err(CriError::connect(&path, &e)),
            Err(_) => {
                return Err(CriError::Deadline {
                    socket: path,
                    call: "the connection",
                    after: timeout,
                });
            }
        };
        Ok(Client {
            runtime,
            channel,
            socket: path,
            timeout,
        })
    }

    /// The runtime's name and version.
    pub fn version(&self) -> Result<Version, CriError> {
        let answer: VersionResponse = self.call("Version", VersionRequest::default())?;
        Ok(Version {
            runtime: answer.runtime_name,
            version: answer.runtime_version,
            api: answer.runtime_api_version,
        })
    }

    /// What the runtime says of its own health.
    pub fn status(&self) -> Result<Vec<Condition>, CriError> {
        let answer: StatusResponse = self.call("Status", StatusRequest::default())?;
        let status = answer.status.ok_or(CriError::Incomplete {
            call: "Status",
            what: "status",
        })?;
        let conditions = status.conditions.into_iter().map(|c| Condition {
            kind: c.kind,
            holds: c.status,
            reason: c.reason,
            message: c.message,
        });
        Ok(conditions.collect())
    }

    /// All sandboxes, ready or not, in no order. One that is just being made is not among them: containerd lists it when
    /// its network is up, or after a restart as not ready.
    pub fn list_pod_sandboxes(&self) -> Result<Vec<Sandbox>, CriError> {
        let answer: ListPodSandboxResponse =
            self.call("ListPodSandbox", ListPodSandboxRequest {})?;
        Ok(answer
            .items
            .into_iter()
            .map(|s| Sandbox::new(s.id, s.metadata, s.state, s.created_at))
            .collect())
    }

    /// Makes a sandbox with its network; the answer is its ID.
    pub fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<String, CriError> {
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: config.name.clone(),
                uid: config.uid.clone(),
                namespace: config.namespace.clone(),
                attempt: config.attempt,
            }),
            hostname: config.hostname.clone(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: config.cgroup_parent.clone(),
            }),
            ..PodSandboxConfig::default()
        };
        let request = RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        let answer: RunPodSandboxResponse = self.call("RunPodSandbox", request)?;
        Ok(answer.pod_sandbox_id)
    }

    /// Ends what runs in it and takes its network away. Also right for one that is stopped or gone: CRI asks for that, and
    /// containerd 1.6 says "not found" all the same.
    pub fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        match self.call(
            "StopPodSandbox",
            SandboxRequest {
                pod_sandbox_id: id.to_owned(),
            },
        ) {
            Ok(Done {}) => Ok(()),
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Forgets it. Also right for one that is gone.
    pub fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        self.call(
            "RemovePodSandbox",
            SandboxRequest {
                pod_sandbox_id: id.to_owned(),
            },
        )
        .map(|Done {}| ())
    }

    /// One sandbox with its addresses. An unknown one is an error, see [`CriError::is_not_found`].
    pub fn pod_sandbox_status(&self, id: &str) -> Result<SandboxStatus, CriError> {
        const CALL: &str = "PodSandboxStatus";
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: false,
        };
        let answer: PodSandboxStatusResponse = self.call(CALL, request)?;
        let status = answer.status.ok_or(CriError::Incomplete {
            call: CALL,
            what: "status",
        })?;
        let ips = status.network.map_or_else(Vec::new, |network| {
            let more = network.additional_ips.into_iter().map(|more| more.ip);
            std::iter::once(network.ip)
                .chain(more)
                .filter(|ip| !ip.is_empty())
                .collect()
        });
        Ok(SandboxStatus {
            sandbox: Sandbox::new(status.id, status.metadata, status.state, status.created_at),
            ips,
        })
    }

    fn call<Q, A>(&self, call: &'static str, request: Q) -> Result<A, CriError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        match self.in_time(call, self.unary(V1, call, request))? {
            Err(status) if status.code() == Code::Unimplemented => {
                Err(self.unimplemented(call, &status))
            }
            answer => answer.map_err(|status| CriError::of(&status, call, &self.socket)),
        }
    }

    /// Tells an old runtime from none, and both from a runtime that lacks just this call.
    fn unimplemented(&self, call: &'static str, status: &Status) -> CriError {
        let version = |service| -> Result<Result<VersionResponse, Status>, CriError> {
            self.in_time(
                "Version",
                self.unary(service, "Version", VersionRequest::default()),
            )
        };
        match (version(V1), version(V1ALPHA2)) {
            (Ok(Ok(_)), _) => CriError::of(status, call, &self.socket),
            (_, Ok(Ok(old))) => CriError::OnlyV1alpha2 {
                socket: self.socket.clone(),
                runtime: format!("{} {}", old.runtime_name, old.runtime_version),
            },
            (_, Ok(Err(_))) => CriError::NoCri {
                socket: self.socket.clone(),
            },
            (_, Err(e)) => e,
        }
    }

    fn in_time<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = T>,
    ) -> Result<T, CriError> {
        let in_time = async { tokio::time::timeout(self.timeout, answer).await };
        self.runtime
            .block_on(in_time)
            .map_err(|_| CriError::Deadline {
                socket: self.socket.clone(),
                call,
                after: self.timeout,
            })
    }

    async fn unary<Q, A>(&self, service: &str, call: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER);
        grpc.ready()
            .await
            .map_err(|e| Status::from_error(e.into()))?;
        let path = PathAndQuery::try_from(format!("/{service}/{call}"))
            .map_err(|e| Status::internal(e.to_string()))?;
        let answer = grpc
            .unary(Request::new(request), path, ProstCodec::<Q, A>::default())
            .await?;
        Ok(answer.into_inner())
    }
}

// === impl Sandbox ===

impl Sandbox {
    fn new(id: String, metadata: Option<PodSandboxMetadata>, state: i32, created_at: i64) -> Self {
        let metadata = metadata.unwrap_or_default();
        let since_1970 = Duration::from_nanos(created_at.max(0).unsigned_abs());
        Sandbox {
            id,
            ready: state == PodSandboxState::Ready as i32,
            created_at: SystemTime::UNIX_EPOCH + since_1970,
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
        }
    }
}
