//! What an agent tells a probe and a scraper.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use conformance::deployment::Agent;

const PORT: u16 = 8081;

/// Status and body; `None` while nobody listens.
pub fn get(node: &Agent, path: &str) -> Option<(u16, String)> {
    let ask = || -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).ok()?;
        let limit = Some(Duration::from_secs(5));
        stream.set_read_timeout(limit).ok()?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    let answer = node.node.space.run(ask).unwrap()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// The metrics.
pub fn metrics(node: &Agent) -> String {
    get(node, "/metrics").unwrap().1
}
