//! Two pods that talk while plugins change hands.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Attached;

/// Long enough for a slow machine; on a working path an answer takes microseconds.
const PATIENCE: Duration = Duration::from_millis(900);
/// Questions of even the shortest talk.
const AT_LEAST: u32 = 10;
/// A question asked so often in vain will not be answered.
const GIVEN_UP: u32 = 8;

/// Datagrams there and back, again and again, until stopped: what a pod's clients would notice.
pub struct Talk {
    to: SocketAddr,
    stop_asking: Arc<AtomicBool>,
    stop_answering: Arc<AtomicBool>,
    threads: (JoinHandle<()>, JoinHandle<Outcome>),
    dropped_before: u64,
}

struct Outcome {
    asked: u32,
    /// Questions that had to be asked again, with how often.
    repeated: Vec<(u32, u32)>,
}

impl Talk {
    pub fn start(from: &Attached, to: &Attached, n: usize) -> Talk {
        let address = SocketAddr::new(to.ip(n), 7007);
        let server = to.pod.run(|| UdpSocket::bind(address).unwrap());
        let client = from.pod.run(|| UdpSocket::bind((from.ip(n), 0)).unwrap());
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        client.connect(address).unwrap();
        let [stop_asking, stop_answering] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&stop_answering);
        let echo = thread::spawn(move || {
            let mut buffer = [0; 8];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, from)) = server.recv_from(&mut buffer) {
                    server.send_to(&buffer[..length], from).unwrap();
                }
            }
        });
        let stop = Arc::clone(&stop_asking);
        let ask = thread::spawn(move || {
            let mut outcome = Outcome {
                asked: 0,
                repeated: Vec::new(),
            };
            while outcome.asked < AT_LEAST || !stop.load(Ordering::Relaxed) {
                outcome.asked += 1;
                match tries(&client, outcome.asked) {
                    1 => {}
                    n => outcome.repeated.push((outcome.asked, n)),
                }
                thread::sleep(Duration::from_millis(2));
            }
            outcome
        });
        Talk {
            to: address,
            stop_asking,
            stop_answering,
            threads: (echo, ask),
            dropped_before: dropped_by_the_machine(),
        }
    }

    /// Every question was answered, and at once.
    #[track_caller]
    pub fn ends_without_loss(self) {
        let (echo, ask) = self.threads;
        self.stop_asking.store(true, Ordering::Relaxed);
        let outcome = ask.join().unwrap();
        self.stop_answering.store(true, Ordering::Relaxed);
        echo.join().unwrap();
        let repeated = &outcome.repeated;
        let to = self.to;
        assert!(
            repeated.iter().all(|(_, n)| *n < GIVEN_UP),
            "no answer from {to}: {repeated:?}"
        );
        // A packet dropped where all namespaces of the machine share a queue says nothing about the plugins.
        if self.dropped_before == dropped_by_the_machine() {
            assert_eq!(repeated, &[], "lost to {to}, of {}", outcome.asked);
        }
    }
}

/// How often a question had to be asked to be answered.
fn tries(client: &UdpSocket, question: u32) -> u32 {
    let mut buffer = [0; 8];
    for n in 1..GIVEN_UP {
        client.send(&question.to_be_bytes()).unwrap();
        // An answer to what was asked before may be still under way.
        while let Ok(length) = client.recv(&mut buffer) {
            if buffer[..length] == question.to_be_bytes() {
                return n;
            }
        }
    }
    GIVEN_UP
}

/// Packets that did not fit into a CPU's input queue, where those of all network namespaces wait: a flood in another test
/// (the neighbour discovery of hundreds of pods, say) crowds them out.
fn dropped_by_the_machine() -> u64 {
    let counts = fs::read_to_string("/proc/net/softnet_stat").unwrap();
    let of_cpu =
        |line: &str| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
    counts.lines().map(of_cpu).sum()
}
