//! One run of a program, and how it is timed: wall time from just before the spawn to just after the wait.
//!
//! Everything that a runtime would also do before calling a plugin (files opened, environment built) is outside.
//! `std::process::Command` spawns as `vfork` does and so costs every contender the same.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// A program, its whole environment, and files for its three streams.
#[derive(Debug, Clone)]
pub struct Job {
    pub program: PathBuf,
    pub env: Vec<(&'static str, String)>,
    pub stdin: PathBuf,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

impl Job {
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(
                File::open(&self.stdin)
                    .with_context(|| format!("open {}", self.stdin.display()))?,
            )
            .stdout(File::create(&self.stdout)?)
            .stderr(File::create(&self.stderr)?);
        Ok(command)
    }

    /// Runs to the end; milliseconds. An exit code other than 0 is an error that shows what the program said.
    pub fn time(&self) -> Result<f64> {
        let mut command = self.command()?;
        let start = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        let status = child.wait()?;
        let time_ms = elapsed_ms(start);
        self.must_have_succeeded(status)?;
        Ok(time_ms)
    }

    /// Runs to the end; milliseconds, by the wall and of processor time. That is its own and the kernel's in it, from the
    /// fork to the last of the exit, however long others kept the processor. Nobody else may run children meanwhile.
    pub fn cost(&self) -> Result<(f64, f64)> {
        let before = children_us()?;
        let time_ms = self.time()?;
        Ok((time_ms, (children_us()? - before) as f64 / 1000.0))
    }

    pub fn must_have_succeeded(&self, status: ExitStatus) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        let verb = self
            .env
            .iter()
            .find(|(key, _)| *key == "CNI_COMMAND")
            .map_or("", |(_, verb)| verb);
        bail!(
            "{} {verb}: {status}\n{}{}",
            self.program.display(),
            said(&self.stdout),
            said(&self.stderr)
        )
    }
}

/// Starts all, then waits for all; milliseconds from the first spawn to the last exit.
pub fn time_at_once(jobs: &[Job]) -> Result<f64> {
    let mut commands = jobs.iter().map(Job::command).collect::<Result<Vec<_>>>()?;
    let mut children: Vec<Child> = Vec::with_capacity(jobs.len());
    let start = Instant::now();
    for command in &mut commands {
        children.push(command.spawn()?);
    }
    let statuses = children
        .iter_mut()
        .map(Child::wait)
        .collect::<Result<Vec<_>, _>>()?;
    let time_ms = elapsed_ms(start);
    for (job, status) in jobs.iter().zip(statuses) {
        job.must_have_succeeded(status)?;
    }
    Ok(time_ms)
}

/// Processor time of all children that were waited for. The kernel counts it in nanoseconds, whatever its tick: only how
/// it divides into user and system is an estimate.
fn children_us() -> Result<i64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    Ok(usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
}

pub fn elapsed_ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn said(path: &PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
