//! Connections.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::answer::{Broken, answer};
use super::store::{Asked, Line, Store};

/// An answer's body.
pub enum Answer {
    Whole(Option<Bytes>),
    Lines(UnboundedReceiver<Line>),
}

/// Accepts connections while it is up.
pub async fn serve(
    first: std::net::TcpListener,
    tls: Option<TlsAcceptor>,
    store: Arc<Mutex<Store>>,
    mut up: watch::Receiver<bool>,
) {
    let address = first.local_addr().unwrap();
    first.set_nonblocking(true).unwrap();
    let mut listener = TcpListener::from_std(first).unwrap();
    loop {
        let mut stop = up.clone();
        let stopped = async {
            let _ = stop.wait_for(|up| !up).await;
        };
        tokio::select! {
            () = stopped => {}
            () = accept(&listener, &tls, &store, &up) => {}
        }
        drop(listener);
        if up.wait_for(|up| *up).await.is_err() {
            return;
        }
        listener = TcpListener::bind(address).await.unwrap();
    }
}

/// What presents a certificate.
pub fn acceptor(certificate: &Path, key: &Path) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            chain.map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_file(key).unwrap(),
        );
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

async fn accept(
    listener: &TcpListener,
    tls: &Option<TlsAcceptor>,
    store: &Arc<Mutex<Store>>,
    up: &watch::Receiver<bool>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, store, mut up) = (tls.clone(), Arc::clone(store), up.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(stream, tls, store) => {}
                _ = up.wait_for(|up| !up) => {}
            }
        });
    }
}

/// Ends without a word where that was wanted.
async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, store: Arc<Mutex<Store>>) {
    stream.set_nodelay(true).unwrap();
    let service = service_fn(|request| respond(request, Arc::clone(&store)));
    let http = http1::Builder::new();
    match tls {
        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            }
        }
    }
}

async fn respond(
    request: Request<Incoming>,
    store: Arc<Mutex<Store>>,
) -> Result<Response<Answer>, io::Error> {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    };
    let (authorization, content_type) = (header("authorization"), header("content-type"));
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let asked = Asked {
        method: head.method.to_string(),
        uri: head.uri.to_string(),
        content_type,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    let answer = {
        let mut store = store.lock().unwrap();
        store.asked.push(asked.clone());
        answer(&mut store, &asked, &authorization)
    };
    match answer {
        Ok(answer) => Ok(answer),
        Err(Broken::Connection) => Err(io::Error::other("a fault")),
        Err(Broken::Server) => std::future::pending().await,
    }
}

// === impl Answer ===

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Lines(lines) => lines
                .poll_recv(context)
                .map(|line| line.map(|line| line.map(Frame::data))),
        }
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self::Whole(Some(text.into()))
    }
}
