//! host-local alone, with an empty store and with 60,000 reservations in it: neither verb may care.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use crate::args::Options;
use crate::ground::{Ground, Who, container_id};
use crate::job::{Job, elapsed_ms};
use crate::measure::footprint::PEAK_RSS_KIB;
use crate::measure::{Turns, WARM_UP};
use crate::pods::Pods;
use crate::report::Report;
use crate::trace::{Detail, trace};

pub const ADD_EMPTY: &str = "host-local ADD, empty";
pub const ADD_FULL: &str = "host-local ADD, 60,000 reserved";
pub const DEL_EMPTY: &str = "host-local DEL, empty";
pub const DEL_FULL: &str = "host-local DEL, 60,000 reserved";
pub const ADD_FOREIGN: &str = "the same ADD after another program wrote";

const RESERVED: u32 = 60_000;
/// The network address of the range, a /14: room for four times as many.
const NETWORK: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
const NAME: &str = "bench-store";

struct Lane {
    who: Who,
    /// The directory with the reservations.
    store: PathBuf,
    full: bool,
    add: Job,
    del: Job,
}

pub fn measure(ground: &Ground, options: &Options, report: &mut Report) -> Result<()> {
    report.expect_rows(&[ADD_EMPTY, ADD_FULL, DEL_EMPTY, DEL_FULL, ADD_FOREIGN]);
    // Never touched, but the protocol demands one.
    let pod = Pods::create("store-", 1)?;
    let mut lanes = Vec::new();
    for who in ground.present(&[Who::Ours, Who::Reference]) {
        for full in [false, true] {
            if options.quick && full && who == Who::Reference {
                continue;
            }
            lanes.push(Lane::prepare(ground, who, full, pod.path(0)?)?);
        }
    }
    // Else the file system commits 60,000 new files in the middle of what is timed.
    nix::unistd::sync();

    for lane in lanes
        .iter()
        .filter(|lane| lane.who == Who::Ours && lane.full)
    {
        for stray in 0..4 {
            if stray > 0 {
                // Another program reserves one more; the very first time it has written them all.
                reserve(&lane.store, RESERVED + 1000 + stray)?;
            }
            let start = Instant::now();
            let footprint = trace(&lane.add, Detail::Memory)?;
            report.push(ADD_FOREIGN, lane.who, elapsed_ms(start));
            report.at_most(PEAK_RSS_KIB, lane.who, kib(footprint.peak_rss_kib));
            lane.del.time()?;
        }
    }
    let mut turns = Turns::new();
    for round in 0..WARM_UP + options.rounds(400, 80) {
        turns.shuffle(&mut lanes);
        for lane in &lanes {
            // Most of a second for each of its calls.
            if lane.who == Who::Reference && lane.full && round % 50 != WARM_UP {
                continue;
            }
            let (add_ms, del_ms) = (lane.add.time()?, lane.del.time()?);
            if round >= WARM_UP {
                let (add_row, del_row) = if lane.full {
                    (ADD_FULL, DEL_FULL)
                } else {
                    (ADD_EMPTY, DEL_EMPTY)
                };
                report.push(add_row, lane.who, add_ms);
                report.push(del_row, lane.who, del_ms);
            }
        }
    }
    for lane in lanes.iter().filter(|lane| lane.who == Who::Ours) {
        for job in [&lane.add, &lane.del] {
            report.at_most(
                PEAK_RSS_KIB,
                lane.who,
                kib(trace(job, Detail::Memory)?.peak_rss_kib),
            );
        }
    }
    Ok(())
}

impl Lane {
    fn prepare(ground: &Ground, who: Who, full: bool, netns: &Path) -> Result<Self> {
        let fill = if full { "full" } else { "empty" };
        let name = format!("store-{}-{fill}", who.name());
        let data_dir = ground.store_dir(&name)?;
        let store = data_dir.join(NAME);
        if full {
            fs::create_dir(&store)?;
            for number in 0..RESERVED {
                reserve(&store, number)?;
            }
            write_new(
                &store.join("last_reserved_ip.0"),
                &address(RESERVED - 1).to_string(),
            )?;
        }
        let conf = ground.scratch().join(format!("{name}.conf"));
        let ipam = json!({
            "type": "host-local",
            "dataDir": data_dir,
            "ranges": [[{ "subnet": format!("{NETWORK}/14") }]],
        });
        let network =
            json!({ "cniVersion": "1.0.0", "name": NAME, "type": "bridge", "ipam": ipam });
        fs::write(&conf, network.to_string())?;
        let programs = ground.program_dir(who).unwrap_or(Path::new(""));
        let job = |verb: &str| Job {
            program: programs.join("host-local"),
            env: vec![
                ("CNI_COMMAND", verb.to_owned()),
                ("CNI_CONTAINERID", container_id(0xff, 1)),
                ("CNI_NETNS", netns.display().to_string()),
                ("CNI_IFNAME", "eth0".to_owned()),
                ("CNI_PATH", programs.display().to_string()),
            ],
            stdin: conf.clone(),
            stdout: ground.scratch().join(format!("{name}.{verb}.out")),
            stderr: ground.scratch().join(format!("{name}.{verb}.err")),
        };
        Ok(Self {
            who,
            store,
            full,
            add: job("ADD"),
            del: job("DEL"),
        })
    }
}

/// Writes a reservation as the reference does: `containerID CR LF ifname`, mode 0600.
fn reserve(store: &Path, number: u32) -> Result<()> {
    let id = container_id(0xfe, usize::try_from(number)?);
    write_new(
        &store.join(address(number).to_string()),
        &format!("{id}\r\neth0"),
    )
}

fn write_new(path: &Path, content: &str) -> Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content.as_bytes())?;
    Ok(())
}

/// From the second host on: the first is the gateway.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(NETWORK.to_bits() + 2 + number)
}

fn kib(count: u64) -> f64 {
    // Far below 2^53.
    count as f64
}
