//! Servers that are not a CRI v1 runtime: the error says which of them it is. The real ones are in `conformance/tests/cri.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cri::{Client, CriError};
use http::{HeaderMap, Response};

/// For those that never answer.
const SHORT: Duration = Duration::from_millis(300);
/// For all that do, on a busy machine, too.
const LONG: Duration = Duration::from_secs(60);

fn connect(socket: &Path) -> Result<Client, CriError> {
    Client::connect(socket, LONG)
}

/// The error of a server that answers connections with `serve`, and when it came.
fn judged(
    timeout: Duration,
    serve: impl FnOnce(UnixListener) + Send + 'static,
) -> (CriError, Duration) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || serve(listener));
    let begin = Instant::now();
    let error = Client::connect(&socket, timeout)
        .and_then(|c| c.list_pod_sandboxes())
        .unwrap_err();
    (error, begin.elapsed())
}

#[test]
fn nobody_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let text = connect(&socket).unwrap_err().to_string();
    assert!(
        text.starts_with(&format!(
            "cannot connect to {}: No such file",
            socket.display()
        )),
        "{text}"
    );
    drop(UnixListener::bind(&socket).unwrap());
    let text = connect(&socket).unwrap_err().to_string();
    assert!(
        text.contains("Connection refused") && text.contains("is the runtime running?"),
        "{text}"
    );
    // As crictl's users write it.
    let url = format!("unix://{}", socket.display());
    assert_eq!(connect(Path::new(&url)).unwrap_err().to_string(), text);
}

/// A path is a path, whatever it would mean in a URL.
#[test]
fn a_path_with_unusual_letters() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("a b%20?c#d");
    let _listener = UnixListener::bind(&socket).unwrap();
    connect(&socket).unwrap();
}

#[test]
fn a_path_no_socket_can_have() {
    use std::os::unix::ffi::OsStrExt;
    for bytes in [&b"/tmp/\xff"[..], b"/tmp/\0"] {
        let error = connect(Path::new(std::ffi::OsStr::from_bytes(bytes))).unwrap_err();
        assert!(
            matches!(error, CriError::Path(_) | CriError::Connect { .. }),
            "{error}"
        );
    }
}

#[test]
fn one_that_never_answers() {
    // It takes the connection, reads, and stays silent.
    let (error, took) = judged(SHORT, |listener| {
        let (mut connection, _) = listener.accept().unwrap();
        let _ = connection.read_to_end(&mut Vec::new());
    });
    assert!(matches!(error, CriError::Deadline { .. }), "{error}");
    assert!(took >= SHORT && took < LONG, "{took:?}");
    // It does not even take it.
    let (error, _) = judged(SHORT, std::mem::forget);
    assert!(matches!(error, CriError::Deadline { .. }), "{error}");
}

#[test]
fn one_that_speaks_something_else() {
    // To everyone who comes: a connection that broke is tried again.
    let (error, _) = judged(LONG, |listener| {
        for connection in listener.incoming().flatten() {
            let mut connection = connection;
            let _ = connection.read(&mut [0; 64]);
            let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    // It depends on how far the client came before it heard that.
    let broken = match &error {
        CriError::Broken { .. } => true,
        CriError::Connect { source, .. } => matches!(
            source.kind(),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
        ),
        _ => false,
    };
    assert!(broken, "{error:?}");
}

#[test]
fn an_old_runtime_and_one_without_cri() {
    let (error, _) = judged(LONG, |listener| {
        grpc(listener, "/runtime.v1alpha2.RuntimeService/Version")
    });
    let text = error.to_string();
    assert!(
        text.starts_with("containerd 1.4.13 at ") && text.contains("only CRI v1alpha2"),
        "{text}"
    );
    let (error, _) = judged(LONG, |listener| grpc(listener, "/no.such.Service/Version"));
    assert!(error.to_string().contains("disabled_plugins"), "{error}");
}

/// A gRPC server of one call, which answers as an old containerd would. There is none here to run.
fn grpc(listener: UnixListener, known: &'static str) {
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        let (connection, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(connection).await.unwrap();
        while let Some(Ok((request, mut reply))) = connection.accept().await {
            let head = Response::builder().header("content-type", "application/grpc");
            if request.uri().path() != known {
                let refusal = head
                    .header("grpc-status", "12")
                    .header("grpc-message", "unknown service");
                reply
                    .send_response(refusal.body(()).unwrap(), true)
                    .unwrap();
                continue;
            }
            // VersionResponse { runtime_name = 2, runtime_version = 3 }, framed: not compressed, its length.
            let message = b"\x12\x0acontainerd\x1a\x061.4.13";
            let frame = [
                &[0, 0, 0, 0, u8::try_from(message.len()).unwrap()],
                &message[..],
            ]
            .concat();
            let mut body = reply.send_response(head.body(()).unwrap(), false).unwrap();
            body.send_data(Bytes::from(frame), false).unwrap();
            let mut end = HeaderMap::new();
            end.insert("grpc-status", "0".parse().unwrap());
            body.send_trailers(end).unwrap();
        }
    });
}
