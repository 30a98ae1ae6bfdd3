//! Bytes first, then the real kernel.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netlink_sys::SocketAddr;
use nix::errno::Errno;
use nix::sys::socket::{NetlinkAddr, getsockname, setsockopt, sockopt};
use proptest::prelude::*;

use super::attr::{self, Attrs};
use super::frame::{Frame, Frames, NLMSG_ERROR};
use super::{Batch, CREATE, EXCL, Event, Message, NlError, ROUTE, STOP, Socket, errno_name};
use crate::spec::error::{CniError, Code};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const IFLA_IFNAME: u16 = 3;
const IFLA_GROUP: u16 = 27;

fn add_bridge(name: &str) -> Message {
    Message::new(RTM_NEWLINK, CREATE | EXCL, format!("create {name}"))
        .header(&[0; 16])
        .str(IFLA_IFNAME, name)
        .nest(18, |m| m.str(1, "bridge"))
}

fn del_link(name: &str) -> Message {
    Message::new(RTM_DELLINK, 0, format!("delete {name}"))
        .header(&[0; 16])
        .str(IFLA_IFNAME, name)
}

fn get_link(name: &str) -> Message {
    Message::new(RTM_GETLINK, 0, format!("look up {name}"))
        .header(&[0; 16])
        .str(IFLA_IFNAME, name)
}

fn name_of(payload: &[u8]) -> String {
    let name = Attrs::after(payload, 16)
        .find(IFLA_IFNAME)
        .and_then(attr::str);
    name.unwrap_or_default().to_owned()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

fn only(bytes: &[u8]) -> Frame<'_> {
    let frames: Vec<Frame<'_>> = Frames::new(bytes).collect();
    assert_eq!(frames.len(), 1);
    frames[0]
}

// === bytes ===

#[test]
fn a_message_is_laid_out_as_the_header_files_say() {
    let message = Message::new(0x1234, CREATE, "test")
        .header(&[1, 2, 3])
        .u8(1, 0xaa)
        .be16(2, 0x0102)
        .str(3, "abc")
        .nest(4, |m| m.flag(5).be32(6, 0x01020304));
    let bytes = message.to_bytes();
    let mut want = Vec::new();
    want.extend_from_slice(&60_u32.to_ne_bytes());
    want.extend_from_slice(&0x1234_u16.to_ne_bytes());
    want.extend_from_slice(&0x0401_u16.to_ne_bytes());
    want.extend_from_slice(&[0; 8]);
    want.extend_from_slice(&[1, 2, 3, 0]);
    let mut attr = |length: u16, kind: u16, payload: &[u8]| {
        want.extend_from_slice(&length.to_ne_bytes());
        want.extend_from_slice(&kind.to_ne_bytes());
        want.extend_from_slice(payload);
    };
    attr(5, 1, &[0xaa, 0, 0, 0]);
    attr(6, 2, &[1, 2, 0, 0]);
    attr(8, 3, b"abc\0");
    attr(16, 0x8004, &[]);
    attr(4, 5, &[]);
    attr(8, 6, &[1, 2, 3, 4]);
    assert_eq!(bytes, want);
    let read: Vec<(u16, usize)> = Attrs::after(&bytes, 20)
        .map(|(k, p)| (k, p.len()))
        .collect();
    assert_eq!(read, [(1, 1), (2, 2), (3, 4), (4, 12)]);
}

#[test]
fn an_attribute_beyond_64_kib_is_not_sent() {
    let mut sock = Socket::open(ROUTE).unwrap();
    let long = vec![0; 65_532];
    for message in [
        Message::new(RTM_NEWLINK, 0, "too long")
            .header(&[0; 16])
            .bytes(1, &long),
        Message::new(RTM_NEWLINK, 0, "too long")
            .header(&[0; 16])
            .nest(1, |m| m.bytes(2, &long[4..])),
    ] {
        let error = sock.request(message).unwrap_err();
        assert!(error.is(Errno::EMSGSIZE), "{error}");
        assert_eq!(error.step, "too long");
    }
}

/// Captured on Linux 6.18 with NETLINK_EXT_ACK and NETLINK_CAP_ACK.
#[test]
fn reads_the_kernels_errors() {
    let plain =
        from_hex("240000000200000107000000fa220000edffffff2c000000120001000700000000000000");
    let error = only(&plain).verdict("look up nosuch").unwrap_err();
    assert_eq!(error, NlError::new("look up nosuch", Errno::ENODEV as i32));
    assert_eq!(error.to_string(), "look up nosuch: ENODEV (No such device)");

    let explained = from_hex(concat!(
        "440000000200000307000000fa220000eaffffff20000000140005060700000000000000",
        "20000100697076343a20496e76616c696420707265666978206c656e67746800"
    ));
    let error = only(&explained)
        .verdict("add address 10.1.2.3/40")
        .unwrap_err();
    assert_eq!(error.errno, Errno::EINVAL as i32);
    assert_eq!(
        error.ext_ack.as_deref(),
        Some("ipv4: Invalid prefix length")
    );
    assert_eq!(
        error.to_string(),
        "add address 10.1.2.3/40: EINVAL (Invalid argument): ipv4: Invalid prefix length"
    );
    let cni = CniError::from(error);
    assert_eq!(cni.msg, "add address 10.1.2.3/40: Invalid argument");
    assert_eq!(cni.details, "EINVAL: ipv4: Invalid prefix length");
    assert_eq!(cni.code, Code::Internal);
}

/// The same answer as a kernel without NETLINK_CAP_ACK gives it: the request is quoted in full.
#[test]
fn skips_the_quoted_request() {
    let request = from_hex("180000001400050607000000000000000228000003000000");
    let mut payload = (-22_i32).to_ne_bytes().to_vec();
    payload.extend_from_slice(&request);
    payload.extend_from_slice(&from_hex("0a0001006e6f7065210000000800020014000000"));
    let frame = Frame {
        kind: NLMSG_ERROR,
        flags: 0x200,
        seq: 1,
        payload: &payload,
    };
    let error = frame.verdict("x").unwrap_err();
    assert_eq!(
        (error.ext_ack.as_deref(), error.attr_offset),
        (Some("nope!"), Some(20))
    );
}

#[test]
fn errnos_have_names() {
    assert_eq!(errno_name(19), "ENODEV");
    assert_eq!(errno_name(524), "errno 524");
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (_, payload) in Attrs::new(&bytes) {
            let _ = (attr::u8(payload), attr::u16(payload), attr::u32(payload), attr::u64(payload));
            let _ = (attr::be16(payload), attr::be32(payload), attr::be64(payload), attr::i32(payload));
            let _ = (attr::str(payload), attr::ip(payload), Attrs::new(payload).count());
        }
        for frame in Frames::new(&bytes) {
            let _ = frame.verdict("x");
        }
        for kind in [2, 3] {
            for flags in [0, 0x100, 0x200, 0x300] {
                let _ = Frame { kind, flags, seq: 0, payload: &bytes }.verdict("x");
            }
        }
    }

    #[test]
    fn what_was_written_is_read(payloads in proptest::collection::vec(
        (0_u16..0x4000, proptest::collection::vec(any::<u8>(), 0..40)), 0..20,
    )) {
        let message = payloads.iter().fold(Message::new(1, 0, "x"), |m, (kind, p)| m.bytes(*kind, p));
        let bytes = message.to_bytes();
        let read: Vec<(u16, Vec<u8>)> = Attrs::after(&bytes, 16).map(|(k, p)| (k, p.to_vec())).collect();
        prop_assert_eq!(read, payloads);
    }
}

// === the kernel ===

#[test]
fn a_failure_in_the_middle_is_told_and_stops_nothing() {
    testkit::in_netns(|| {
        let mut sock = Socket::open(ROUTE).unwrap();
        let batch = Batch::from_iter([
            add_bridge("a"),
            del_link("nosuch"),
            add_bridge("a"),
            add_bridge("b"),
        ]);
        let outcomes = sock.run_all(&batch).unwrap();
        let errnos: Vec<i32> = outcomes
            .iter()
            .map(|o| o.as_ref().map_or_else(|e| e.errno, |()| 0))
            .collect();
        assert_eq!(errnos, [0, Errno::ENODEV as i32, Errno::EEXIST as i32, 0]);
        let links = testkit::ip_json(&["link", "show", "type", "bridge"]);
        assert_eq!(
            (&links[0]["ifname"], &links[1]["ifname"]),
            (&"a".into(), &"b".into())
        );

        let error = sock.run(&batch).unwrap_err();
        assert_eq!(error.to_string(), "create a: EEXIST (File exists)");
        sock.run(&Batch::new()).unwrap();
        assert!(sock.run_all(&Batch::new()).unwrap().is_empty());
        // Nothing left over that a later answer could be mistaken for.
        assert_eq!(name_of(sock.get(get_link("b")).unwrap().payload), "b");
    });
}

#[test]
fn a_failure_at_the_end_is_told() {
    testkit::in_netns(|| {
        let mut sock = Socket::open(ROUTE).unwrap();
        let batch = Batch::from_iter([add_bridge("a"), del_link("nosuch")]);
        let error = sock.run(&batch).unwrap_err();
        assert_eq!(error.step, "delete nosuch");
        // Also when no ack was asked for at all.
        let batch = Batch::from_iter([del_link("a").unacked(), del_link("nosuch").unacked()]);
        assert!(sock.run(&batch).unwrap_err().is(Errno::ENODEV));
        assert!(sock.get(get_link("a")).unwrap_err().is(Errno::ENODEV));
    });
}

#[test]
fn the_kernels_explanation_arrives() {
    testkit::in_netns(|| {
        let mut sock = Socket::open(ROUTE).unwrap();
        // ip address add 10.1.2.3/40 dev lo
        let message =
            Message::new(20, CREATE | EXCL, "add address").header(&[2, 40, 0, 0, 1, 0, 0, 0]);
        let error = sock.request(message.bytes(2, &[10, 1, 2, 3])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "add address: EINVAL (Invalid argument): ipv4: Invalid prefix length"
        );
        // An attribute of the wrong size: the place is told, too (behind the netlink header and ifinfomsg).
        let message = Message::new(RTM_NEWLINK, 0, "odd")
            .header(&[0; 16])
            .u8(IFLA_GROUP, 1);
        let error = sock.request(message).unwrap_err();
        assert_eq!(
            (error.errno, error.attr_offset),
            (Errno::ERANGE as i32, Some(32)),
            "{error}"
        );
    });
}

#[test]
fn gets_may_travel_with_changes() {
    testkit::in_netns(|| {
        let mut sock = Socket::open(ROUTE).unwrap();
        let batch = Batch::from_iter([
            add_bridge("a"),
            get_link("a"),
            add_bridge("b"),
            get_link("b"),
        ]);
        let mut seen = Vec::new();
        sock.exchange(&batch, |index, reply| {
            seen.push((index, name_of(reply.payload)))
        })
        .unwrap();
        assert_eq!(seen, [(1, "a".to_owned()), (3, "b".to_owned())]);
    });
}

#[test]
fn a_batch_beyond_the_send_buffer() {
    testkit::in_netns(|| {
        let mut sock = Socket::open(ROUTE).unwrap();
        // 300 KiB; the default send buffer is 208 KiB, and 416 KiB is what anybody may ask for.
        let filler = vec![0; 2000];
        let change = |n| {
            Message::new(RTM_NEWLINK, 0, format!("change {n}"))
                .header(&[0; 16])
                .str(IFLA_IFNAME, if n == 77 { "nosuch" } else { "lo" })
                .u32(IFLA_GROUP, n)
                .bytes(16_000, &filler)
        };
        let batch: Batch = (0..150).map(change).collect();
        let outcomes = sock.run_all(&batch).unwrap();
        let failed: Vec<usize> = (0..150).filter(|i| outcomes[*i].is_err()).collect();
        assert_eq!(failed, [77]);
        assert_eq!(testkit::ip_json(&["link", "show", "lo"])[0]["group"], "149");
    });
}

#[test]
fn an_interrupted_dump_is_begun_again() {
    testkit::in_netns(|| {
        let mut sock = Socket::open(ROUTE).unwrap();
        // Enough for several datagrams: the kernel fills the later ones when the earlier are read, so a
        // change made while reading the first falls into the middle of the dump.
        let made: Batch = (0..200).map(|n| add_bridge(&format!("keep{n}"))).collect();
        sock.run(&made).unwrap();
        let list_links = || Message::new(RTM_GETLINK, 0, "list links").header(&[0; 16]);
        let mut other = Socket::open(ROUTE).unwrap();
        let mut seen = 0;
        let mut names = sock
            .dump(list_links(), |reply| {
                seen += 1;
                if seen == 1 {
                    other.request(del_link("keep150")).unwrap();
                    other.request(add_bridge("late")).unwrap();
                }
                Some(name_of(reply.payload))
            })
            .unwrap();
        assert!(seen > names.len(), "begun again");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 201, "lo, 199 old ones and a late one");
        assert!(names.contains(&"late".to_owned()) && !names.contains(&"keep150".to_owned()));

        let mut runs = 0;
        let error = sock
            .dump(list_links(), |reply| {
                // lo comes first, once a run.
                if name_of(reply.payload) == "lo" {
                    runs += 1;
                    other.request(del_link(&format!("keep{runs}"))).unwrap();
                }
                Some(())
            })
            .unwrap_err();
        assert_eq!(runs, 16);
        assert!(error.is(Errno::EAGAIN), "{error}");
        assert_eq!(CniError::from(error).code, Code::TryAgain);
    });
}

#[test]
fn only_the_kernel_is_believed() {
    testkit::in_netns(|| {
        let mut sock = Socket::open(ROUTE).unwrap();
        sock.get(get_link("lo")).unwrap();
        let port = getsockname::<NetlinkAddr>(sock.as_fd().as_raw_fd())
            .unwrap()
            .pid();
        // Another process forges the answer to the second request: "lo" is called "evil".
        let forger = netlink_sys::Socket::new(ROUTE).unwrap();
        let mut forged = Message::new(RTM_NEWLINK, 0, "x")
            .header(&[0; 16])
            .str(IFLA_IFNAME, "evil")
            .to_bytes();
        forged[8] = 2;
        forger
            .send_to(&forged, &SocketAddr::new(port, 0), 0)
            .unwrap();
        assert_eq!(name_of(sock.get(get_link("lo")).unwrap().payload), "lo");
    });
}

#[test]
fn events_arrive_and_dropped_ones_are_noticed() {
    testkit::in_netns(|| {
        let soon = || Instant::now() + Duration::from_secs(5);
        let mut sock = Socket::open(ROUTE).unwrap();
        sock.subscribe(1).unwrap();
        assert_eq!(
            sock.next_event(Instant::now(), |_| {}).unwrap(),
            Event::Timeout
        );
        Socket::open(ROUTE)
            .unwrap()
            .request(add_bridge("a"))
            .unwrap();
        let mut names = Vec::new();
        while names.is_empty() {
            assert_eq!(
                sock.next_event(soon(), |r| names.push(name_of(r.payload)))
                    .unwrap(),
                Event::Seen
            );
        }
        assert_eq!(names[0], "a");
        // Requests go on working while events come in between.
        assert_eq!(name_of(sock.get(get_link("a")).unwrap().payload), "a");

        setsockopt(&sock, sockopt::RcvBuf, &4096).unwrap();
        let many: Batch = (0..50).map(|n| add_bridge(&format!("b{n}"))).collect();
        Socket::open(ROUTE).unwrap().run(&many).unwrap();
        assert_eq!(sock.next_event(soon(), |_| {}).unwrap(), Event::Overrun);
        assert_eq!(name_of(sock.get(get_link("b49")).unwrap().payload), "b49");
        sock.unsubscribe(1).unwrap();
    });
}

#[test]
fn a_signal_ends_a_wait_only_when_asked_to_stop() {
    testkit::in_netns(|| {
        let mut sock = Socket::open(ROUTE).unwrap();
        sock.subscribe(1).unwrap();
        let mut wait = |time| interrupted(|| sock.next_event(Instant::now() + time, |_| {}));
        assert_eq!(wait(Duration::from_millis(80)).unwrap(), Event::Timeout);
        STOP.store(true, Ordering::Relaxed);
        let error = wait(Duration::from_secs(60)).unwrap_err();
        assert!(error.interrupted(), "{error}");
    });
}

/// Sends this thread a signal whose handler does nothing (without SA_RESTART) while it waits. Again and again: one that
/// comes before it waits is lost.
#[allow(unsafe_code)]
fn interrupted<T>(wait: impl FnOnce() -> T) -> T {
    use nix::libc::{pthread_kill, pthread_self};
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    extern "C" fn nothing(_: i32) {}
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action).unwrap() };
    // SAFETY: always succeeds.
    let thread = unsafe { pthread_self() };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
                // SAFETY: the test's thread joins this one, so it is alive.
                assert_eq!(unsafe { pthread_kill(thread, Signal::SIGUSR1 as i32) }, 0);
            }
        });
        let outcome = wait();
        over.store(true, Ordering::Relaxed);
        outcome
    })
}
