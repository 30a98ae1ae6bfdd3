//! How to reach etcd, as its operator says it. Names and meanings are those of flanneld's options.

use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Certificate, Identity, TlsOptions};
use tonic::transport::Endpoint;

use crate::directory::DirectoryError;

/// Where systems keep the certificates of the authorities they trust.
const SYSTEM_CERTIFICATES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];
/// No certificate and no key is longer.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// How to reach etcd, and where in it the network is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its members: `http://host:port` or `https://host:port`; `host:port` alone is HTTPS exactly if files for TLS are given.
    pub endpoints: Vec<String>,
    /// Before the keys `config` and `subnets`.
    pub prefix: String,
    /// Whom to trust with HTTPS; the system's authorities unless given.
    pub ca_file: Option<PathBuf>,
    /// Who we are with HTTPS; with `key_file` or not at all.
    pub cert_file: Option<PathBuf>,
    /// The key to `cert_file`.
    pub key_file: Option<PathBuf>,
    /// Who we are to etcd.
    pub login: Option<Login>,
    /// How long a lease outlives its node. flannel's is a day.
    pub ttl: Duration,
}

/// A user of etcd.
#[derive(Clone)]
pub struct Login {
    /// Name.
    pub user: String,
    /// Password.
    pub password: String,
}

/// A member, ready to be connected to.
pub(super) struct Dial {
    pub(super) endpoint: Endpoint,
    /// Its address with its scheme.
    pub(super) url: String,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoints: vec![
                "http://127.0.0.1:4001".into(),
                "http://127.0.0.1:2379".into(),
            ],
            prefix: "/coreos.com/network".into(),
            ca_file: None,
            cert_file: None,
            key_file: None,
            login: None,
            ttl: Duration::from_secs(86_400),
        }
    }
}

impl Options {
    /// Looks whether all of it makes sense: addresses, files.
    pub(super) fn check(&self) -> Result<(), DirectoryError> {
        if self.endpoints.is_empty() {
            return Err(DirectoryError(
                "no etcd endpoint is given; give one such as http://127.0.0.1:2379".into(),
            ));
        }
        for turn in 0..self.endpoints.len() {
            self.dial(turn)?;
        }
        Ok(())
    }

    /// The member whose turn it is. Certificates are read each time: they are renewed while we run.
    pub(super) fn dial(&self, turn: usize) -> Result<Dial, DirectoryError> {
        let given = self
            .endpoints
            .get(turn % self.endpoints.len().max(1))
            .map_or("", |url| url.trim());
        let files = [&self.ca_file, &self.cert_file, &self.key_file];
        let wants_tls = files.iter().any(|file| file.is_some());
        let url = match given.split_once("://") {
            Some(_) => given.to_owned(),
            None if wants_tls => format!("https://{given}"),
            None => format!("http://{given}"),
        };
        let wrong = |why: &str| {
            DirectoryError(format!(
                "the etcd endpoint {given:?} {why}; give one such as http://127.0.0.1:2379"
            ))
        };
        let endpoint = Endpoint::from_shared(url.clone())
            .ok()
            .filter(|endpoint| endpoint.uri().host().is_some_and(|host| !host.is_empty()))
            .ok_or_else(|| wrong("is no address"))?;
        let endpoint = match endpoint.uri().scheme_str() {
            Some("https") => endpoint
                .tls_config(self.tls()?)
                .map_err(|e| self.wrong_tls(&e))?,
            Some("http") if wants_tls => {
                return Err(DirectoryError(format!(
                    "files for TLS are given, and the etcd endpoint {given:?} is plain HTTP; write https://"
                )));
            }
            Some("http") => endpoint,
            _ => return Err(wrong("has a scheme that is not spoken here")),
        };
        Ok(Dial { endpoint, url })
    }

    fn tls(&self) -> Result<TlsOptions, DirectoryError> {
        let ca = match &self.ca_file {
            Some(file) => pem("CA file", file, "CERTIFICATE-----")?,
            None => SYSTEM_CERTIFICATES
                .iter()
                .find_map(|file| pem("CA file", Path::new(file), "CERTIFICATE-----").ok())
                .ok_or_else(|| {
                    DirectoryError(
                        "an etcd endpoint is HTTPS, no CA file for it is given, and this system has none".into(),
                    )
                })?,
        };
        let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
        match (&self.cert_file, &self.key_file) {
            (None, None) => Ok(tls),
            (Some(cert), Some(key)) => {
                let cert = pem("certificate file", cert, "CERTIFICATE-----")?;
                let key = pem("key file", key, "PRIVATE KEY-----")?;
                Ok(tls.identity(Identity::from_pem(cert, key)))
            }
            (Some(_), None) => Err(DirectoryError(
                "a client certificate for etcd is given without its key; give the key file, too"
                    .into(),
            )),
            (None, Some(_)) => Err(DirectoryError(
                "a client key for etcd is given without its certificate; give the certificate file, too".into(),
            )),
        }
    }

    fn wrong_tls(&self, error: &tonic::transport::Error) -> DirectoryError {
        let mut why = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            why = format!("{why}: {source}");
        }
        DirectoryError(format!("the files for TLS with etcd cannot be used: {why}"))
    }
}

/// Reads a file that has to have something of a kind in it.
fn pem(what: &str, path: &Path, kind: &str) -> Result<Vec<u8>, DirectoryError> {
    let wrong = |why: &str| DirectoryError(format!("etcd's {what} {} {why}", path.display()));
    let unreadable = |e: std::io::Error| wrong(&format!("cannot be read: {e}"));
    if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE_BYTES {
        return Err(wrong("is larger than 4 MiB"));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    match bytes
        .windows(kind.len())
        .any(|part| part == kind.as_bytes())
    {
        true => Ok(bytes),
        false => Err(wrong(&format!(
            "has no \"{kind}\" line: it is not PEM, or of another kind"
        ))),
    }
}

// === impl Login ===

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
