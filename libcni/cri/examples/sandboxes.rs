//! Lists the sandboxes of a container runtime: `cargo run -p cri --example sandboxes -- /run/containerd/containerd.sock`.
#![allow(clippy::print_stdout)]

use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = std::env::args_os().nth(1).ok_or("which socket?")?;
    let client = cri::Client::connect(std::path::PathBuf::from(socket), Duration::from_secs(10))?;
    let version = client.version()?;
    println!("{} {} ({})", version.runtime, version.version, version.api);
    for sandbox in client.list_pod_sandboxes()? {
        let ready = if sandbox.ready { "ready" } else { "not ready" };
        println!(
            "{} {}/{} {ready}",
            sandbox.id, sandbox.namespace, sandbox.name
        );
    }
    Ok(())
}
