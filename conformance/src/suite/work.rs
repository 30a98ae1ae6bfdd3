//! Running what is planned: many at once, as they mostly wait for the kernel.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::{SigSet, Signal, raise};

use super::plan::{Plan, Run, elsewhere};
use super::play::{Played, play};
use super::profile::Profiles;
use super::progress::Progress;
use super::report::{Collected, Part, Report, Status};

/// Signals that come together mean the same.
const ONE_WISH: Duration = Duration::from_millis(500);

/// Runs everything, `jobs` at a time; a call may take as long as the `limit`.
///
/// # Errors
/// Somebody interrupted it.
pub fn work(
    plan: &Plan<'_>,
    profiles: &Profiles,
    bin_dir: &Path,
    (jobs, limit): (usize, Duration),
    started: Instant,
) -> Result<Report> {
    let stopped = stops()?;
    let next = AtomicUsize::new(0);
    let collected = Mutex::new((Collected::default(), Progress::of(plan.runs.len())));
    let worker = || {
        while let Some(run) = plan.runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            let steps = run.case.steps(&run.plugin, profiles, run.version);
            let played =
                steps.and_then(|steps| elsewhere(|| play(&steps, run.version, bin_dir, limit)));
            let mut both = collected.lock().unwrap_or_else(|e| e.into_inner());
            let (collected, progress) = &mut *both;
            let status = tell(collected, run, played);
            progress.step(status, &run.case.id);
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, 256) {
            scope.spawn(worker);
        }
    });
    let (collected, progress) = collected.into_inner().unwrap_or_else(|e| e.into_inner());
    progress.end();
    ensure!(!stopped.load(Ordering::Relaxed), "interrupted");
    Ok(collected.finish(plan, started.elapsed()))
}

/// Becomes true when somebody wants it to end: the runs under way are finished then, so that nothing of them stays.
fn stops() -> Result<&'static AtomicBool> {
    static STOPPED: AtomicBool = AtomicBool::new(false);
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // Threads inherit that, and what they start does not.
    signals.thread_block()?;
    thread::spawn(move || {
        let _ = signals.wait();
        STOPPED.store(true, Ordering::Relaxed);
        eprintln!("\nconformance: finishing what is under way; once more to leave at once");
        // timeout(1) signals the process and then its group: that is one wish.
        let first = Instant::now();
        while first.elapsed() < ONE_WISH {
            let _ = signals.wait();
        }
        let _ = raise(Signal::SIGKILL);
    });
    Ok(&STOPPED)
}

fn tell(collected: &mut Collected, run: &Run<'_>, played: Result<Played>) -> Status {
    let mut put = |part, status, why| {
        collected.put((run.case, part), &run.plugin, run.version, status, why);
        status
    };
    let played = match played {
        Ok(played) => played,
        Err(why) => return put(Part::Case, Status::Broken, vec![format!("{why:#}")]),
    };
    let status = |why: &Vec<String>| match why.is_empty() {
        true => Status::Pass,
        false => Status::Fail,
    };
    let mut worst = put(Part::Case, status(&played.wrong), played.wrong);
    let refused = played.refused && played.shape.is_none();
    for (part, why) in [
        (Part::Shape, played.shape),
        (Part::Residue { refused }, played.residue),
    ] {
        if let Some(why) = why {
            worst = worst.max(put(part, status(&why), why));
        }
    }
    worst
}
