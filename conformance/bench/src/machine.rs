//! The machine under the run, for the reader who wonders how far to trust it.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A stretch of time in which to learn how busy the machine was with other things.
#[derive(Debug)]
pub struct Watch {
    start: Ticks,
    /// Of the last minute before the start, per CPU: also sees those who wait for the kernel's RTNL lock.
    load_before: f64,
}

/// CPU time since boot in the kernel's clock ticks, all CPUs together.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    all: u64,
    user: u64,
    /// Of this process and the children it has waited for.
    own_user: u64,
}

impl Watch {
    pub fn start() -> Result<Self> {
        let load = fs::read_to_string("/proc/loadavg")?;
        let load: f64 = load
            .split(' ')
            .next()
            .unwrap_or("")
            .parse()
            .context("/proc/loadavg")?;
        let cpus = std::thread::available_parallelism()?;
        let load_before = load / cpus.get() as f64;
        Ok(Self {
            start: Ticks::now()?,
            load_before,
        })
    }

    /// Whether a bound that does not hold may be others' fault: the CPUs were in
    /// demand before, or shared during, the run.
    pub fn was_disturbed(&self) -> Result<bool> {
        Ok(self.load_before > 0.5 || self.others_percent()? > 15)
    }

    /// The share of CPU time since the start, in percent, that other programs spent computing. What the kernel does is
    /// left out: nobody can tell how much of it this run caused.
    pub fn others_percent(&self) -> Result<u64> {
        let now = Ticks::now()?;
        let user = now.user.saturating_sub(self.start.user);
        let own = now.own_user.saturating_sub(self.start.own_user);
        let all = now.all.saturating_sub(self.start.all).max(1);
        Ok(user.saturating_sub(own) * 100 / all)
    }
}

/// Kernel release, number of CPUs, [`Watch::others_percent`] and [`Watch::was_disturbed`].
pub fn describe(watch: &Watch) -> Result<Value> {
    Ok(json!({
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "cpus": std::thread::available_parallelism()?,
        "others_percent": watch.others_percent()?,
        "disturbed": watch.was_disturbed()?,
    }))
}

impl Ticks {
    fn now() -> Result<Self> {
        // proc_stat(5): user nice system idle iowait irq softirq steal, and guest times that user already contains.
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("/proc/stat is empty")?;
        let columns: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|text| text.parse().ok())
            .collect();
        // proc_pid_stat(5): fields 14 and 16 are utime and cutime; field 3 is the first after the name, which ends at
        // the last parenthesis.
        let own_stat = fs::read_to_string("/proc/self/stat")?;
        let (_, fields) = own_stat
            .rsplit_once(')')
            .context("/proc/self/stat has no name")?;
        let own = fields.split_whitespace().skip(11).step_by(2).take(2);
        Ok(Self {
            all: columns.iter().sum(),
            user: columns.iter().take(2).sum(),
            own_user: own.filter_map(|text| text.parse::<u64>().ok()).sum(),
        })
    }
}
