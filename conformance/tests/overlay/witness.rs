//! Who notices when packets get lost: echo requests, and a connection that is open all the time.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use conformance::fleet::Space;
use testkit::eventually;

/// How long an end waits for the other: for less than that the kernel sends again, which is seen.
const PATIENCE: Duration = Duration::from_secs(5);
const BLOCK_BYTES: usize = 1024;
/// Echo requests whose answers ping may not have read yet when it is stopped.
const ON_THEIR_WAY: usize = 3;

/// An echo request each 10 ms.
pub struct Echo {
    ping: Child,
    said: File,
}

/// A connection. One block at a time goes there and comes back, each with its number.
pub struct Stream {
    /// Who the client is, as the server sees it.
    pub source: IpAddr,
    what: String,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    ends: [JoinHandle<io::Result<()>>; 2],
}

// === impl Echo ===

impl Echo {
    pub fn between(from: &Space, to: &str) -> Self {
        let mut ping = from.command("ping");
        ping.args(["-n", "-i", "0.01", "-W", "2", to]);
        let said = tempfile::tempfile().unwrap();
        ping.stdout(said.try_clone().unwrap()).stderr(Stdio::null());
        Self {
            ping: ping.spawn().unwrap(),
            said,
        }
    }

    /// Ends it; how many were answered, if those are all but the last, which are on their way. Otherwise which were.
    pub fn answered(mut self) -> Result<usize, String> {
        let pid = nix::unistd::Pid::from_raw(self.ping.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        self.ping.wait().unwrap();
        let mut said = String::new();
        self.said.rewind().unwrap();
        self.said.read_to_string(&mut said).unwrap();
        let number = |text: &str| text.split(' ').next().and_then(|n| n.parse().ok());
        let answers = said.lines().filter(|line| line.contains(" bytes from "));
        let mut answered: Vec<usize> = answers
            .filter_map(|line| number(line.split_once("icmp_seq=")?.1))
            .collect();
        answered.sort_unstable();
        answered.dedup();
        let sent = said
            .lines()
            .find(|line| line.contains(" packets transmitted"))
            .and_then(number);
        let all = answered.iter().copied().eq(1..=answered.len());
        match sent {
            Some(sent) if all && sent > 0 && sent <= answered.len() + ON_THEIR_WAY => {
                Ok(answered.len())
            }
            _ => Err(format!("of {sent:?}, these were answered: {answered:?}")),
        }
    }

    /// Ends it; all were answered.
    #[track_caller]
    pub fn lost_nothing(self) {
        self.answered().unwrap_or_else(|said| panic!("{said}"));
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.ping.kill();
        let _ = self.ping.wait();
    }
}

// === impl Stream ===

impl Stream {
    pub fn open(from: &Space, to: &Space, ip: &str, port: u16) -> Self {
        let target = SocketAddr::new(ip.parse().unwrap(), port);
        let server = to.run(|| TcpListener::bind(target).unwrap()).unwrap();
        let client = from.run(|| TcpStream::connect_timeout(&target, PATIENCE).unwrap());
        let client = client.unwrap();
        let (served, source) = server.accept().unwrap();
        for end in [&client, &served] {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
            end.set_nodelay(true).unwrap();
        }
        let (stop, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counted) = (stop.clone(), rounds.clone());
        let ends = [
            thread::spawn(move || ask(client, &stopped, &counted)),
            thread::spawn(move || answer(served)),
        ];
        Self {
            source: source.ip(),
            what: format!("{} -> {target}", from.name()),
            stop,
            rounds,
            ends,
        }
    }

    /// Blocks come back, now.
    #[track_caller]
    pub fn goes_on(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        eventually(PATIENCE, || {
            self.ends.iter().any(JoinHandle::is_finished)
                || self.rounds.load(Ordering::Relaxed) > before + 20
        });
        assert!(
            !self.ends.iter().any(JoinHandle::is_finished),
            "{}: broken",
            self.what
        );
    }

    /// Ends it; every block came back.
    #[track_caller]
    pub fn close(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for end in self.ends {
            let ended = end.join().unwrap();
            assert!(ended.is_ok(), "{}: {ended:?}", self.what);
        }
        self.rounds.load(Ordering::Relaxed)
    }
}

/// Nothing that was sent from here on a connection had to be sent twice.
#[track_caller]
pub fn nothing_was_sent_twice(space: &Space) {
    let sockets = space.sh("ss -tinH state established").unwrap();
    assert!(sockets.contains("bytes_acked"), "no connection: {sockets}");
    // What the other end tells to have got twice was late, not lost.
    let of = |line: &str, key: &str| -> u64 {
        let value = line.split(' ').find_map(|word| word.strip_prefix(key));
        let total = value.and_then(|value| value.rsplit('/').next());
        total.map_or(0, |total| total.parse().unwrap())
    };
    let lost = |line: &&str| of(line, "retrans:") > of(line, "dsack_dups:");
    assert_eq!(sockets.lines().find(lost), None, "{}", space.name());
}

fn ask(mut end: TcpStream, stop: &AtomicBool, rounds: &AtomicU64) -> io::Result<()> {
    let (mut block, mut back) = ([7; BLOCK_BYTES], [0; BLOCK_BYTES]);
    while !stop.load(Ordering::Relaxed) {
        let number = rounds.load(Ordering::Relaxed).to_be_bytes();
        block[..8].copy_from_slice(&number);
        end.write_all(&block)?;
        end.read_exact(&mut back)?;
        assert_eq!(back, block);
        rounds.fetch_add(1, Ordering::Relaxed);
        // Without a pause two processors do nothing but this.
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn answer(mut end: TcpStream) -> io::Result<()> {
    let mut block = [0; BLOCK_BYTES];
    for number in 0u64.. {
        match end.read_exact(&mut block) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        assert_eq!(block[..8], number.to_be_bytes());
        end.write_all(&block)?;
    }
    Ok(())
}
