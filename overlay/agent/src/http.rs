//! `/healthz`, `/readyz` and `/metrics`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tracing::debug;

use crate::directory::{Ready, View};
use crate::metrics::Metrics;

/// A scraper and a few probes. Nobody else has any business here.
const MAX_CONNECTIONS: usize = 32;
/// A client that has not sent its request's head by then is gone.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// What there is to tell.
#[derive(Debug, Clone)]
pub struct Told {
    /// Whether pods have a network.
    pub ready: watch::Receiver<Ready>,
    /// What the directory says.
    pub view: watch::Receiver<Arc<View>>,
    /// What was counted.
    pub metrics: Arc<Mutex<Metrics>>,
}

/// Answers, for ever.
pub async fn serve(listener: TcpListener, told: Told) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of the connection, or no descriptors: neither gets better by trying at once.
                debug!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let told = told.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = told.answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                debug!(%peer, %error, "connection");
            }
            drop(place);
        });
    }
}

/// Where to listen, as an error's text wants it.
pub fn shown(addr: SocketAddr) -> String {
    format!("http://{addr}/metrics")
}

// === impl Told ===

impl Told {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".into());
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "overlayd is running\n".into()),
            "/readyz" => match &*self.ready.borrow() {
                Ready::Yes => text(StatusCode::OK, "ready\n".into()),
                Ready::No(why) => text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("not ready: {why}\n"),
                ),
            },
            "/metrics" => {
                let metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
                let mut response = text(StatusCode::OK, metrics.text(self.view.borrow().heard));
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
                response
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /healthz, /readyz and /metrics\n".into(),
            ),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
