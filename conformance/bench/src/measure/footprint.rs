//! What the plugins cost besides time: memory, file size, system calls, programs executed.

use std::fs;

use anyhow::Result;

use crate::args::Options;
use crate::elf;
use crate::ground::{Attachment, Features, Ground, Who};
use crate::job::Job;
use crate::pods::Pods;
use crate::report::Report;
use crate::trace::{Detail, Footprint, trace};

pub const PEAK_RSS_KIB: &str = "peak RSS of any plugin, KiB";
pub const SIZE_KIB: &str = "size of the largest plugin used, KiB";
pub const DYNAMIC: &str = "plugins not static";
pub const SYSCALLS: &str = "system calls in one ADD";
pub const SYSCALLS_MASQ: &str = "system calls in one ADD, ipMasq";
pub const EXECS: &str = "programs executed in one ADD or DEL";

const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "overlay"];

pub fn measure(ground: &Ground, _: &Options, report: &mut Report) -> Result<()> {
    for who in ground.present(&Who::ALL) {
        for features in [
            Features {
                ip_masq: false,
                dual_stack: false,
            },
            Features {
                ip_masq: true,
                dual_stack: false,
            },
            Features {
                ip_masq: true,
                dual_stack: true,
            },
        ] {
            if who == Who::Floor && (features.ip_masq || features.dual_stack) {
                continue;
            }
            let network = ground.network(who, features)?;
            let pod = Pods::create(&format!("{}-", network.bridge), 1)?;
            let attachment = Attachment {
                slot: 1,
                netns: pod.path(0)?,
            };
            let add = trace(&network.add(attachment), Detail::Syscalls)?;
            match (features.ip_masq, features.dual_stack) {
                (false, false) => report.at_most(SYSCALLS, who, f64::from(add.syscalls)),
                (true, false) => report.at_most(SYSCALLS_MASQ, who, f64::from(add.syscalls)),
                _ => {}
            }
            note(report, who, add);
            note(
                report,
                who,
                trace(&network.del(attachment)?, Detail::Syscalls)?,
            );
        }
    }
    for who in ground.present(&[Who::Ours, Who::Reference]) {
        let Some(dir) = ground.program_dir(who) else {
            continue;
        };
        for plugin in PLUGINS {
            let path = dir.join(plugin);
            // A directory need not have them all.
            if !path.is_file() {
                continue;
            }
            report.at_most(SIZE_KIB, who, fs::metadata(&path)?.len() as f64 / 1024.0);
            report.at_most(DYNAMIC, who, if elf::is_static(&path)? { 0.0 } else { 1.0 });
        }
        loopback(ground, who, report)?;
    }
    Ok(())
}

fn loopback(ground: &Ground, who: Who, report: &mut Report) -> Result<()> {
    let Some(dir) = ground.program_dir(who) else {
        return Ok(());
    };
    let pod = Pods::create(&format!("loopback-{}-", who.name()), 1)?;
    let scratch = |what: &str| {
        ground
            .scratch()
            .join(format!("loopback-{}.{what}", who.name()))
    };
    fs::write(
        scratch("conf"),
        r#"{"cniVersion":"1.0.0","name":"bench-lo","type":"loopback"}"#,
    )?;
    for verb in ["ADD", "DEL"] {
        let job = Job {
            program: dir.join("loopback"),
            env: vec![
                ("CNI_COMMAND", verb.to_owned()),
                ("CNI_CONTAINERID", "bench".to_owned()),
                ("CNI_NETNS", pod.path(0)?.display().to_string()),
                ("CNI_IFNAME", "lo".to_owned()),
                ("CNI_PATH", dir.display().to_string()),
            ],
            stdin: scratch("conf"),
            stdout: scratch("out"),
            stderr: scratch("err"),
        };
        note(report, who, trace(&job, Detail::Memory)?);
    }
    Ok(())
}

fn note(report: &mut Report, who: Who, footprint: Footprint) {
    report.at_most(EXECS, who, f64::from(footprint.execs));
    report.at_most(PEAK_RSS_KIB, who, footprint.peak_rss_kib as f64);
}
