//! Times this suite's plugins, the reference plugins and the kernel's floor in one interleaved run, and says whether
//! the bounds that the suite promises hold. `bench --help` lists the options.
//!
//! It is not a micro-benchmark: what is timed is what a container runtime waits for, a whole process from spawn to
//! exit. Nor are its times comparable between machines; its ratios are.
#![allow(clippy::print_stdout)] // A command-line tool: the table is its output.

mod args;
mod bounds;
mod elf;
mod ground;
mod job;
mod machine;
mod measure;
mod pods;
mod report;
mod sandbox;
mod stats;
mod trace;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};

use args::{Options, Part};
use bounds::{BOUNDS, Bound, Verdict};
use ground::{Ground, Who};
use machine::Watch;
use measure::{burst, crowd, dual, footprint, overlay, record, sequential, store, traffic};
use report::{Format, Report};

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::from(2)
    })
}

fn run() -> Result<ExitCode> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        print!("{}", args::HELP);
        return Ok(ExitCode::SUCCESS);
    };
    match sandbox::inside() {
        None => sandbox::run_inside(&options.work_dir),
        Some(work) => measure_all(&options, &work),
    }
}

fn measure_all(options: &Options, work: &Path) -> Result<ExitCode> {
    sandbox::enter(work)?;
    let ground = Ground::survey(options, work)?;
    for (who, dir) in [
        (Who::Ours, &options.bin_dir),
        (Who::Reference, &options.reference_dir),
    ] {
        if ground.program_dir(who).is_none() {
            eprintln!(
                "bench: no bridge, host-local and loopback in {}: nothing to measure for {}",
                dir.display(),
                who.name()
            );
        }
    }

    let start = Instant::now();
    let watch = Watch::start()?;
    let mut report = Report::default();
    let part = |part, name: &str| {
        let wanted = options.wants(part);
        if wanted {
            eprintln!("bench: {:5.1} s  {name}", start.elapsed().as_secs_f64());
        }
        wanted
    };
    if part(Part::Sequential, "one pod after another") {
        sequential::measure(&ground, options, &mut report)?;
    }
    if part(Part::Burst, "110 pods at once") {
        burst::measure(&ground, options, &mut report)?;
    }
    if part(Part::Dual, "dual-stack") {
        dual::measure(&ground, options, &mut report)?;
    }
    if part(Part::Record, "records on and off") {
        record::measure(&ground, options, &mut report)?;
    }
    if part(Part::Store, "60,000 reservations") {
        store::measure(&ground, options, &mut report)?;
    }
    if part(Part::Footprint, "memory, size, system calls") {
        footprint::measure(&ground, options, &mut report)?;
    }
    if part(Part::Overlay, "5,000 and 10,000 peers") {
        overlay::measure(&ground, options, &mut report)?;
    }
    if part(Part::Traffic, "TCP between pods of two nodes") {
        traffic::measure(&ground, options, &mut report)?;
    }
    // Last, so that its 2,000 namespaces disturb nothing.
    if part(Part::Crowd, "1,000 pods on one bridge") {
        crowd::measure(&ground, options, &mut report)?;
    }
    eprintln!("bench: {:5.1} s  done", start.elapsed().as_secs_f64());

    let machine = machine::describe(&watch)?;
    let bounds: Vec<&Bound> = BOUNDS
        .iter()
        .filter(|bound| options.wants(bound.part))
        .collect();
    let format = if options.markdown {
        Format::Markdown
    } else {
        Format::Plain
    };
    println!("{}", report.print(format, &machine, &bounds));
    if let Some(path) = &options.json {
        let document = serde_json::to_string_pretty(&report.to_json(&machine, &bounds))?;
        fs::write(path, document + "\n").with_context(|| format!("write {}", path.display()))?;
    }

    let broken = bounds
        .iter()
        .filter(|bound| bound.verdict(&report) != Verdict::Pass)
        .count();
    if options.check && broken > 0 {
        eprintln!("bench: {broken} bounds do not hold or could not be measured");
        if watch.was_disturbed()? {
            eprintln!("bench: the machine was busy with other work: run again before believing it");
        }
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
