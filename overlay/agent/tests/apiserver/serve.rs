//! Connections.

use std::io;
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

use super::answer::answer;
use super::store::{Asked, Line, Store};

/// An answer's body.
pub enum Answer {
    Whole(Option<Bytes>),
    Lines(UnboundedReceiver<Line>),
}

/// Accepts connections while it is up.
pub async fn serve(
    first: std::net::TcpListener,
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
            () = accept(&listener, &store, &up) => {}
        }
        drop(listener);
        if up.wait_for(|up| *up).await.is_err() {
            return;
        }
        listener = TcpListener::bind(address).await.unwrap();
    }
}

async fn accept(listener: &TcpListener, store: &Arc<Mutex<Store>>, up: &watch::Receiver<bool>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (store, mut up) = (Arc::clone(store), up.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(stream, store) => {}
                _ = up.wait_for(|up| !up) => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, store: Arc<Mutex<Store>>) {
    stream.set_nodelay(true).unwrap();
    let service = service_fn(|request| respond(request, Arc::clone(&store)));
    // Ends with an error where that was wanted.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
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
    let mut store = store.lock().unwrap();
    store.asked.push(asked.clone());
    answer(&mut store, &asked, &authorization)
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
