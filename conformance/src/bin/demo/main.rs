//! `make demo`: two pods under a real containerd, what our plugins made for them, and that nothing is left afterwards;
//! then three nodes with `overlayd`, whose pods reach each other.
//!
//! Everything happens on a node of its own (see [`conformance::containerd`]); the machine's network is not touched.
//! Exit status 0 only if every ping was answered and nothing was left, in the node and on the machine.

// It talks to people.
#![allow(clippy::print_stdout)]

mod overlay;
mod sight;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use conformance::containerd::{Call, Container, Node, STOP};
use nix::sys::signal::{SigSet, Signal};
use sight::{Bridge, Pod};

const CONFLIST: &str = include_str!("10-cbr0.conflist");
const BRIDGE: &str = "cbr0";
const USAGE: &str = "usage: demo [--plugins DIRECTORY]   (dist/bin unless given)";

static BEGUN: OnceLock<Instant> = OnceLock::new();

fn main() -> ExitCode {
    BEGUN.get_or_init(Instant::now);
    let outcome = match inside() {
        Some(plugins) => overlay::demo(&plugins),
        None => plugin_directory().and_then(|plugins| {
            stop_on_signals()?;
            demo(&plugins)?;
            println!();
            overlay::run(&plugins)
        }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The plugins, if this is the second part's own process.
fn inside() -> Option<PathBuf> {
    let mut arguments = std::env::args().skip(1);
    (arguments.next()? == overlay::INSIDE)
        .then(|| arguments.next())?
        .map(PathBuf::from)
}

fn plugin_directory() -> Result<PathBuf> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(PathBuf::from("dist/bin")),
        ["--plugins", directory] => Ok(PathBuf::from(directory)),
        _ => bail!(USAGE),
    }
}

/// Ctrl-C and SIGTERM make the next step fail, so that the node is taken down the ordinary way.
fn stop_on_signals() -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("block signals")?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            STOP.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

fn demo(plugins: &std::path::Path) -> Result<()> {
    say(&format!("plugins: {}", plugins.display()));
    let node = Node::start(plugins, CONFLIST, &["bridge", "loopback"])?;
    say(&format!(
        "node up: own namespaces, containerd {}",
        node.containerd()
    ));
    println!("\n/etc/cni/net.d/10-cbr0.conflist\n{CONFLIST}");

    let web = pod(&node, "web")?;
    let client = pod(&node, "client")?;
    let pods = [Pod::look(&node, &web)?, Pod::look(&node, &client)?];
    let bridge = Bridge::look(
        &node,
        BRIDGE,
        &pods.each_ref().map(|pod| pod.reservation.as_str()),
    )?;
    println!();
    let [on_web, on_client] = &pods;
    ping(&|argv| client.exec(argv), "client -> web", &on_web.address)?;
    ping(&|argv| web.exec(argv), "web -> client", &on_client.address)?;
    ping(&|argv| web.exec(argv), "web -> gateway", &bridge.address)?;
    ping(
        &|argv| client.exec(argv),
        "client -> gateway",
        &bridge.address,
    )?;
    ping(
        &|argv| node_ping(&node, argv),
        "node -> web",
        &on_web.address,
    )?;
    ping(
        &|argv| node_ping(&node, argv),
        "node -> client",
        &on_client.address,
    )?;

    // Once more: the pings have taught the bridge where the pods are.
    let pods = [Pod::look(&node, &web)?, Pod::look(&node, &client)?];
    println!("\n{}", table::draw(&pods, &bridge));

    remove(&node, web)?;
    remove(&node, client)?;
    println!();
    let mut clean = true;
    let left = node.left_over_at_last()?;
    for (what, entries) in left.kinds() {
        clean &= entries.is_empty();
        report(
            &format!("{what} left"),
            entries.iter().map(String::as_str),
            "none",
        );
    }
    report(
        "kept, as meant",
        sight::kept(&node, BRIDGE)?.iter().map(String::as_str),
        "nothing",
    );

    let on_machine = node.stop()?;
    report(
        "the machine outside the node",
        on_machine.iter().map(String::as_str),
        "as before",
    );
    ensure!(clean && on_machine.is_empty(), "something was left behind");
    println!();
    say("everything answered, nothing is left");
    Ok(())
}

fn pod<'n>(node: &'n Node, name: &str) -> Result<Container<'n>> {
    let pod = node.pod(name, &["sleep", "1000000"])?;
    say(&format!(
        "pod {name} runs; ADD as containerd saw it: {}",
        took(node, "ADD", &pod.id())?
    ));
    Ok(pod)
}

fn remove(node: &Node, pod: Container<'_>) -> Result<()> {
    let (name, id) = (pod.name().to_owned(), pod.id());
    pod.remove()?;
    say(&format!(
        "pod {name} removed; DEL: {}",
        took(node, "DEL", &id)?
    ));
    Ok(())
}

/// `bridge 1.9 ms, loopback 0.6 ms`
fn took(node: &Node, verb: &str, id: &str) -> Result<String> {
    let calls = node.calls()?;
    let ours: Vec<&Call> = calls
        .iter()
        .filter(|call| call.verb == verb && call.container == id)
        .collect();
    ensure!(!ours.is_empty(), "containerd did not call {verb} for {id}");
    let words = ours
        .iter()
        .map(|call| format!("{} {:.1} ms", call.plugin, call.took.as_secs_f64() * 1e3));
    Ok(words.collect::<Vec<_>>().join(", "))
}

/// Three echo requests, the first of which has to be answered too.
fn ping(run: &dyn Fn(&[&str]) -> Result<String>, who: &str, address: &str) -> Result<()> {
    let target = address.split('/').next().unwrap_or_default();
    let said = run(&["ping", "-c", "3", "-i", "0.1", "-W", "1", target])
        .with_context(|| format!("ping {who}"))?;
    ensure!(said.contains("3 packets received"), "ping {who}: {said}");
    let times: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split("time=").nth(1))
        .collect();
    say(&format!(
        "ping {who:<18} {target:<12} 3 of 3 answered: {}",
        times.join(", ")
    ));
    Ok(())
}

/// busybox's own ping, as in the pods.
fn node_ping(node: &Node, argv: &[&str]) -> Result<String> {
    let mut whole = vec!["busybox"];
    whole.extend_from_slice(argv);
    node.run(&whole)
}

/// A line per entry, or one that says there is none.
fn report<'a>(what: &str, entries: impl Iterator<Item = &'a str>, none: &str) {
    let mut label = what;
    for entry in entries {
        println!("  {label:<37} {entry}");
        label = "";
    }
    if !label.is_empty() {
        println!("  {label:<37} {none}");
    }
}

fn say(what: &str) {
    let elapsed = BEGUN.get_or_init(Instant::now).elapsed();
    println!("[{:4.1} s] {what}", elapsed.as_secs_f64());
}
