use std::time::Instant;

use testkit::{in_netns, sh};

use super::*;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

/// UDP entries, original and reply: of 10.0.0.5 as client (masqueraded), server, server behind a service; of others,
/// look-alikes among them, and the two odd ones that translate *to* the address.
fn fill() {
    for (orig, reply) in [
        ("-s 10.0.0.5 -d 1.1.1.1", "-r 1.1.1.1 -q 192.168.0.1"),
        ("-s 10.0.1.1 -d 10.0.0.5", "-r 10.0.0.5 -q 10.0.1.1"),
        ("-s 10.0.1.2 -d 10.96.0.1", "-r 10.0.0.5 -q 10.0.1.2"),
        ("-s 10.0.2.1 -d 10.0.0.5", "-r 10.0.0.7 -q 10.0.2.1"),
        ("-s 10.0.2.2 -d 1.1.1.1", "-r 1.1.1.1 -q 10.0.0.5"),
        ("-s 10.0.0.50 -d 1.1.1.1", "-r 1.1.1.1 -q 10.0.0.50"),
        ("-s fd00::5 -d fd01::1", "-r fd01::1 -q fd00::5"),
        ("-s fd01::2 -d fd00::5", "-r fd00::5 -q fd01::2"),
        ("-s fd00::55 -d fd01::1", "-r fd01::1 -q fd00::55"),
    ] {
        sh(&format!(
            "conntrack -I -p udp --sport 1000 --dport 53 {orig} {reply} --reply-port-src 53 --reply-port-dst 1000 -t 60"
        ));
    }
}

fn listed() -> Vec<String> {
    let both = sh("conntrack -L -f ipv4 2>/dev/null; conntrack -L -f ipv6 2>/dev/null");
    let first = |line: &str| {
        line.split("src=")
            .nth(1)
            .and_then(|l| l.split(' ').next())
            .unwrap()
            .to_owned()
    };
    let mut sources: Vec<String> = both.lines().map(first).collect();
    sources.sort();
    sources
}

const ALL: [&str; 9] = [
    "10.0.0.5",
    "10.0.0.50",
    "10.0.1.1",
    "10.0.1.2",
    "10.0.2.1",
    "10.0.2.2",
    "fd00::5",
    "fd00::55",
    "fd01::2",
];
const OTHERS: [&str; 4] = ["10.0.0.50", "10.0.2.1", "10.0.2.2", "fd00::55"];

#[test]
fn entries_of_an_address_go_and_no_others() {
    in_netns(|| {
        fill();
        assert_eq!(listed(), ALL);
        let mut netfilter = Netfilter::unopened();
        forget(&mut netfilter, &ips(&["10.0.0.5", "fd00::5"])).unwrap();
        assert_eq!(listed(), OTHERS);
        forget(&mut netfilter, &ips(&["10.0.0.5", "fd00::5"])).unwrap();
        assert_eq!(listed(), OTHERS);
    });
}

#[test]
fn one_by_one_does_the_same() {
    in_netns(|| {
        fill();
        let mut netfilter = Netfilter::unopened();
        for family in [AF_INET, AF_INET6] {
            delete_one_by_one(&mut netfilter, family, &ips(&["10.0.0.5", "fd00::5"])).unwrap();
        }
        assert_eq!(listed(), OTHERS);
    });
}

/// What kernels before 6.8 see of the request: a tuple without ports. It must be refused, never taken for "all".
#[test]
fn a_kernel_that_ignores_the_filter_deletes_nothing() {
    in_netns(|| {
        fill();
        for tuple in [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY] {
            let message = request(IPCTNL_MSG_CT_DELETE, AF_INET, "as an old kernel reads it")
                .nest(tuple, |m| {
                    m.nest(CTA_TUPLE_IP, |m| m.bytes(CTA_IP_V4_SRC, &[10, 0, 0, 5]))
                });
            let mut netfilter = Netfilter::unopened();
            let error = netfilter
                .socket()
                .unwrap()
                .run(&message.into())
                .unwrap_err();
            assert!(error.is(Errno::EINVAL), "{error}");
        }
        assert_eq!(listed(), ALL);
    });
}

#[test]
fn an_empty_table_costs_no_socket() {
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        forget(&mut netfilter, &ips(&["10.0.0.5"])).unwrap();
        assert!(!netfilter.is_open());
        fill();
        forget(&mut netfilter, &[]).unwrap();
        assert!(!netfilter.is_open());
    });
}

/// Not a test: `cargo test -p libcni --release conntrack::tests::cost -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn cost() {
    in_netns(|| {
        for entries in [0u32, 1, 10_000, 100_000] {
            let mut netfilter = Netfilter::unopened();
            insert(&mut netfilter, entries);
            drop(netfilter);
            for addresses in [["10.0.0.5"], ["fd00::5"]] {
                let mut all = Vec::new();
                for _ in 0..50 {
                    let mut netfilter = Netfilter::unopened();
                    let start = Instant::now();
                    forget(&mut netfilter, &ips(&addresses)).unwrap();
                    let work = start.elapsed();
                    drop(netfilter);
                    all.push((work, start.elapsed() - work));
                }
                all.sort();
                eprintln!(
                    "{entries} entries, {addresses:?}: (forget, close) median {:?}, worst {:?}",
                    all[25], all[49]
                );
            }
        }
    });
}

/// Entries of other addresses, made by netlink.
fn insert(netfilter: &mut Netfilter, count: u32) {
    const CTA_TUPLE_PROTO: u16 = 2;
    const CTA_PROTO_NUM: u16 = 1;
    const CTA_PROTO_SRC_PORT: u16 = 2;
    const CTA_PROTO_DST_PORT: u16 = 3;
    const CTA_TIMEOUT: u16 = 7;
    let tuple = |m: Message, attr, src: u32, dst: u32, ports: [u16; 2]| {
        m.nest(attr, |m| {
            m.nest(CTA_TUPLE_IP, |m| {
                m.be32(CTA_IP_V4_SRC, src).be32(CTA_IP_V4_SRC + 1, dst)
            })
            .nest(CTA_TUPLE_PROTO, |m| {
                m.u8(CTA_PROTO_NUM, 17)
                    .be16(CTA_PROTO_SRC_PORT, ports[0])
                    .be16(CTA_PROTO_DST_PORT, ports[1])
            })
        })
    };
    for chunk in (0..count).collect::<Vec<_>>().chunks(500) {
        let message = |n: &u32| {
            let (src, dst) = (0x0b00_0000 + n, 0x0c00_0000);
            let m = Message::new(SUBSYS, crate::nl::CREATE, "insert").header(&[2, 0, 0, 0]);
            let m = tuple(m, CTA_TUPLE_ORIG, src, dst, [1000, 53]);
            tuple(m, CTA_TUPLE_REPLY, dst, src, [53, 1000]).be32(CTA_TIMEOUT, 600)
        };
        for outcome in netfilter
            .socket()
            .unwrap()
            .run_all(&chunk.iter().map(message).collect())
            .unwrap()
        {
            match outcome {
                Err(error) if error.is(Errno::EEXIST) => {}
                outcome => outcome.unwrap(),
            }
        }
    }
}
